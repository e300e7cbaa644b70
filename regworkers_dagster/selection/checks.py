"""The promises of the selection, as checks. Those of a draw stand before its publication and block it."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from collections.abc import Callable, Iterator, Mapping

import dagster as dg
from pydantic import Field

from regworkers_core.adapters.mongo.draws import PhaseStatus
from regworkers_core.domain.selection import Verdict
from regworkers_core.observability.logs import bind
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign import checks as assigned
from regworkers_core.selection.draw import checks
from regworkers_dagster.drains.metadata import Metadata
from regworkers_dagster.drains.observing import Reading
from regworkers_dagster.resources import Workers
from regworkers_dagster.selection import specs
from regworkers_dagster.selection.steps import draw_failures, facts_as_metadata
from regworkers_dagster.tags import PARTITION_TAG

Judge = Callable[[Runtime, str], Verdict]
# Findings by campaign.
Found = Mapping[str, Verdict]


def _judged(context: dg.AssetCheckExecutionContext, workers: Workers, judge: Judge) -> dg.AssetCheckResult:
    """Of the campaign whose partition is run; of every drawn one when the check is run by itself."""
    bind(runId=context.run.run_id, worker="draw")
    with draw_failures():
        runtime = workers.runtime
        campaign_id = context.run.tags.get(PARTITION_TAG)
        campaigns = _reached(runtime, PhaseStatus.DRAWN) if campaign_id is None else [campaign_id]
        found = {campaign: judge(runtime, campaign) for campaign in campaigns}
    return dg.AssetCheckResult(passed=not broken(found), description=told(found), metadata=numbers(found))


@dg.asset_check(
    asset=specs.DRAW.key,
    blocking=True,
    description="Replayed from the published artefacts alone, every phase comes to the committed hash.",
)
def draw_replays(context: dg.AssetCheckExecutionContext, workers: Workers) -> dg.AssetCheckResult:
    """By the gate, whose verdict the publication of this run goes by; of all draws as `regworkers draw verify` does."""
    if PARTITION_TAG not in context.run.tags:
        return _judged(context, workers, checks.draw_replays)
    return _judged(
        context, workers, lambda runtime, name: checks.gate_replays(runtime, name, context.run.run_id)
    )


@dg.asset_check(
    asset=specs.DRAW.key,
    blocking=True,
    description="No market has more winners than seats.",
)
def capacity_respected(context: dg.AssetCheckExecutionContext, workers: Workers) -> dg.AssetCheckResult:
    """Of the latest phase, over all phases."""
    return _judged(context, workers, checks.capacity_respected)


@dg.asset_check(
    asset=specs.DRAW_REPORT.key,
    description="Ranks are uniform over registration time, ids and mail domains (chi-square). Where it fails, the gate "
    "publishes only what a person accepts by name, with a reason.",
)
def win_rates_uniform(context: dg.AssetCheckExecutionContext, workers: Workers) -> dg.AssetCheckResult:
    """The report's bias audit."""
    return _judged(context, workers, checks.win_rates_uniform)


OF_A_DRAW = (draw_replays, capacity_respected, win_rates_uniform)

_OF_SELECTIONS: Mapping[str, tuple[Judge, str]] = {
    "codes_and_winners_biject": (
        assigned.codes_and_winners_biject,
        "Every winner has one code and every given code one winner, of the same market.",
    ),
    "codes_within_capacity": (assigned.codes_within_capacity, "No market gave more codes than it has seats."),
    "counts_match": (
        assigned.counts_match,
        "Planned = written = enqueued in every completed market, as in the committed result.",
    ),
}


class CheckConfig(dg.Config):
    """Whose selections to judge."""

    campaignId: str = Field(default="", description="Only this campaign; empty: all that are published.")


@dg.multi_asset_check(
    name="selection_promises",
    specs=[
        dg.AssetCheckSpec(name, asset=specs.SELECTIONS.key, description=description)
        for name, (_, description) in _OF_SELECTIONS.items()
    ],
)
def selections_kept(
    context: dg.AssetCheckExecutionContext, config: CheckConfig, workers: Workers
) -> Iterator[dg.AssetCheckResult]:
    """Judges each promise over the campaigns; a broken one fails the run, so that an exit code and an alert tell."""
    bind(runId=context.run.run_id, worker="check_selection")
    with draw_failures():
        runtime = workers.runtime
        campaigns = [config.campaignId] if config.campaignId else _reached(runtime, PhaseStatus.PUBLISHED)
        found = {
            name: {campaign: judge(runtime, campaign) for campaign in campaigns}
            for name, (judge, _) in _OF_SELECTIONS.items()
        }
    for name, findings in found.items():
        yield dg.AssetCheckResult(
            check_name=name,
            asset_key=specs.SELECTIONS.key,
            passed=not broken(findings),
            description=told(findings),
            metadata=numbers(findings),
        )
    if wrong := [line for findings in found.values() for line in broken(findings)]:
        raise dg.Failure(description="; ".join(wrong), allow_retries=False)


def _reached(runtime: Runtime, status: PhaseStatus) -> list[str]:
    """The campaigns with a phase that came at least so far, and whose data is kept."""
    return [
        record.campaign_id
        for record in runtime.draws.all()
        if record.is_kept and any(phase.reached(status) for phase in record.phases.values())
    ]


def broken(found: Found) -> list[str]:
    """What is wrong, by campaign."""
    return [f"{campaign}: {each.description}" for campaign, each in found.items() if not each.passed]


def told(found: Found) -> str:
    """One line for the check's row."""
    if wrong := broken(found):
        return "; ".join(wrong)
    if len(found) == 1:
        return next(iter(found.values())).description
    return f"kept by {len(found)} campaigns"


def numbers(found: Found) -> Metadata:
    """Of one campaign as numbers, which the UI plots; of several as JSON by campaign."""
    if len(found) == 1:
        return facts_as_metadata(next(iter(found.values())).numbers)
    return facts_as_metadata({campaign: dict(each.numbers) for campaign, each in found.items()})


@dg.config_mapping
def check_mapping(val: CheckConfig) -> dg.RunConfig:
    """The op's config is the job's: nothing around it."""
    return dg.RunConfig(ops={"selection_promises": val})


def _dlq_check(spec: dg.AssetSpec, queue: Callable[[Runtime], str]) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=spec.key,
        name=f"{spec.key.to_user_string()}_empty",
        description="No message was given up. The sensor `observe_selection` judges this every half minute; a "
        "run of the check reads it now.",
    )
    def empty(workers: Workers) -> dg.AssetCheckResult:
        with draw_failures():
            runtime = workers.runtime
            depth = runtime.queue(runtime.names.dead_letter_queue(queue(runtime))).depth().total
        return dg.AssetCheckResult(passed=depth == 0, metadata={"messages": depth})

    return empty


selection_dlq_empty = _dlq_check(specs.SELECTION_DLQ, lambda runtime: runtime.names.selection_queue)
notification_dlq_empty = _dlq_check(specs.NOTIFICATION_DLQ, lambda runtime: runtime.names.notification_queue)
OF_QUEUES = (selection_dlq_empty, notification_dlq_empty)
_DLQS = {spec.key.to_user_string() for spec in (specs.SELECTION_DLQ, specs.NOTIFICATION_DLQ)}


def dlq_evaluation(reading: Reading) -> dg.AssetCheckEvaluation | None:
    """The same judgement of an observed dead-letter queue, for a sensor to record."""
    if reading.asset not in _DLQS or reading.total is None:
        return None
    return dg.AssetCheckEvaluation(
        check_name=f"{reading.asset}_empty",
        asset_key=dg.AssetKey(reading.asset),
        passed=reading.total == 0,
        metadata={"messages": dg.MetadataValue.int(reading.total)},
    )
