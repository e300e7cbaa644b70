"""The promise that replica equals source, judged by a reconcile."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from regworkers_core.observability.logs import bind
from regworkers_core.replication.reconcile import Accept, ReconcileResult, reconcile
from regworkers_dagster.drains.metadata import Metadata
from regworkers_dagster.operations.audit import launched_by_hand
from regworkers_dagster.replication.specs import ENTRIES
from regworkers_dagster.resources import Workers, plain_failures

PARITY = dg.AssetCheckSpec(
    "parity",
    asset=ENTRIES.key,
    description="Every entry of the demand table is in the replica with the same content, and nothing else. "
    "Changes younger than the lag objective do not count.",
)


class ReconcileConfig(dg.Config):
    """What to compare, and whether to repair."""

    campaign_id: str | None = Field(default=None, description="Only this campaign; empty: all.")
    repair: bool = Field(
        default=False,
        description="Put the keys of what differs on the replication queue and wait until it heals. The demand "
        "table is never written.",
    )
    yes_remove: int | None = Field(
        default=None,
        ge=0,
        description="A repair removes nothing when the source holds no entry of a campaign, or when too much of the "
        "replica would go. So many removals are right all the same.",
    )
    accept_source: int | None = Field(
        default=None,
        ge=0,
        description="The number of entries that are ahead of a source that is right: its state is saved over them. "
        "A repair does it if that is their number; without `repair` the run only says which they are.",
    )
    after_restore: bool = Field(
        default=False,
        description="Also where the number looks like a demand table that was restored from a backup.",
    )


@dg.multi_asset_check(name="reconcile", specs=[PARITY])
def parity(
    context: dg.AssetCheckExecutionContext, config: ReconcileConfig, workers: Workers
) -> Iterator[dg.AssetCheckResult]:
    """Compares both sides; a difference fails the check and then the run, so that an exit code and an alert tell."""
    bind(runId=context.run.run_id, worker="reconcile")
    target = config.campaign_id or "all campaigns"
    number = config.accept_source
    accept = None if number is None else Accept(number if config.repair else None, config.after_restore)
    arguments = {"repair": True, "acceptSource": number, "afterRestore": config.after_restore}
    with plain_failures():
        runtime = workers.runtime
        with launched_by_hand(
            context.run, runtime, "reconcile_entries", target, arguments, dry_run=not config.repair
        ) as came_to:
            result = reconcile(
                runtime,
                config.campaign_id,
                repair=config.repair,
                yes_remove=config.yes_remove,
                accept=accept,
                on_phase=context.log.info,
            )
            came_to |= result.numbers
    for said in (result.acceptance.in_words, result.acceptance.advice) if result.acceptance else ():
        context.log.warning(said)
    if result.repair is not None and result.repair.advice:
        context.log.warning(result.repair.advice)
    yield dg.AssetCheckResult(
        check_name=PARITY.name,
        asset_key=ENTRIES.key,
        passed=result.clean,
        description=_in_words(result),
        metadata=of_result(result),
    )
    if not result.clean:
        raise dg.Failure(description=_in_words(result), allow_retries=False)


def of_result(result: ReconcileResult) -> Metadata:
    """Totals of both sides, a table of the differences with a sample of ids, and what a repair did."""
    metadata: Metadata = {key: dg.MetadataValue.int(number) for key, number in sorted(result.totals.items())}
    metadata["differences"] = dg.MetadataValue.int(sum(result.counts.values()))
    metadata["seconds"] = dg.MetadataValue.float(round(result.seconds, 3))
    metadata["adds_up"] = dg.MetadataValue.bool(result.adds_up)
    metadata["classes"] = dg.MetadataValue.table(
        records=[
            dg.TableRecord(
                {
                    "class": kind.value,
                    "entries": number,
                    "for example": ", ".join(result.samples.get(kind, ())),
                    "meaning": result.explanations.get(kind, ""),
                }
            )
            for kind, number in result.counts.items()
        ],
        schema=dg.TableSchema(
            columns=[
                dg.TableColumn("class", "string"),
                dg.TableColumn("entries", "int"),
                dg.TableColumn("for example", "string"),
                dg.TableColumn("meaning", "string"),
            ]
        ),
    )
    if result.repair is not None:
        metadata["repair"] = dg.MetadataValue.json(result.repair.as_dict())
    if result.acceptance is not None:
        metadata["ahead"] = dg.MetadataValue.json(result.acceptance.as_dict())
    return metadata


def _in_words(result: ReconcileResult) -> str:
    found = ", ".join(f"{number} {kind.value}" for kind, number in result.counts.items() if number)
    if not found:
        return f"{result.totals['matched']} entries agree"
    if result.repair is None:
        return found
    outcome = "repaired" if result.clean else result.repair.advice
    return f"{found}; {outcome}" if outcome else found
