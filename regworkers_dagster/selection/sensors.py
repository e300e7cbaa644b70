"""Sensors of the selection's drains and queues."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import dagster as dg

from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_core.selection.notify.units import due_units
from regworkers_dagster.drains.decisions import by_depth
from regworkers_dagster.drains.observing import Reading, depth_of, observed, or_none
from regworkers_dagster.drains.sensing import (
    DRAIN_INTERVAL_SECONDS,
    Answer,
    Startable,
    by_depth_of,
    safely,
)
from regworkers_dagster.resources import Workers
from regworkers_dagster.selection import campaigns, recording, specs
from regworkers_dagster.selection.checks import dlq_evaluation
from regworkers_dagster.selection.draw_jobs import retry_market_selection
from regworkers_dagster.selection.jobs import CHECK_SELECTION, DRAW, PROCESS_SELECTIONS, SEND_NOTIFICATIONS

_SELECTIONS = Startable(SELECTIONS, PROCESS_SELECTIONS.name)
_NOTIFICATIONS = Startable(NOTIFICATIONS, SEND_NOTIFICATIONS.name)
# A message is a chunk of up to 500 winners: half a minute of work for one drain.
_CHUNKS_PER_DRAIN = 100
_MAX_SELECTION_DRAINS = 4
_CAMPAIGNS_INTERVAL_SECONDS = 10
_OBSERVE_INTERVAL_SECONDS = 30


def build_sensors(*, on: bool) -> list[dg.SensorDefinition]:
    """`on` makes them run without being switched on in the UI."""
    status = dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED
    return [
        dg.sensor(
            name="watch_campaigns",
            jobs=[DRAW, CHECK_SELECTION],
            minimum_interval_seconds=_CAMPAIGNS_INTERVAL_SECONDS,
            default_status=status,
            description="Gives every campaign its partition. Starts the draw of campaigns with `autoDraw` "
            "once they are closed or their `closesAt` has passed; takes a draw up again whose run died, or whose "
            "round of the beacon is due; has the promises judged of every phase that completes.",
        )(campaigns.campaigns_tick),
        dg.sensor(
            name="record_campaigns",
            minimum_interval_seconds=_CAMPAIGNS_INTERVAL_SECONDS,
            default_status=status,
            description="Records what was done to campaigns and draws in a terminal as materialisations of their "
            "partitions, so that the UI shows how each stands, also when it was moved on elsewhere.",
        )(recording.record_tick),
        dg.sensor(
            name="watch_markets",
            job=retry_market_selection,
            minimum_interval_seconds=_CAMPAIGNS_INTERVAL_SECONDS,
            default_status=status,
            description="Retries markets that stand still: codes have come in, or chunks were lost on their way.",
        )(campaigns.markets_tick),
        dg.sensor(
            name="process_selections_sensor",
            job=PROCESS_SELECTIONS,
            minimum_interval_seconds=DRAIN_INTERVAL_SECONDS,
            default_status=status,
            description="Starts drains of the selection queue: none when it is empty, one for a trickle, more "
            "with its depth.",
        )(process_tick),
        dg.sensor(
            name="send_notifications_sensor",
            job=SEND_NOTIFICATIONS,
            minimum_interval_seconds=DRAIN_INTERVAL_SECONDS,
            default_status=status,
            description="Starts the one sender while messages may go by their time, the canary and the stop switch.",
        )(notify_tick),
        dg.sensor(
            name="observe_selection",
            minimum_interval_seconds=_OBSERVE_INTERVAL_SECONDS,
            default_status=status,
            description="Records the depths of everything that a selection flows through when they changed, and "
            "judges that the dead-letter queues are empty.",
        )(observe_tick),
    ]


def process_tick(context: dg.SensorEvaluationContext, tick_workers: Workers) -> Answer:
    """Reads the queue's depth."""

    def answer() -> Answer:
        runtime = tick_workers.runtime
        return by_depth_of(
            context,
            runtime,
            _SELECTIONS,
            runtime.names.selection_queue,
            per_drain=_CHUNKS_PER_DRAIN,
            max_drains=_MAX_SELECTION_DRAINS,
        )

    return safely(context, answer)


def notify_tick(context: dg.SensorEvaluationContext, tick_workers: Workers) -> Answer:
    """Asks which markets have messages that may go by time, canary and stop switch."""

    def answer() -> Answer:
        runtime = tick_workers.runtime
        due = due_units(runtime)
        if not due:
            return dg.SkipReason("nothing in the outbox may go now")
        # Units, not messages: one sender does them all.
        decision = by_depth(len(due), 0, _NOTIFICATIONS.active(context, runtime), per_drain=1, max_drains=1)
        return _NOTIFICATIONS.answer(context, runtime, decision)

    return safely(context, answer)


def observe_tick(context: dg.SensorEvaluationContext, tick_workers: Workers) -> Answer:
    """Writes what changed enough since it was last written."""
    return safely(context, lambda: observed(context.cursor, read_all(tick_workers.runtime), dlq_evaluation))


def read_all(runtime: Runtime) -> list[Reading]:
    """Every queue of the selection and the outbox. Never raises for what is away."""
    names = runtime.names
    selection, notification = names.selection_queue, names.notification_queue
    due = or_none(lambda: float(len(due_units(runtime))))
    return [
        Reading.of(specs.SELECTION_QUEUE, depth_of(runtime, selection)),
        Reading.of(specs.SELECTION_DLQ, depth_of(runtime, names.dead_letter_queue(selection))),
        Reading.of(specs.OUTBOX, {"markets_due": due}),
        Reading.of(specs.NOTIFICATIONS, depth_of(runtime, notification)),
        Reading.of(specs.NOTIFICATION_DLQ, depth_of(runtime, names.dead_letter_queue(notification))),
    ]
