"""Peeking into the stream from outside, for a sensor and for observations: bounded calls, nothing changed.

What is looked at are the rows that the lister keeps for each shard, several at once. What there was no time for is
never taken for read.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from regworkers_core.adapters.aws.known_stream import known_stream
from regworkers_core.adapters.aws.streams import IteratorExpired, StreamRecord, Streams, Trimmed
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.snapshot import StreamState
from regworkers_core.engine.leases import LeaseRow, LeaseTable
from regworkers_core.replication.enqueue import shards

# So that a tick ends well within 10 s, however slowly each shard answers.
LOOK_SECONDS = 5.0
# 400 shards of six calls in two seconds, and half of the connections that a client keeps.
_THREADS = 16
# An open shard may answer with an empty page although records follow.
_PAGES = 5

# In another order at each look: where one has no time for all, the next begins elsewhere.
Shuffle = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True, slots=True)
class KnownShards:
    """The rows of the stream's shards. `more`: not all of them are known."""

    arn: str
    rows: dict[str, LeaseRow]
    more: bool


@dataclass(frozen=True, slots=True)
class Look:
    """`looked` of the `workable` shards were looked at, of the `known` ones. `unread`: something is there that no
    checkpoint covers; `oldest_at`, in epoch seconds, is when the oldest such record came, None when that is not known.
    `failure` is why one of the others could not be read.
    """

    known: int
    workable: int
    looked: int
    unread: bool
    oldest_at: float | None
    failure: Exception | None = None

    @property
    def whole(self) -> bool:
        return self.looked == self.workable


def has_unread(streams: Streams, leases: LeaseTable, *, within_seconds: float = LOOK_SECONDS) -> bool:
    """Whether any shard has something after its checkpoint.

    Raises TransientFailure when that cannot be read, also when some shard could not be looked at, or not in time, and
    the others have nothing; UsageError without table or stream.
    """
    look = look_at(streams, leases, within_seconds=within_seconds, first=True)
    if not look.unread and not look.whole:
        raise _not_whole(look)
    return look.unread


def oldest_unread(
    streams: Streams, leases: LeaseTable, *, now: float, within_seconds: float = LOOK_SECONDS
) -> float | None:
    """Age in seconds of the oldest unread record that could be read, 0.0 where it is not known, None when nothing is
    unread. Raises as `has_unread`.
    """
    look = look_at(streams, leases, within_seconds=within_seconds)
    if not look.unread:
        if not look.whole:
            raise _not_whole(look)
        return None
    return 0.0 if look.oldest_at is None else max(0.0, now - look.oldest_at)


def stream_lag(
    streams: Streams, leases: LeaseTable, *, now: float, within_seconds: float = LOOK_SECONDS
) -> float | None:
    """Age in seconds of the oldest unread record (the service rounds to the second), 0.0 when there is none, None when
    it could not be read. `now` is in epoch seconds.
    """
    try:
        return _lag(look_at(streams, leases, within_seconds=within_seconds), now)
    except TransientFailure:
        return None


def stream_state(
    streams: Streams, leases: LeaseTable, *, now: float, within_seconds: float = LOOK_SECONDS
) -> StreamState:
    """The stream at one look, its age as `stream_lag` has it. Raises TransientFailure when that cannot be read,
    UsageError without table or stream.
    """
    look = look_at(streams, leases, within_seconds=within_seconds)
    return StreamState(look.known, _lag(look, now))


def _lag(look: Look, now: float) -> float | None:
    if look.failure is not None:
        raise look.failure
    if look.unread:
        return None if look.oldest_at is None else max(0.0, now - look.oldest_at)
    return 0.0 if look.whole else None


def _not_whole(look: Look) -> Exception:
    if look.failure is not None:
        return look.failure
    found = f"only {look.looked} of {look.workable} shards could be looked at in time, and these have nothing unread"
    return TransientFailure("streams", found)


def known_shards(streams: Streams, leases: LeaseTable) -> KnownShards:
    """From the rows that the lister keeps; before there are any, from one page of the listing. Raises
    TransientFailure, UsageError without table or stream.
    """
    known = known_stream(leases, streams.table_name)
    if known is not None:
        rows, _ = shards.split_rows(leases.rows(shards.partition(streams.table_name)))
        return KnownShards(known.arn, shards.of_stream(known.arn, rows), not known.complete)
    arn = streams.latest_stream()
    try:
        page = streams.listing(arn)
    except Trimmed:
        return KnownShards(arn, {}, more=False)
    found = {
        shard.shard_id: LeaseRow(
            shards.shard_key(streams.table_name, shard.shard_id),
            scope=arn,
            state=shards.state_of_new(shard.parent_id, ""),
        )
        for shard in page.shards
    }
    return KnownShards(arn, found, page.last is not None)


def look_at(
    streams: Streams,
    leases: LeaseTable,
    *,
    within_seconds: float = LOOK_SECONDS,
    first: bool = False,
    shuffle: Shuffle = lambda names: random.sample(names, len(names)),
) -> Look:
    """Look at the shards that may be read, for so long at most; `first`: until one has something unread. One that
    cannot be read hides nothing of the others.

    Raises TransientFailure when the rows cannot be read, UsageError without table or stream.
    """
    deadline = time.monotonic() + within_seconds
    known = known_shards(streams, leases)
    workable = shards.workable(known.arn, known.rows)
    if known.more or shards.childless(known.arn, known.rows):
        # What follows is not listed yet: a drain lists it, and only then is its age known.
        return Look(len(known.rows), len(workable), 0, True, None)
    peek = _Peek(streams, known, deadline, first)
    if workable:
        peek.over(shuffle(workable))
    oldest_at = None if peek.dateless else peek.oldest_at
    return Look(len(known.rows), len(workable), peek.looked, peek.unread, oldest_at, peek.failure)


class _Peek:
    """Several threads that peek into one shard after the other."""

    def __init__(self, streams: Streams, known: KnownShards, deadline: float, first: bool) -> None:
        self._streams, self._known, self._deadline, self._first = streams, known, deadline, first
        self._lock = threading.Lock()
        self.failure: Exception | None = None
        self.looked = 0
        self.unread = self.dateless = False
        self.oldest_at: float | None = None

    def over(self, names: Sequence[str]) -> None:
        pool = ThreadPoolExecutor(min(_THREADS, len(names)), thread_name_prefix="peek")
        try:
            # One that does not answer is not waited for.
            wait([pool.submit(self._at, name) for name in names], max(0.0, self._deadline - time.monotonic()))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _at(self, name: str) -> None:
        with self._lock:
            # What is no shard's trouble meets the others, too.
            hopeless = self.failure is not None and not isinstance(self.failure, TransientFailure)
            if hopeless or (self._first and self.unread):
                return
        if time.monotonic() >= self._deadline:
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
            self.looked += 1
            if found:
                self._note(None if oldest is None else oldest.created_at)

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self.failure = self.failure or error

    def _note(self, created_at: float | None) -> None:
        self.unread = True
        if created_at is None:
            self.dateless = True
        elif self.oldest_at is None or created_at < self.oldest_at:
            self.oldest_at = created_at

    def _first_unread(self, name: str) -> tuple[bool, StreamRecord | None]:
        """Whether something is unread, and the oldest record of it where there is one."""
        checkpoint = shards.checkpoint_of(self._known.rows[name].state)
        iterator = self._streams.iterator(self._known.arn, name, checkpoint)
        for _ in range(_PAGES):
            page = self._streams.read(name, iterator, 1)
            if page.records:
                return True, page.records[0]
            if page.next_iterator is None:
                # Read to its end, but not marked so: its children wait for that.
                return True, None
            iterator = page.next_iterator
        return False, None
