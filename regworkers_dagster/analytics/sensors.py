"""Sensors of the export: one starts drains, one watches."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import dagster as dg

from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.domain.snapshot import QueueState
from regworkers_core.operations.health.queues import put_age_metrics, read_analytics_queue
from regworkers_core.runtime import Runtime
from regworkers_dagster.analytics.checks import dlq_evaluation
from regworkers_dagster.analytics.jobs import PUBLISH_EVENTS
from regworkers_dagster.analytics.specs import ANALYTICS_DLQ, ANALYTICS_QUEUE
from regworkers_dagster.drains.observing import Reading, depth_of, observed
from regworkers_dagster.drains.sensing import (
    DRAIN_INTERVAL_SECONDS,
    Answer,
    Startable,
    by_depth_of,
    safely,
)
from regworkers_dagster.resources import Workers

_PUBLISH = Startable(PUBLISH, PUBLISH_EVENTS.name)
_OBSERVE_INTERVAL_SECONDS = 30


def build_sensors(*, on: bool) -> list[dg.SensorDefinition]:
    """`on` makes them run without being switched on in the UI."""
    status = dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED
    return [
        dg.sensor(
            name="publish_events_sensor",
            job=PUBLISH_EVENTS,
            minimum_interval_seconds=DRAIN_INTERVAL_SECONDS,
            default_status=status,
            description="Starts drains of the analytics queue by its depth, and none while Kafka does not answer.",
        )(publish_tick),
        dg.sensor(
            name="observe_analytics",
            minimum_interval_seconds=_OBSERVE_INTERVAL_SECONDS,
            default_status=status,
            description="Records depth and age of the analytics queue when they change, puts its metrics, and "
            "evaluates `analytics_dlq_empty`.",
        )(observe_tick),
    ]


def publish_tick(context: dg.SensorEvaluationContext, tick_workers: Workers) -> Answer:
    """Reads the queue's depth; asks Kafka before it starts anything."""

    def answer() -> Answer:
        runtime = tick_workers.runtime
        return by_depth_of(
            context,
            runtime,
            _PUBLISH,
            runtime.names.analytics_queue,
            per_drain=runtime.settings.drain.messages_per_drain,
            max_drains=runtime.settings.analytics.max_drains,
        )

    return safely(context, answer)


def observe_tick(context: dg.SensorEvaluationContext, tick_workers: Workers) -> Answer:
    """Reads the analytics queue, puts its metrics, and records what has changed since the last record."""

    def answer() -> Answer:
        runtime = tick_workers.runtime
        queue = read_analytics_queue(runtime)
        put_age_metrics(runtime, queue)
        return observed(context.cursor, read_all(runtime, queue), dlq_evaluation)

    return safely(context, answer)


def read_all(runtime: Runtime, queue: QueueState | None) -> list[Reading]:
    """The queue, as it was read, and its dead letters."""
    names = runtime.names
    numbers = {
        "messages": float(queue.waiting) if queue else None,
        "oldest_at_least_seconds": queue.oldest_seconds if queue else None,
        "time_to_data_loss_seconds": queue.seconds_left if queue else None,
    }
    return [
        Reading.of(ANALYTICS_QUEUE, numbers),
        Reading.of(ANALYTICS_DLQ, depth_of(runtime, names.dead_letter_queue(names.analytics_queue))),
    ]
