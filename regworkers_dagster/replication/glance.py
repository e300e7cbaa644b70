"""What the sensors read: bounded calls that change nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from regworkers_core.adapters.aws.streams import Shard, StreamPage, Streams
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.replication.enqueue.peek import has_unread, stream_lag
from regworkers_core.runtime import Runtime

# A tick ends well within 10 s, however slowly each shard answers.
LOOK_SECONDS = 5.0
MAX_SHARDS = 20


@dataclass(frozen=True, slots=True)
class BoundedStreams:
    """A stream whose calls fail once `clock` reads `deadline`."""

    streams: Streams
    deadline: float
    clock: Callable[[], float] = time.monotonic

    @property
    def table_name(self) -> str:
        return self.streams.table_name

    def latest_stream(self) -> str:
        return self._in_time().latest_stream()

    def shards(self, stream_arn: str) -> list[Shard]:
        return self._in_time().shards(stream_arn)

    def iterator(self, stream_arn: str, shard_id: str, after: str | None) -> str:
        return self._in_time().iterator(stream_arn, shard_id, after)

    def read(self, shard_id: str, iterator: str, limit: int) -> StreamPage:
        return self._in_time().read(shard_id, iterator, limit)

    def _in_time(self) -> Streams:
        if self.clock() >= self.deadline:
            raise TransientFailure("streams", "too slow to look at in one tick")
        return self.streams


def oldest_unread(runtime: Runtime) -> float | None:
    """Age in seconds of the oldest unread stream record, None when nothing is unread.

    Raises TransientFailure when that cannot be read, UsageError without a table or its stream.
    """
    streams = bounded(runtime.streams)
    if not has_unread(streams, runtime.leases, max_shards=MAX_SHARDS):
        return None
    # The age only adds drains to the first one, so not knowing it counts as fresh.
    return stream_lag(streams, runtime.leases, now=runtime.clock(), max_shards=MAX_SHARDS) or 0.0


def bounded(streams: Streams) -> BoundedStreams:
    """For one tick."""
    return BoundedStreams(streams, time.monotonic() + LOOK_SECONDS)
