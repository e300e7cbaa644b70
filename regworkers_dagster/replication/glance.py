"""What the sensors read: bounded calls that change nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dagster as dg

from regworkers_core.adapters.streams import Shard, StreamPage, Streams
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.replication.drains import DrainName
from regworkers_core.replication.enqueue.peek import has_unread, stream_lag
from regworkers_core.runtime import Runtime
from regworkers_core.settings import DrainSettings
from regworkers_dagster.replication.decisions import ActiveDrain
from regworkers_dagster.tags import DRAIN_TAG

# A tick ends well within 10 s, however slowly each shard answers.
LOOK_SECONDS = 5.0
MAX_SHARDS = 20
_RECENT_RUNS = 10
_ACTIVE = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)
_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


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


def active_drains(
    instance: dg.DagsterInstance, drain: DrainName, settings: DrainSettings, now: float
) -> list[ActiveDrain]:
    """The runs of a drain, whoever asked for them, that have not ended; `now` in epoch seconds."""
    filters = dg.RunsFilter(tags={DRAIN_TAG: drain}, statuses=list(_ACTIVE))
    return [_active(record, drain, settings, now) for record in instance.get_run_records(filters)]


def crashes_in_a_row(instance: dg.DagsterInstance, drain: DrainName, now: float) -> tuple[int, float]:
    """How many of the latest runs failed one after the other, and seconds since the last of them ended."""
    filters = dg.RunsFilter(tags={DRAIN_TAG: drain}, statuses=list(_ENDED))
    records = instance.get_run_records(filters, limit=_RECENT_RUNS)
    failed = 0
    for record in records:
        if record.dagster_run.status is not dg.DagsterRunStatus.FAILURE:
            break
        failed += 1
    if not failed:
        return 0, 0.0
    ended = max(record.end_time or record.update_timestamp.timestamp() for record in records[:failed])
    return failed, now - ended


def bounded(streams: Streams) -> BoundedStreams:
    """For one tick."""
    return BoundedStreams(streams, time.monotonic() + LOOK_SECONDS)


def _active(record: dg.RunRecord, drain: DrainName, settings: DrainSettings, now: float) -> ActiveDrain:
    config: Any = record.dagster_run.run_config
    for part in ("ops", drain, "config"):
        config = config.get(part, {}) if isinstance(config, dict) else {}

    def limit(name: str, default: float) -> float:
        value = config.get(name) if isinstance(config, dict) else None
        return default if value is None else float(value)

    return ActiveDrain(
        seconds_running=None if record.start_time is None else now - record.start_time,
        idle_seconds=limit("idle_seconds", settings.idle_seconds),
        max_seconds=limit("max_seconds", settings.max_seconds),
    )
