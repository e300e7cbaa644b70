"""The whole system: the one place below the terminal and Dagster that knows every flow."""

from __future__ import annotations

from typing import Any

from regworkers_core.analytics import drains as analytics
from regworkers_core.domain.snapshot import Snapshot, StreamState
from regworkers_core.drains.runner import DrainSpec
from regworkers_core.operations.health.snapshot import READ_SECONDS, ReadScheduler, read_snapshot
from regworkers_core.replication import drains as replication
from regworkers_core.replication.enqueue.peek import stream_state
from regworkers_core.runtime import Runtime
from regworkers_core.selection import drains as selection

DRAINS: tuple[DrainSpec[Any], ...] = (*replication.DRAINS, *selection.DRAINS, *analytics.DRAINS)


def read_system(
    runtime: Runtime, scheduler: ReadScheduler, *, within_seconds: float = READ_SECONDS
) -> Snapshot:
    """One look, which takes so many seconds at most, and one more where a login is slow. `runtime` should be an
    impatient one (`operations.status.impatient`), `scheduler` reads what is known of Dagster.

    Raises UsageError only when there is nobody to ask: no stack, no addresses.
    """
    return read_snapshot(
        runtime, stream=_stream, drains=DRAINS, scheduler=scheduler, within_seconds=within_seconds
    )


def _stream(runtime: Runtime) -> StreamState:
    return stream_state(runtime.streams, runtime.leases, now=runtime.clock())
