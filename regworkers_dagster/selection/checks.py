"""The checks of a selection. Those of a draw come before its publication and block it."""

from collections.abc import Callable, Iterator, Mapping

import dagster as dg
from pydantic import Field

from regworkers_core.adapters.mongo.draws import PhaseStatus
from regworkers_core.domain.selection import PromiseVerdict
from regworkers_core.observability.logs import bind
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.observing import dlq_check
from regworkers_dagster.factories import fields_of
from regworkers_dagster.metadata import Metadata, facts_as_metadata
from regworkers_dagster.resources import STORES, plain_failures, runtime_of
from regworkers_dagster.runs import PARTITION_TAG
from regworkers_dagster.selection import specs

Check = Callable[[Runtime, str], PromiseVerdict]
# Findings by campaign.
Found = Mapping[str, PromiseVerdict]


def _checked(context: dg.AssetCheckExecutionContext, check: Check) -> dg.AssetCheckResult:
    """The result for the campaign of the run's partition; for every drawn campaign when the check runs by itself."""
    bind(runId=context.run.run_id, worker="draw")
    with plain_failures():
        runtime = runtime_of(context)
        campaign_id = context.run.tags.get(PARTITION_TAG)
        campaigns = _reached(runtime, PhaseStatus.DRAWN) if campaign_id is None else [campaign_id]
        found = {campaign: check(runtime, campaign) for campaign in campaigns}
    return dg.AssetCheckResult(
        passed=not _broken(found), description=_summary(found), metadata=_numbers(found)
    )


@dg.asset_check(
    asset=specs.DRAW.key,
    blocking=True,
    config_schema={},
    required_resource_keys=set(STORES),
    description="A replay from the published artefacts alone reproduces the committed hash of every phase.",
)
def draw_replays(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The gate checks it, whose result the publication of this run uses; all draws are checked as by `regworkers draw
    verify`.
    """
    from regworkers_core.selection import promises as drawn

    if PARTITION_TAG not in context.run.tags:
        return _checked(context, drawn.draw_replays)
    return _checked(context, lambda runtime, name: drawn.gate_replays(runtime, name, context.run.run_id))


@dg.asset_check(
    asset=specs.DRAW.key,
    blocking=True,
    config_schema={},
    required_resource_keys=set(STORES),
    description="No market has more winners than seats.",
)
def capacity_respected(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The latest phase is checked, over all phases."""
    from regworkers_core.selection import promises as drawn

    return _checked(context, drawn.capacity_respected)


@dg.asset_check(
    asset=specs.DRAW_REPORT.key,
    description="Ranks are uniform over registration time, ids and mail domains (chi-square). Where it fails, the gate "
    "publishes only findings that a person accepts by name, with a reason.",
    config_schema={},
    required_resource_keys=set(STORES),
)
def win_rates_uniform(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The report's bias audit."""
    from regworkers_core.selection import promises as drawn

    return _checked(context, drawn.win_rates_uniform)


OF_A_DRAW = (draw_replays, capacity_respected, win_rates_uniform)

# The functions of these names judge.
_OF_SELECTIONS = {
    "codes_and_winners_biject": "Every winner has one code and every given code one winner, of the same market.",
    "codes_within_capacity": "No market gave more codes than it has seats.",
    "counts_match": "Planned = written = enqueued in every completed market, as in the committed result.",
}


class CheckConfig(dg.Config):
    campaign_id: str = Field(
        default="", description="Only this campaign, by id or slug; empty: all that are published."
    )


@dg.multi_asset_check(
    name="selection_promises",
    specs=[
        dg.AssetCheckSpec(name, asset=specs.SELECTIONS.key, description=description)
        for name, description in _OF_SELECTIONS.items()
    ],
    config_schema=fields_of(CheckConfig),
    required_resource_keys=set(STORES),
)
def selections_kept(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Run each check over the campaigns. One that does not hold fails the run, and with it the exit code; an alert
    follows.
    """
    from regworkers_core.selection import promises as assigned

    config = CheckConfig(**context.op_execution_context.op_config)
    bind(runId=context.run.run_id, worker="check_selection")
    with plain_failures():
        runtime = runtime_of(context)
        campaign_id = config.campaign_id and runtime.campaigns.id_of(config.campaign_id)
        campaigns = [campaign_id] if campaign_id else _reached(runtime, PhaseStatus.PUBLISHED)
        judged = {campaign: assigned.judge(runtime, campaign) for campaign in campaigns}
        found = {name: {campaign: each[name] for campaign, each in judged.items()} for name in _OF_SELECTIONS}
    for name, findings in found.items():
        yield dg.AssetCheckResult(
            check_name=name,
            asset_key=specs.SELECTIONS.key,
            passed=not _broken(findings),
            description=_summary(findings),
            metadata=_numbers(findings),
        )
    if wrong := [line for findings in found.values() for line in _broken(findings)]:
        raise dg.Failure(description="; ".join(wrong), allow_retries=False)


def _reached(runtime: Runtime, status: PhaseStatus) -> list[str]:
    """The campaigns with a phase that reached `status`, and whose data is kept."""
    return [
        record.campaign_id
        for record in runtime.draws.all()
        if record.is_kept and any(phase.reached(status) for phase in record.phases.values())
    ]


def _broken(found: Found) -> list[str]:
    """What is wrong, by campaign."""
    return [f"{campaign}: {each.description}" for campaign, each in found.items() if not each.passed]


def _summary(found: Found) -> str:
    """One line for the check's row."""
    if wrong := _broken(found):
        return "; ".join(wrong)
    if len(found) == 1:
        return next(iter(found.values())).description
    return f"kept by {len(found)} campaigns"


def _numbers(found: Found) -> Metadata:
    """Numbers of one campaign, which the UI plots; of several as JSON by campaign."""
    if len(found) == 1:
        return facts_as_metadata(next(iter(found.values())).numbers)
    return facts_as_metadata({campaign: dict(each.numbers) for campaign, each in found.items()})


selection_dlq_empty = dlq_check(
    specs.SELECTION_DLQ, lambda names: names.selection_queue, sensor="observe_selection", lost="message"
)
notification_dlq_empty = dlq_check(
    specs.NOTIFICATION_DLQ, lambda names: names.notification_queue, sensor="observe_selection", lost="message"
)
OF_QUEUES = (selection_dlq_empty, notification_dlq_empty)
