"""The checks and jobs of a selection, and the sensors that look after campaigns and markets, start drains and observe
queues. The checks of a draw come before its publication and block it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import dagster as dg
from pydantic import Field

from regworkers_core.adapters.mongo.draws import PhaseStatus
from regworkers_core.domain.selection import PromiseVerdict
from regworkers_core.observability.logs import bind
from regworkers_core.operation import CHANGES_CAMPAIGNS
from regworkers_core.operations import drawing, draws
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.operations import log as log_campaigns
from regworkers_core.selection.codes.operations import export as export_codes
from regworkers_core.selection.drains import NOTIFICATIONS, REDEEM, REGISTER, SELECTIONS
from regworkers_core.selection.notify.outbox import due_units
from regworkers_core.selection.registrations.source import is_due
from regworkers_dagster.drains.observing import (
    DOCUMENTS,
    Reading,
    depth_of,
    dlq_check,
    observed,
    or_none,
    pause_state,
)
from regworkers_dagster.drains.running import automated
from regworkers_dagster.drains.sensing import Answer, Startable, depth_tick, ticking
from regworkers_dagster.factories import Declared, asset_job, fields_of, flat, sensor
from regworkers_dagster.launching import job
from regworkers_dagster.metadata import Metadata, facts_as_metadata
from regworkers_dagster.resources import (
    AwsResource,
    Connection,
    MongoResource,
    plain_failures,
    runtime_with,
)
from regworkers_dagster.runs import OPERATION_TAG, PARTITION_TAG, RESUMED, long_run, short_run
from regworkers_dagster.selection import (
    assets,
    campaigns,
    recording,
    specs,
)
from regworkers_dagster.selection.specs import DRAW_JOB

Check = Callable[[Runtime, str], PromiseVerdict]
# Findings by campaign.
Found = Mapping[str, PromiseVerdict]


def _checked(
    context: dg.AssetCheckExecutionContext, stores: Sequence[Connection], check: Check
) -> dg.AssetCheckResult:
    """The result for the campaign of the run's partition; for every drawn campaign when the check runs by itself."""
    bind(runId=context.run.run_id, worker=DRAW_JOB)
    with plain_failures():
        runtime = runtime_with(*stores)
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
    description="A replay from the published artefacts alone reproduces the committed hash of every phase.",
)
def draw_replays(
    context: dg.AssetCheckExecutionContext, aws: AwsResource, mongo: MongoResource
) -> dg.AssetCheckResult:
    """The gate checks it, whose result the publication of this run uses; all draws are checked as by `regworkers draw
    verify`.
    """
    from regworkers_core.selection import promises as drawn

    if PARTITION_TAG not in context.run.tags:
        return _checked(context, (aws, mongo), drawn.draw_replays)
    return _checked(
        context, (aws, mongo), lambda runtime, name: drawn.gate_replays(runtime, name, context.run.run_id)
    )


@dg.asset_check(
    asset=specs.DRAW.key,
    blocking=True,
    config_schema={},
    description="No market has more winners than seats.",
)
def capacity_respected(
    context: dg.AssetCheckExecutionContext, aws: AwsResource, mongo: MongoResource
) -> dg.AssetCheckResult:
    """The latest phase is checked, over all phases."""
    from regworkers_core.selection import promises as drawn

    return _checked(context, (aws, mongo), drawn.capacity_respected)


@dg.asset_check(
    asset=specs.DRAW_REPORT.key,
    description="Ranks are uniform over registration time, ids and mail domains (chi-square). Where it fails, the gate "
    "publishes only findings that a person accepts by name, with a reason.",
    config_schema={},
)
def win_rates_uniform(
    context: dg.AssetCheckExecutionContext, aws: AwsResource, mongo: MongoResource
) -> dg.AssetCheckResult:
    """The report's bias audit."""
    from regworkers_core.selection import promises as drawn

    return _checked(context, (aws, mongo), drawn.win_rates_uniform)


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
)
def selections_kept(
    context: dg.AssetCheckExecutionContext, aws: AwsResource, mongo: MongoResource
) -> Iterator[dg.AssetCheckResult]:
    """Run each check over the campaigns. One that does not hold fails the run, and with it the exit code; an alert
    follows.
    """
    from regworkers_core.selection import promises as assigned

    config = CheckConfig(**context.op_execution_context.op_config)
    bind(runId=context.run.run_id, worker="check_selection")
    with plain_failures():
        runtime = runtime_with(aws, mongo)
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
redemption_dlq_empty = dlq_check(
    specs.REDEMPTION_DLQ, lambda names: names.redemption_queue, sensor="observe_selection", lost="message"
)
OF_QUEUES = (selection_dlq_empty, notification_dlq_empty, redemption_dlq_empty)


DRAW = asset_job(
    DRAW_JOB,
    dg.AssetSelection.assets(*assets.STEPS).without_checks() | dg.AssetSelection.checks(*OF_A_DRAW),
    tags={**RESUMED, **long_run()},
    declared=Declared("selection", "large", "manager"),
    hooks={assets.mark_a_mis_click},
    description="The draw of one campaign, from the frozen pool to the publication. Every step finds what was decided "
    "before, so it can be launched again at any time: nothing is drawn twice. Choose the campaign's partition; no "
    "config is needed. It ends with the report: `confirm_draw` publishes the result.",
)
CHECK_SELECTION = asset_job(
    "check_selection",
    dg.AssetSelection.checks(selections_kept),
    config=flat("selection_promises", CheckConfig),
    tags={OPERATION_TAG: "check_selection", **short_run()},
    declared=Declared("selection", who="system"),
    description="Checks codes and messages: one code per winner, capacity, counts. A check that does not hold fails "
    "the run. Started by `watch_campaigns` for every phase that completes. "
    'Config: {"campaign_id": "..."}; none: every published campaign.',
)
LOG_CAMPAIGNS = job(log_campaigns, {"campaigns": specs.CAMPAIGNS}, {log_campaigns.job})
PASS_ON = job(drawing.pass_on, {}, of_step=assets.event_of)
EXPORT_CODES = job(export_codes, {"codes": specs.CODES}, {export_codes.job})

JOBS = (DRAW, CHECK_SELECTION, LOG_CAMPAIGNS, PASS_ON, EXPORT_CODES)


_CAMPAIGNS_INTERVAL_SECONDS = 10
_OBSERVE_INTERVAL_SECONDS = 30
# A seat may be idle for an hour.
_ROUNDS_INTERVAL_SECONDS = 120

process_tick = depth_tick(SELECTIONS)


@ticking
def notify_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Starts the one sender while messages may be sent by their time, the canary and the stop switch."""
    due = due_units(runtime)
    if not due:
        return dg.SkipReason("nothing in the outbox may be sent now")
    # Units, not messages: one sender works on all of them.
    return Startable(NOTIFICATIONS).by_depth(context, runtime, len(due))


@ticking
def register_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Starts the one holder of all trees while entries wait for their leaves, or a tree's size for the log."""
    if not is_due(runtime):
        return dg.SkipReason("every registration is in its tree, and in the log as far as its time has come")
    return Startable(REGISTER).by_depth(context, runtime, 1)


DRAINS = (
    automated(
        SELECTIONS,
        specs.SELECTIONS,
        tick=process_tick,
        every_seconds=_CAMPAIGNS_INTERVAL_SECONDS,
        uses=CHANGES_CAMPAIGNS,
    ),
    automated(
        NOTIFICATIONS,
        specs.NOTIFICATIONS,
        tick=notify_tick,
        every_seconds=_CAMPAIGNS_INTERVAL_SECONDS,
    ),
    automated(
        REGISTER,
        specs.REGISTRATION_LOG,
        tick=register_tick,
        every_seconds=_CAMPAIGNS_INTERVAL_SECONDS,
        uses=CHANGES_CAMPAIGNS,
    ),
    automated(REDEEM, specs.REDEMPTIONS, every_seconds=_CAMPAIGNS_INTERVAL_SECONDS, uses=CHANGES_CAMPAIGNS),
)


@ticking
def observe_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Write what changed enough since it was last written."""
    return observed(runtime.settings, context.cursor, read_all(runtime))


def read_all(runtime: Runtime) -> list[Reading]:
    """Read every queue of the selection and the outbox. Raises nothing for what does not answer."""
    names = runtime.names
    selection, notification = names.selection_queue, names.notification_queue
    redemption = names.redemption_queue
    due = or_none(lambda: float(len(due_units(runtime))))
    return [
        Reading.of(
            specs.SELECTION_QUEUE, {**depth_of(runtime, selection), **pause_state(runtime, SELECTIONS.name)}
        ),
        Reading.of(specs.SELECTION_DLQ, depth_of(runtime, names.dead_letter_queue(selection))),
        Reading.of(specs.SELECTIONS, {DOCUMENTS: or_none(runtime.selections.estimate)}),
        Reading.of(
            specs.OUTBOX,
            {
                DOCUMENTS: or_none(runtime.outbox.estimate),
                "markets_due": due,
                **pause_state(runtime, NOTIFICATIONS.name),
            },
        ),
        Reading.of(specs.NOTIFICATIONS, depth_of(runtime, notification)),
        Reading.of(specs.NOTIFICATION_DLQ, depth_of(runtime, names.dead_letter_queue(notification))),
        Reading.of(
            specs.REDEMPTION_QUEUE, {**depth_of(runtime, redemption), **pause_state(runtime, REDEEM.name)}
        ),
        Reading.of(specs.REDEMPTION_DLQ, depth_of(runtime, names.dead_letter_queue(redemption))),
    ]


SENSORS = (
    sensor(
        "watch_campaigns",
        campaigns.campaigns_tick,
        jobs=[DRAW, CHECK_SELECTION, LOG_CAMPAIGNS],
        every_seconds=_CAMPAIGNS_INTERVAL_SECONDS,
        description="Adds a partition for every campaign. Starts `log_campaigns` while the public log lacks an open "
        "campaign, or a change of one. Starts the draw of campaigns with `autoDraw` once they are "
        "closed or their `closesAt` has passed; resumes a draw whose run died, or whose round of the beacon is due; "
        "starts `check_selection` for every phase that completed, until the draw's record says that it was judged.",
    ),
    sensor(
        "record_campaigns",
        recording.record_tick,
        every_seconds=_OBSERVE_INTERVAL_SECONDS,
        description="Records what was done to campaigns and draws in a terminal as materialisations of their "
        "partitions, so that the UI shows the current state of each.",
    ),
    sensor(
        "watch_markets",
        campaigns.markets_tick,
        job_name=draws.retry.job,
        every_seconds=_OBSERVE_INTERVAL_SECONDS,
        description="Retries stalled markets: codes were imported since, or chunks were lost.",
    ),
    sensor(
        "pass_on_sensor",
        campaigns.rounds_tick,
        jobs=[PASS_ON, EXPORT_CODES],
        every_seconds=_ROUNDS_INTERVAL_SECONDS,
        description="Starts a round of seats that pass on, in campaigns that do so by themselves, and exports "
        "their codes for the issuer once they are given. One that is stopped is an alert.",
    ),
    sensor(
        "observe_selection",
        observe_tick,
        every_seconds=_OBSERVE_INTERVAL_SECONDS,
        description="Records the depths of all queues of a selection when they changed, and updates the checks that "
        "the dead-letter queues are empty.",
    ),
)
