"""Sensors of replication."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import dagster as dg

from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_core.replication.enqueue.stream_probe import oldest_unread
from regworkers_dagster.drains.decisions import Decision, by_age
from regworkers_dagster.drains.observing import Reading, observed
from regworkers_dagster.drains.sensing import (
    DRAIN_INTERVAL_SECONDS,
    Answer,
    Startable,
    by_depth_of,
    safely,
)
from regworkers_dagster.replication.checks import answering, dlq_evaluation
from regworkers_dagster.replication.jobs import ENQUEUE_ENTRIES, SAVE_ENTRIES
from regworkers_dagster.replication.observing import put_iterator_age, read_all
from regworkers_dagster.replication.specs import REPLICATION_DLQ
from regworkers_dagster.resources import Workers

_ENQUEUE = Startable(ENQUEUE, ENQUEUE_ENTRIES.name)
_SAVE = Startable(SAVE, SAVE_ENTRIES.name)
_OBSERVE_INTERVAL_SECONDS = 30


def build_sensors(*, on: bool) -> list[dg.SensorDefinition]:
    """`on` makes them run without being switched on in the UI."""
    status = dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED
    return [
        dg.sensor(
            name="enqueue_entries_sensor",
            jobs=[ENQUEUE_ENTRIES, SAVE_ENTRIES],
            minimum_interval_seconds=DRAIN_INTERVAL_SECONDS,
            default_status=status,
            description="Starts a drain of the demand table's stream when records are unread and nobody reads "
            "them, and the next one shortly before the last one ends. On an idle system it starts the save "
            "drain, too, which will be ready when the first message is there.",
        )(enqueue_tick),
        dg.sensor(
            name="save_entries_sensor",
            job=SAVE_ENTRIES,
            minimum_interval_seconds=DRAIN_INTERVAL_SECONDS,
            default_status=status,
            description="Starts drains of the replication queue: none when it is empty, one for a trickle, more "
            "with its depth, and the next one shortly before the last one ends.",
        )(save_tick),
        dg.sensor(
            name="observe_replication",
            minimum_interval_seconds=_OBSERVE_INTERVAL_SECONDS,
            default_status=status,
            description="Records depth, lag and size of everything that replication flows through when they "
            "changed, and judges `replication_dlq_empty` and `dependencies_answer`.",
        )(observe_tick),
    ]


def enqueue_tick(context: dg.SensorEvaluationContext, tick_workers: Workers) -> Answer:
    """Peeks into the stream only while no drain reads it: a shard has room for two readers."""

    def answer() -> Answer:
        runtime = tick_workers.runtime
        active = _ENQUEUE.active(context, runtime)
        decision = by_age(
            None if active else oldest_unread(runtime.streams, runtime.leases, now=runtime.clock()),
            active,
            objective_seconds=runtime.settings.replication.lag_objective_seconds,
            max_drains=runtime.settings.drain.max_enqueue_drains,
        )
        obstacle = _ENQUEUE.obstacle(context, runtime, decision)
        if obstacle is not None:
            return dg.SkipReason(obstacle)
        requests = _ENQUEUE.requests(runtime, decision.start)
        ahead = Decision(int(not _SAVE.active(context, runtime)), "none is at work")
        if _SAVE.obstacle(context, runtime, ahead) is None:
            requests += _SAVE.requests(runtime, ahead.start)
        return dg.SensorResult(run_requests=requests)

    return safely(context, answer)


def save_tick(context: dg.SensorEvaluationContext, tick_workers: Workers) -> Answer:
    """Reads the queue's depth."""

    def answer() -> Answer:
        runtime = tick_workers.runtime
        drain = runtime.settings.drain
        return by_depth_of(
            context,
            runtime,
            _SAVE,
            runtime.names.replication_queue,
            per_drain=drain.messages_per_drain,
            max_drains=drain.max_save_drains,
        )

    return safely(context, answer)


def observe_tick(context: dg.SensorEvaluationContext, tick_workers: Workers) -> Answer:
    """Writes what changed enough since it was last written."""

    def answer() -> Answer:
        runtime = tick_workers.runtime
        # Asked first: an open breaker then spares the readings their wait for whoever is away.
        found = answering(runtime)
        readings = read_all(runtime)
        put_iterator_age(runtime, readings)
        return observed(context.cursor, readings, _judge, found)

    return safely(context, answer)


def _judge(reading: Reading) -> dg.AssetCheckEvaluation | None:
    if reading.asset != REPLICATION_DLQ.key.to_user_string() or reading.total is None:
        return None
    return dlq_evaluation(reading.total)
