"""A look at the stream from outside, for a sensor and for observations: bounded calls, nothing changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from regworkers_core.adapters.aws.streams import IteratorExpired, StreamRecord, Streams, Trimmed
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.snapshot import StreamState
from regworkers_core.engine.leases import LeaseTable
from regworkers_core.replication.enqueue import shards

# Chooses so many of the shards; at random, so that over some ticks each of many is looked at.
Choose = Callable[[Sequence[str], int], Sequence[str]]
# An open shard may answer with an empty page although records follow.
_PAGES = 5


@dataclass(frozen=True, slots=True)
class _Unread:
    """`oldest` is None when something is there that was not read: a shard to finish, or trimmed records."""

    oldest: StreamRecord | None


def has_unread(
    streams: Streams, leases: LeaseTable, *, max_shards: int = 20, choose: Choose = random.sample
) -> bool:
    """Whether any shard has something after its checkpoint; looks at `max_shards` shards at most.

    Raises TransientFailure when that cannot be read, UsageError without table or stream.
    """
    return any(unread is not None for unread in _look(streams, leases, max_shards, choose))


def stream_lag(
    streams: Streams,
    leases: LeaseTable,
    *,
    now: float,
    max_shards: int = 20,
    choose: Choose = random.sample,
) -> float | None:
    """Age in seconds of the oldest unread record in the shards looked at (the service rounds to the second),
    0.0 when there is none, None when it could not be read. `now` is in epoch seconds.
    """
    oldest = now
    try:
        for unread in _look(streams, leases, max_shards, choose):
            if unread is None:
                continue
            if unread.oldest is None or unread.oldest.created_at is None:
                return None
            oldest = min(oldest, unread.oldest.created_at)
    except TransientFailure:
        return None
    return now - oldest


def stream_state(
    streams: Streams,
    leases: LeaseTable,
    *,
    now: float,
    max_shards: int = 20,
    choose: Choose = random.sample,
) -> StreamState:
    """The stream at one look, its age as `stream_lag` has it. Raises TransientFailure when that cannot be read,
    UsageError without table or stream.
    """
    try:
        listed = len(streams.shards(streams.latest_stream()))
    except Trimmed:
        listed = 0
    lag = stream_lag(streams, leases, now=now, max_shards=max_shards, choose=choose)
    return StreamState(listed, None if lag is None else max(0.0, lag))


def _look(streams: Streams, leases: LeaseTable, max_shards: int, choose: Choose) -> Iterator[_Unread | None]:
    arn = streams.latest_stream()
    rows, _ = shards.split_rows(leases.rows(shards.partition(streams.table_name)))
    try:
        listing = streams.shards(arn)
    except Trimmed:
        return
    workable = shards.workable(arn, listing, rows)
    for shard_id in choose(workable, min(max_shards, len(workable))):
        row = rows.get(shard_id)
        checkpoint = shards.checkpoint_of(row.state) if row is not None and row.scope == arn else None
        try:
            yield _first_unread(streams, arn, shard_id, checkpoint)
        except Trimmed:
            yield _Unread(None)
        except IteratorExpired as error:
            raise TransientFailure("dynamodb-streams", "the connection broke during a read") from error


def _first_unread(streams: Streams, arn: str, shard_id: str, checkpoint: str | None) -> _Unread | None:
    iterator = streams.iterator(arn, shard_id, checkpoint)
    for _ in range(_PAGES):
        page = streams.read(shard_id, iterator, 1)
        if page.records:
            return _Unread(page.records[0])
        if page.next_iterator is None:
            # Read to its end, but not marked so: its children wait for that.
            return _Unread(None)
        iterator = page.next_iterator
    return None
