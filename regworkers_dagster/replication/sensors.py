"""The sensors of replication: two start drains, one observes queues, stream and replica."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from collections.abc import Iterable

import dagster as dg

from regworkers_core.infrastructure.dashboards.alarms import ITERATOR_AGE
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_core.replication.enqueue.stream_probe import oldest_unread, stream_lag
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.decisions import Decision, by_age
from regworkers_dagster.drains.observing import Reading, depth_of, observed, or_none
from regworkers_dagster.drains.sensing import (
    DRAIN_INTERVAL_SECONDS,
    Answer,
    Startable,
    depth_tick,
    ticking,
)
from regworkers_dagster.factories import sensor
from regworkers_dagster.replication.assets import (
    DEMAND_TABLE,
    ENTRIES,
    REPLICATION_DLQ,
    REPLICATION_QUEUE,
)
from regworkers_dagster.replication.checks import answering
from regworkers_dagster.replication.jobs import ENQUEUE_ENTRIES, SAVE_ENTRIES

_ENQUEUE = Startable(ENQUEUE, ENQUEUE_ENTRIES.name)
_SAVE = Startable(SAVE, SAVE_ENTRIES.name)
_OBSERVE_INTERVAL_SECONDS = 30
_UNREAD = "oldest_unread_seconds"


@ticking
def enqueue_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Peek into the stream only while no drain reads it: a shard supports two readers."""
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
    ahead = Decision(int(not _SAVE.active(context, runtime)), "none is active")
    if _SAVE.obstacle(context, runtime, ahead) is None:
        requests += _SAVE.requests(runtime, ahead.start)
    return dg.SensorResult(run_requests=requests)


save_tick = depth_tick(
    _SAVE,
    lambda names: names.replication_queue,
    per_drain=lambda settings: settings.drain.messages_per_drain,
    max_drains=lambda settings: settings.drain.max_save_drains,
)


@ticking
def observe_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Write what changed enough since it was last written."""
    # Probed first: an open breaker then spares the readings the wait for an unavailable dependency.
    found = answering(runtime)
    readings = read_all(runtime)
    put_iterator_age(runtime, readings)
    return observed(context.cursor, readings, found)


def read_all(runtime: Runtime) -> list[Reading]:
    """Read every asset of replication. Raises nothing for what does not answer."""
    names = runtime.names
    return [
        Reading.of(DEMAND_TABLE, {_UNREAD: or_none(lambda: _lag(runtime))}),
        Reading.of(REPLICATION_QUEUE, depth_of(runtime, names.replication_queue)),
        Reading.of(REPLICATION_DLQ, depth_of(runtime, names.dead_letter_queue(names.replication_queue))),
        Reading.of(ENTRIES, {"documents": or_none(runtime.replica.count)}),
    ]


def put_iterator_age(runtime: Runtime, readings: Iterable[Reading]) -> None:
    """Write the age as a metric, with every tick: AWS measures it only for its own functions."""
    if not runtime.settings.observability.cloudwatch_enabled:
        return
    name = DEMAND_TABLE.key.to_user_string()
    for reading in readings:
        if reading.asset == name:
            age = reading.numbers.get(_UNREAD)
            table = {"Table": runtime.names.demand_table}
            runtime.metrics.gauges(table, {ITERATOR_AGE: (age, "Seconds")})


def _lag(runtime: Runtime) -> float | None:
    lag = stream_lag(runtime.streams, runtime.leases, now=runtime.clock())
    return None if lag is None else round(lag, 1)


SENSORS = (
    sensor(
        "enqueue_entries_sensor",
        enqueue_tick,
        jobs=[ENQUEUE_ENTRIES, SAVE_ENTRIES],
        every_seconds=DRAIN_INTERVAL_SECONDS,
        description="Starts a drain of the demand table's stream when records are unread and no drain reads them, and "
        "the next one shortly before the last one ends. On an idle system it starts the save drain, too, which is "
        "ready when the first message arrives.",
    ),
    sensor(
        "save_entries_sensor",
        save_tick,
        jobs=[SAVE_ENTRIES],
        every_seconds=DRAIN_INTERVAL_SECONDS,
        description="Starts drains of the replication queue: none when it is empty, one for a trickle, more with its "
        "depth, and the next one shortly before the last one ends.",
    ),
    sensor(
        "observe_replication",
        observe_tick,
        every_seconds=_OBSERVE_INTERVAL_SECONDS,
        description="Records depth, lag and size of all that replication flows through when they changed, and judges "
        "`replication_dlq_empty` and `dependencies_answer`.",
    ),
)
