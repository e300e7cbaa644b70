"""The jobs of a selection, and the sensors that look after campaigns and markets, start drains and observe queues."""

from __future__ import annotations

import dagster as dg

from regworkers_core.operations import draws
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_core.selection.notify.outbox import due_units
from regworkers_dagster.drains.observing import Reading, depth_of, observed, or_none, pause_state
from regworkers_dagster.drains.running import automated
from regworkers_dagster.drains.sensing import Answer, Startable, depth_tick, ticking
from regworkers_dagster.factories import asset_job, flat, sensor
from regworkers_dagster.pods import Declared
from regworkers_dagster.resources import CHANGES_CAMPAIGNS
from regworkers_dagster.runs import OPERATION_TAG, RESUMED, long_run, short_run
from regworkers_dagster.selection import (
    assets,
    campaigns,
    checks,
    recording,
    specs,
)
from regworkers_dagster.selection.specs import DRAW_JOB

DRAW = asset_job(
    DRAW_JOB,
    dg.AssetSelection.assets(*assets.STEPS).without_checks() | dg.AssetSelection.checks(*checks.OF_A_DRAW),
    tags={**RESUMED, **long_run()},
    declared=Declared("selection", "large", "manager"),
    hooks={assets.mark_a_mis_click},
    description="The draw of one campaign, from the frozen pool to the publication. Every step finds what was decided "
    "before, so it can be launched again at any time: nothing is drawn twice. Choose the campaign's partition; no "
    "config is needed. It ends with the report: `confirm_draw` publishes the result.",
)
CHECK_SELECTION = asset_job(
    "check_selection",
    dg.AssetSelection.checks(checks.selections_kept),
    config=flat("selection_promises", checks.CheckConfig),
    tags={OPERATION_TAG: "check_selection", **short_run()},
    declared=Declared("selection", who="system"),
    description="Checks codes and messages: one code per winner, capacity, counts. A check that does not hold fails "
    "the run. Started by `watch_campaigns` for every phase that completes. "
    'Config: {"campaign_id": "..."}; none: every published campaign.',
)

JOBS = (DRAW, CHECK_SELECTION)


_CAMPAIGNS_INTERVAL_SECONDS = 10
_OBSERVE_INTERVAL_SECONDS = 30

process_tick = depth_tick(SELECTIONS)


@ticking
def notify_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Starts the one sender while messages may be sent by their time, the canary and the stop switch."""
    due = due_units(runtime)
    if not due:
        return dg.SkipReason("nothing in the outbox may be sent now")
    # Units, not messages: one sender works on all of them.
    return Startable(NOTIFICATIONS).by_depth(context, runtime, len(due))


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
        more="`regworkers notifications pause` stops it.",
    ),
)


@ticking
def observe_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Write what changed enough since it was last written."""
    return observed(runtime.settings, context.cursor, read_all(runtime))


def read_all(runtime: Runtime) -> list[Reading]:
    """Read every queue of the selection and the outbox. Raises nothing for what does not answer."""
    names = runtime.names
    selection, notification = names.selection_queue, names.notification_queue
    due = or_none(lambda: float(len(due_units(runtime))))
    return [
        Reading.of(
            specs.SELECTION_QUEUE, {**depth_of(runtime, selection), **pause_state(runtime, SELECTIONS.name)}
        ),
        Reading.of(specs.SELECTION_DLQ, depth_of(runtime, names.dead_letter_queue(selection))),
        Reading.of(specs.OUTBOX, {"markets_due": due, **pause_state(runtime, NOTIFICATIONS.name)}),
        Reading.of(specs.NOTIFICATIONS, depth_of(runtime, notification)),
        Reading.of(specs.NOTIFICATION_DLQ, depth_of(runtime, names.dead_letter_queue(notification))),
    ]


SENSORS = (
    sensor(
        "watch_campaigns",
        campaigns.campaigns_tick,
        jobs=[DRAW, CHECK_SELECTION],
        every_seconds=_CAMPAIGNS_INTERVAL_SECONDS,
        description="Adds a partition for every campaign. Starts the draw of campaigns with `autoDraw` once they are "
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
        "observe_selection",
        observe_tick,
        every_seconds=_OBSERVE_INTERVAL_SECONDS,
        description="Records the depths of all queues of a selection when they changed, and updates the checks that "
        "the dead-letter queues are empty.",
    ),
)
