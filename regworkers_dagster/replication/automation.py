"""The drains of replication and the nightly reconcile, and the sensors that start drains and observe queues, stream and
replica.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import dagster as dg

from regworkers_core.adapters.aws.streams import known_stream
from regworkers_core.drains.runner import DrainSpec, number_of
from regworkers_core.observability.metrics import ITERATOR_AGE, Metering
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_core.replication.enqueue.stream_probe import oldest_unread, stream_lag
from regworkers_core.replication.operations import reconcile
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.decisions import Decision, by_age
from regworkers_dagster.drains.observing import (
    DOCUMENTS,
    Reading,
    depth_of,
    minutes_outside,
    observed,
    or_none,
    pause_state,
    unless_known,
)
from regworkers_dagster.drains.running import automated
from regworkers_dagster.drains.sensing import Answer, Startable, depth_tick, ticking
from regworkers_dagster.factories import schedule, sensor
from regworkers_dagster.launching import job_of_check
from regworkers_dagster.replication.assets import (
    DEMAND_TABLE,
    ENTRIES,
    REPLICATION_DLQ,
    REPLICATION_QUEUE,
)
from regworkers_dagster.replication.checks import (
    answering,
    is_in_time,
    lag_evaluation,
    parity,
)

RECONCILE_ENTRIES = job_of_check(reconcile, parity)
SCHEDULES = (
    schedule(
        "reconcile_nightly",
        RECONCILE_ENTRIES,
        "10 2 * * *",
        "Compares every segment of both sides once a night, within the budget of read units, and repairs nothing. It "
        "goes on where a night before had not come to.",
        reconcile.request(cycle=True),
    ),
)
_ENQUEUE, _SAVE = Startable(ENQUEUE), Startable(SAVE)
_OBSERVE_INTERVAL_SECONDS = 30
_UNREAD = "oldest_unread_seconds"


@ticking
def enqueue_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Starts a drain of the demand table's stream when records are unread and no drain reads them, and the next one
    shortly before the last one ends. On an idle system it starts the save drain, too, which is ready when the first
    message arrives.
    """
    staff = _ENQUEUE.staff(context, runtime)
    decision = by_age(
        # It peeks into the stream only while no drain reads it: a shard supports two readers.
        None if staff.active else oldest_unread(runtime.streams, runtime.leases, now=runtime.clock()),
        staff,
        objective_seconds=runtime.settings.replication.lag_objective_seconds,
        max_drains=number_of(runtime.settings, ENQUEUE.most_drains),
    )
    obstacle = _ENQUEUE.obstacle(context, runtime, decision)
    if obstacle is not None:
        return dg.SkipReason(obstacle)
    requests = _ENQUEUE.requests(runtime, decision)
    # Where residents are wanted, the sensor of the queue starts both of its own.
    alone = not staff.residents and not _SAVE.staff(context, runtime).active
    ahead = Decision(int(alone), "none is active")
    if _SAVE.obstacle(context, runtime, ahead) is None:
        requests += _SAVE.requests(runtime, ahead)
    return dg.SensorResult(run_requests=requests)


save_tick = depth_tick(SAVE)
_SAVE_ENTRIES = automated(SAVE, ENTRIES, tick=save_tick)
DRAINS = (
    automated(ENQUEUE, REPLICATION_QUEUE, tick=enqueue_tick, also=[_SAVE_ENTRIES]),
    _SAVE_ENTRIES,
)


@ticking
def observe_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Write what changed enough since it was last written."""
    # Probed first: an open breaker then spares the readings the wait for an unavailable dependency.
    found = answering(runtime)
    lags = or_none(lambda: lag_evaluation(runtime))
    readings = read_all(runtime, lags)
    put_iterator_age(runtime, readings)
    drains: dict[dg.AssetKey, DrainSpec[Any]] = {REPLICATION_QUEUE.key: ENQUEUE, ENTRIES.key: SAVE}
    on_minutes = partial(minutes_outside, context.instance, runtime, drains)
    news = partial(unless_known, context.instance)
    answer = observed(runtime.settings, context.cursor, readings, found, news=news, on_minutes=on_minutes)
    return dg.SensorResult(
        asset_events=[*answer.asset_events, *(unless_known(context.instance, lags) if lags else ())],
        cursor=answer.cursor,
        skip_reason=answer.skip_reason,
    )


def read_all(runtime: Runtime, lags: dg.AssetCheckEvaluation | None) -> list[Reading]:
    """Read every asset of replication. Raises nothing for what does not answer. `lags` is the check of the lag."""
    names = runtime.names
    unread, queue = or_none(lambda: _lag(runtime)), depth_of(runtime, names.replication_queue)
    behind = unread is None or unread > runtime.settings.replication.lag_objective_seconds
    return [
        Reading.of(DEMAND_TABLE, {_UNREAD: unread, **pause_state(runtime, ENQUEUE.name)}),
        Reading.of(REPLICATION_QUEUE, {**queue, **pause_state(runtime, SAVE.name)}),
        Reading.of(REPLICATION_DLQ, depth_of(runtime, names.dead_letter_queue(names.replication_queue))),
        Reading.of(
            ENTRIES,
            {DOCUMENTS: or_none(runtime.replica.count)},
            current=not behind and (set(queue.values()) == {0.0} or is_in_time(lags)),
        ),
    ]


def put_iterator_age(runtime: Runtime, readings: Iterable[Reading]) -> None:
    """Write the age as a metric, with every tick: AWS measures it only for its own functions. Once for the table, which
    alarms name, and once for the stream, as the operations manual names it.
    """
    name = DEMAND_TABLE.key.to_user_string()
    age = next((reading.numbers.get(_UNREAD) for reading in readings if reading.asset == name), None)
    if age is None:
        return
    stream = or_none(lambda: known_stream(runtime.leases, runtime.names.demand_table))
    places = [{"TableName": runtime.names.demand_table}]
    places += [{"StreamLabel": stream.arn.rpartition("/")[2]}] if stream else []
    runtime.metrics.put([Metering(ITERATOR_AGE, age * 1000, place) for place in places])


def _lag(runtime: Runtime) -> float | None:
    lag = stream_lag(runtime.streams, runtime.leases, now=runtime.clock())
    return None if lag is None else round(lag, 1)


SENSORS = (
    sensor(
        "observe_replication",
        observe_tick,
        every_seconds=_OBSERVE_INTERVAL_SECONDS,
        description="Records depth, lag and size of all that replication flows through when they changed, and the "
        "minutes of drains that are no runs; updates the checks `replication_dlq_empty` and `dependencies_answer`.",
    ),
)
