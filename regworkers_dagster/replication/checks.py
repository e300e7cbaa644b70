"""The checks of replication: no dead letters, dependencies that answer, a replica that equals its source."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.timestamps import parse_since
from regworkers_core.observability.logs import bind
from regworkers_core.operations.dependency_status import ask
from regworkers_core.operations.health.activity import Activity
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.observing import SAME_VERSION, SILENT_PROBES, Answering, dlq_check
from regworkers_dagster.factories import ApplyConfig, fields_of
from regworkers_dagster.metadata import Metadata, facts_as_metadata, records
from regworkers_dagster.replication.assets import ENTRIES, RECONCILE_RESULTS, REPLICATION_DLQ
from regworkers_dagster.resources import (
    STORES,
    TICK_CALL_SECONDS,
    plain_failures,
    runtime_of,
)
from regworkers_dagster.runs import launched_by_hand

if TYPE_CHECKING:
    from regworkers_core.replication.reconcile.reconciliation import ReconcileResult

DEPENDENCIES_ANSWER = "dependencies_answer"
LAG_WITHIN_OBJECTIVE = "lag_within_objective"
# The share of changes that may be late.
_LATE = 0.05
_NEEDED = sorted({*ENQUEUE.needs, *SAVE.needs})
CHANGED_SINCE = "Only entries that changed since: 2026-11-25T18:00:00Z, 2026-11-25, 90m, 12h, 7d; empty: all."
PARITY = dg.AssetCheckSpec(
    "parity",
    # Not of `entries`, which every drain materialises: the UI would show the result until the next one.
    asset=RECONCILE_RESULTS.key,
    description="Every entry of the demand table is in the replica with the same content, and nothing else. "
    "Changes younger than the lag objective do not count. The result says since when every entry was verified.",
)

replication_dlq_empty = dlq_check(
    REPLICATION_DLQ,
    lambda names: names.replication_queue,
    sensor="observe_replication",
    lost="message of the replication queue",
)


@dg.asset_check(
    asset=ENTRIES.key,
    name=DEPENDENCIES_ANSWER,
    description="Every dependency that replication needs answers. The sensor `observe_replication` probes them every "
    f"half minute, and fails the check after {SILENT_PROBES} failed probes in a row; a run of the check probes now.",
    config_schema={},
    required_resource_keys=set(STORES),
)
def dependencies_answer(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Probe all of them at once, without retries."""
    with plain_failures():
        found = answering(runtime_of(context, call_seconds=TICK_CALL_SECONDS))
    evaluation = found.evaluation(found.unavailable)
    return dg.AssetCheckResult(
        passed=evaluation.passed, description=evaluation.description, metadata=evaluation.metadata
    )


def answering(runtime: Runtime) -> Answering:
    """One probe of each dependency. Raises UsageError when none is configured."""
    return Answering(ask(runtime, _NEEDED), DEPENDENCIES_ANSWER, ENTRIES.key)


@dg.asset_check(
    asset=ENTRIES.key,
    name=LAG_WITHIN_OBJECTIVE,
    description="95 % of the changes of the last minutes were in the replica within "
    "`replication.lagObjectiveSeconds` of their `updatedAt`. The sensor `observe_replication` looks every half minute; "
    "a run of the check looks now.",
    config_schema={},
    required_resource_keys=set(STORES),
)
def lag_within_objective(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """By what all drains have recorded, in whichever way they run."""
    with plain_failures():
        found = lag_evaluation(runtime_of(context))
    return dg.AssetCheckResult(passed=found.passed, severity=found.severity, metadata=found.metadata)


def lag_evaluation(runtime: Runtime) -> dg.AssetCheckEvaluation:
    """The check as of now; it passes without a change. Raises TransientFailure."""
    saved = Activity(runtime).last(60).get(SAVE.name) or DrainWindow(SAVE.name)
    return dg.AssetCheckEvaluation(
        asset_key=ENTRIES.key,
        check_name=LAG_WITHIN_OBJECTIVE,
        passed=saved.late <= _LATE * saved.measured,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "objective_seconds": runtime.settings.replication.lag_objective_seconds,
            "changes": saved.measured,
            "late": saved.late,
        },
    )


def is_in_time(lags: dg.AssetCheckEvaluation | None) -> bool:
    """Whether changes are being saved within the objective: under load the queue is never empty."""
    return lags is not None and lags.passed and bool(lags.metadata["changes"].value)


class ReconcileConfig(ApplyConfig):
    """What to compare, and whether to repair."""

    campaign_id: str | None = Field(
        default=None, description="Only this campaign, by id or slug; empty: all."
    )
    apply: bool = Field(
        default=False,
        description="Repair: put the keys of what differs on the replication queue and wait until they are saved. The "
        "demand table is never written. Without, the run only compares.",
    )
    yes_remove: int | None = Field(
        default=None,
        ge=0,
        description="A repair refuses to remove entries when the source has no entry of a campaign, or when too much "
        "of the replica would be removed. This number of removals is intended.",
    )
    accept_source: int | None = Field(
        default=None,
        ge=0,
        description="The number of entries in which the replica is ahead of a source that is right: with `apply` the "
        "state of the source is saved over them, if that is their number; without, the run lists them.",
    )
    after_restore: bool = Field(
        default=False,
        description="Accept the source also when the number suggests a demand table restored from a backup.",
    )
    since: str = Field(
        default="",
        description=CHANGED_SINCE,
    )
    cycle: bool = Field(
        default=False,
        description="Only the segments of the table that are due: not verified within `replication.verifiedHours`. The "
        "result is that of all segments. Repairs nothing.",
    )


@dg.multi_asset_check(
    name="reconcile",
    specs=[PARITY],
    config_schema=fields_of(ReconcileConfig),
    required_resource_keys=set(STORES),
)
def parity(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Compare both sides. A difference fails the check and then the run, and with it the exit code."""
    from regworkers_core.replication.reconcile.acceptance import Accept
    from regworkers_core.replication.reconcile.reconciliation import reconcile

    config = ReconcileConfig(**context.op_execution_context.op_config)
    bind(runId=context.run.run_id, worker="reconcile")
    number = config.accept_source
    accept = None if number is None else Accept(number if config.apply else None, config.after_restore)
    arguments = {"repair": True, "acceptSource": number, "afterRestore": config.after_restore}
    with plain_failures():
        runtime = runtime_of(context)
        campaign_id = config.campaign_id and runtime.campaigns.id_of(config.campaign_id)
        target = campaign_id or "all campaigns"
        with launched_by_hand(
            context.run, runtime, "reconcile_entries", target, arguments, dry_run=not config.apply
        ) as numbers:
            since = parse_since(config.since, runtime.clock())
            result = reconcile(
                runtime,
                campaign_id,
                repair=config.apply,
                yes_remove=config.yes_remove,
                accept=accept,
                since=since,
                cycle=config.cycle,
                on_phase=context.log.info,
            )
            numbers |= result.numbers
    for line in (result.acceptance.in_words, result.acceptance.advice) if result.acceptance else ():
        context.log.warning(line)
    if result.repair is not None and result.repair.advice:
        context.log.warning(result.repair.advice)
    if campaign_id is None and not since:
        context.op_execution_context.log_event(as_asset(result))
    yield dg.AssetCheckResult(**as_check(result))
    if not result.clean:
        raise dg.Failure(description=_in_words(result), allow_retries=False)


def as_asset(result: "ReconcileResult") -> dg.AssetMaterialization:
    """What a comparison of all campaigns found."""
    found = {key: value for key, value in of_result(result).items() if key != "classes"}
    return dg.AssetMaterialization(RECONCILE_RESULTS.key, metadata=found, tags=SAME_VERSION)


def as_check(result: "ReconcileResult") -> dict[str, Any]:
    """The result of `parity`, or its evaluation."""
    return {
        "check_name": PARITY.name,
        "asset_key": RECONCILE_RESULTS.key,
        "passed": result.clean,
        "description": _in_words(result),
        "metadata": of_result(result),
    }


def of_result(result: "ReconcileResult") -> Metadata:
    """The totals of both sides, a table of the differences with a sample of ids, and what a repair did."""
    classes = [
        {
            "class": kind.value,
            "entries": number,
            "for example": ", ".join(result.samples.get(kind, ())),
            "meaning": result.explanations.get(kind, ""),
        }
        for kind, number in result.counts.items()
    ]
    facts = {
        **dict(sorted(result.totals.items())),
        "differences": sum(result.counts.values()),
        "seconds": round(result.seconds, 3),
        "verified_as_of": result.verified_as_of,
        "adds_up": result.adds_up,
        "classes": records(classes),
        "repair": result.repair and result.repair.as_dict(),
        "ahead": result.acceptance and result.acceptance.as_dict(),
    }
    return facts_as_metadata(facts)


def _in_words(result: "ReconcileResult") -> str:
    found = ", ".join(f"{number} {kind.value}" for kind, number in result.counts.items() if number)
    found = found or f"{result.totals['matched']} entries agree"
    if result.verified_as_of:
        found = f"{found}, verified as of {result.verified_as_of}"
    if result.repair is None:
        return found
    outcome = "repaired" if result.clean else result.repair.advice
    return f"{found}; {outcome}" if outcome and any(result.counts.values()) else found
