"""What is observed of replication, in the order of the flow."""

from __future__ import annotations

from collections.abc import Iterable

from regworkers_core.infrastructure.dashboards.alarms import ITERATOR_AGE
from regworkers_core.replication.enqueue.stream_probe import stream_lag
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.observing import Reading, depth_of, or_none
from regworkers_dagster.replication.specs import (
    DEMAND_TABLE,
    ENTRIES,
    REPLICATION_DLQ,
    REPLICATION_QUEUE,
)

_UNREAD = "oldest_unread_seconds"


def read_all(runtime: Runtime) -> list[Reading]:
    """Every asset of replication. Never raises for what is away."""
    names = runtime.names
    return [
        Reading.of(DEMAND_TABLE, {_UNREAD: or_none(lambda: _lag(runtime))}),
        Reading.of(REPLICATION_QUEUE, depth_of(runtime, names.replication_queue)),
        Reading.of(REPLICATION_DLQ, depth_of(runtime, names.dead_letter_queue(names.replication_queue))),
        Reading.of(ENTRIES, {"documents": or_none(runtime.replica.count)}),
    ]


def put_iterator_age(runtime: Runtime, readings: Iterable[Reading]) -> None:
    """As a metric, at every look: AWS measures it only for its own functions."""
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
