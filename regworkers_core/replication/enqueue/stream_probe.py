"""Bounded reads of the stream from outside, for sensors and health checks: what is unread, and who holds the shards.

They work from the rows that the lister keeps for each shard, several at once, and change nothing. A shard for which the
time was too short is never taken for read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairdraw import scheduling
from regworkers_core.adapters.aws.streams import IteratorExpired, StreamRecord, Streams, Trimmed, known_stream
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.snapshot import StreamState
from regworkers_core.engine.leases import LeaseRow, LeaseTable
from regworkers_core.replication.enqueue import shard_rows

# A sensor's tick ends well within 10 s, however slowly each shard answers.
PROBE_SECONDS = 5.0
# 400 shards of six calls in two seconds, with half of the connections that a client keeps.
_THREADS = 16
# An open shard may answer with an empty page although records follow.
_PAGES = 5

# Each probe takes another order: if the time is too short for all shards, the next probe begins with others.


@dataclass(frozen=True, slots=True)
class KnownShards:
    """The rows of the stream's shards. `more`: not all of them are known."""

    arn: str
    rows: dict[str, LeaseRow]
    more: bool


@dataclass(frozen=True, slots=True)
class StreamProbe:
    """What was read of the stream's shards."""

    known: int  # shards
    workable: int  # those of them that may be read now
    read: int  # those of these that were
    unread: bool  # whether a record exists that no checkpoint covers
    oldest_at: float | None  # epoch seconds at which the oldest such record came, None: unknown
    failure: Exception | None = None  # why one of the other shards could not be read

    @property
    def whole(self) -> bool:
        return self.read == self.workable


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """How many drains can read at once."""

    known: int  # shards
    workable: int  # those of them that may be read now
    held: int  # those of these that have an owner
    consumers: int  # owners


def has_unread(streams: Streams, leases: LeaseTable, *, within_seconds: float = PROBE_SECONDS) -> bool:
    """Whether any shard has a record after its checkpoint. Blocks for about `within_seconds` at most.

    Raises TransientFailure when that cannot be read, also when a shard could not be read in time and the others have
    nothing; UsageError without table or stream.
    """
    probe = probe_stream(streams, leases, within_seconds=within_seconds, first=True)
    if not probe.unread and not probe.whole:
        raise _not_whole(probe)
    return probe.unread


def oldest_unread(
    streams: Streams, leases: LeaseTable, *, now: float, within_seconds: float = PROBE_SECONDS
) -> float | None:
    """Age in seconds of the oldest unread record that could be read, 0.0 if the age is unknown, None when nothing is
    unread. Raises as `has_unread`.
    """
    probe = probe_stream(streams, leases, within_seconds=within_seconds)
    if not probe.unread:
        if not probe.whole:
            raise _not_whole(probe)
        return None
    return 0.0 if probe.oldest_at is None else max(0.0, now - probe.oldest_at)


def stream_lag(
    streams: Streams, leases: LeaseTable, *, now: float, within_seconds: float = PROBE_SECONDS
) -> float | None:
    """Age in seconds of the oldest unread record (the service rounds to the second), 0.0 when there is none, None when
    it could not be read. `now` is in epoch seconds.
    """
    try:
        return _lag(probe_stream(streams, leases, within_seconds=within_seconds), now)
    except TransientFailure:
        return None


def stream_state(
    streams: Streams, leases: LeaseTable, *, now: float, within_seconds: float = PROBE_SECONDS
) -> StreamState:
    """The number of shards, and the age as in `stream_lag`. Raises TransientFailure when that cannot be read,
    UsageError without table or stream.
    """
    probe = probe_stream(streams, leases, within_seconds=within_seconds)
    return StreamState(probe.known, _lag(probe, now), unread=probe.unread)


def shard_counts(streams: Streams, leases: LeaseTable) -> ShardCounts:
    """Raises TransientFailure, UsageError without table or stream."""
    known = known_shards(streams, leases)
    workable = shard_rows.workable(known.arn, known.rows)
    owners = [known.rows[name].owner for name in workable if known.rows[name].owner]
    return ShardCounts(len(known.rows), len(workable), len(owners), len(set(owners)))


def _lag(probe: StreamProbe, now: float) -> float | None:
    if probe.failure is not None:
        raise probe.failure
    if probe.unread:
        return None if probe.oldest_at is None else max(0.0, now - probe.oldest_at)
    return 0.0 if probe.whole else None


def _not_whole(probe: StreamProbe) -> Exception:
    if probe.failure is not None:
        return probe.failure
    found = (
        f"only {probe.read} of {probe.workable} shards could be read in time, and these have nothing unread"
    )
    return TransientFailure("streams", found)


def known_shards(streams: Streams, leases: LeaseTable) -> KnownShards:
    """From the rows that the lister keeps; before there are any, from one page of the listing. Raises
    TransientFailure, UsageError without table or stream.
    """
    known = known_stream(leases, streams.table_name)
    if known is not None:
        rows, _ = shard_rows.split_rows(leases.rows(shard_rows.partition(streams.table_name)))
        return KnownShards(known.arn, shard_rows.of_stream(known.arn, rows), not known.complete)
    arn = streams.latest_stream()
    try:
        page = streams.listing(arn)
    except Trimmed:
        return KnownShards(arn, {}, more=False)
    found = {
        shard.shard_id: LeaseRow(
            shard_rows.shard_key(streams.table_name, shard.shard_id),
            scope=arn,
            state=shard_rows.state_of_new(shard.parent_id, ""),
        )
        for shard in page.shards
    }
    return KnownShards(arn, found, page.last is not None)


def probe_stream(
    streams: Streams,
    leases: LeaseTable,
    *,
    within_seconds: float = PROBE_SECONDS,
    first: bool = False,
) -> StreamProbe:
    """Read the first unread record of each workable shard, for `within_seconds` at most; `first`: until one has any.
    A shard that cannot be read does not hide the others.

    Raises TransientFailure when the rows cannot be read, UsageError without table or stream.
    """
    deadline = scheduling.monotonic() + within_seconds
    known = known_shards(streams, leases)
    workable = shard_rows.workable(known.arn, known.rows)
    if known.more or shard_rows.childless(known.arn, known.rows):
        # Some shards are not listed yet. A drain lists them, and only then is the age of their records known.
        return StreamProbe(len(known.rows), len(workable), 0, True, None)
    reads = _ShardReads(streams, known, deadline, first)
    if workable:
        reads.run(random.sample(workable, len(workable)))
    oldest_at = None if reads.dateless else reads.oldest_at
    return StreamProbe(len(known.rows), len(workable), reads.done, reads.unread, oldest_at, reads.failure)


class _Unread(NamedTuple):
    exists: bool
    oldest: StreamRecord | None  # None: it could not be read


class _ShardReads:
    """Several threads, each reading one shard after the other."""

    def __init__(self, streams: Streams, known: KnownShards, deadline: float, first: bool) -> None:
        self._streams, self._known, self._deadline, self._first = streams, known, deadline, first
        self._lock = scheduling.lock()
        self.failure: Exception | None = None
        self.done = 0
        self.unread = self.dateless = False
        self.oldest_at: float | None = None

    def run(self, names: Sequence[str]) -> None:
        pool = scheduling.pool(min(_THREADS, len(names)), "probe")
        try:
            # Does not wait for a shard that does not answer.
            scheduling.wait(
                [pool.submit(self._read, name) for name in names],
                max(0.0, self._deadline - scheduling.monotonic()),
            )
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, name: str) -> None:
        with self._lock:
            # A failure that is not transient concerns the other shards, too.
            hopeless = self.failure is not None and not isinstance(self.failure, TransientFailure)
            if hopeless or (self._first and self.unread):
                return
        if scheduling.monotonic() >= self._deadline:
            return
        try:
            found, oldest = self._first_unread(name)
        except Trimmed:
            found, oldest = True, None
        except IteratorExpired:
            self._fail(TransientFailure("streams", "the connection broke during a read"))
            return
        except Exception as error:
            self._fail(error)
            return
        with self._lock:
            self.done += 1
            if found:
                self.unread = True
                created_at = None if oldest is None else oldest.created_at
                if created_at is None:
                    self.dateless = True
                elif self.oldest_at is None or created_at < self.oldest_at:
                    self.oldest_at = created_at

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self.failure = self.failure or error

    def _first_unread(self, name: str) -> _Unread:
        checkpoint = shard_rows.checkpoint_of(self._known.rows[name].state)
        iterator = self._streams.iterator(self._known.arn, name, checkpoint)
        for _ in range(_PAGES):
            page = self._streams.read(name, iterator, 1)
            if page.records:
                return _Unread(True, page.records[0])
            if page.next_iterator is None:
                # Read to its end, but not marked as finished, which its children wait for.
                return _Unread(True, None)
            iterator = page.next_iterator
        return _Unread(False, None)
