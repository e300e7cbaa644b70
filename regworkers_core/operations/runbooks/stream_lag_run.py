"""Stream lag: what bounds replication now."""

from __future__ import annotations

from regworkers_core.domain.snapshot import QueueState
from regworkers_core.operations.runbooks import stream_lag
from regworkers_core.operations.runbooks.runbook_report import RunbookReport
from regworkers_core.operations.runbooks.unread import reading, worked_lately
from regworkers_core.replication.enqueue.holding import shard_counts
from regworkers_core.replication.enqueue.peek import stream_lag as oldest_unread
from regworkers_core.runtime import Runtime

# As `provision` sets it.
_RETENTION_SECONDS = 4 * 24 * 3600.0


def read_stream_lag(runtime: Runtime, *, minutes: float = 15.0) -> RunbookReport:
    """What bounds replication now; `minutes` is how far it looks back in `drain_log`. Changes nothing."""
    look = stream_lag.Look(
        oldest_unread(runtime.streams, runtime.leases, now=runtime.clock()),
        reading(lambda: _shards(runtime)),
        reading(lambda: _queue(runtime)),
        reading(lambda: worked_lately(runtime, minutes)),
        minutes,
    )
    return stream_lag.judged(look, runtime.settings)


def _shards(runtime: Runtime) -> stream_lag.Shards:
    counts = shard_counts(runtime.streams, runtime.leases)
    return stream_lag.Shards(counts.known, counts.workable, counts.held)


def _queue(runtime: Runtime) -> QueueState:
    name = runtime.names.replication_queue
    depth = runtime.queue(name).depth()
    return QueueState(name, depth.visible, depth.in_flight, depth.delayed, False, _RETENTION_SECONDS)
