"""The demand table's stream as the source of a drain: shards are read under leases, checkpoints have no gaps."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import KW_ONLY, dataclass, field
from functools import partial

import structlog

from fairdraw import scheduling
from regworkers_core.adapters.aws.streams import (
    MAX_RECORDS,
    IteratorExpired,
    StreamPage,
    StreamRecord,
    Streams,
    Trimmed,
)
from regworkers_core.domain.reasons import DependencyDown, TransientFailure, UsageError
from regworkers_core.engine.deadline import Background
from regworkers_core.engine.leases import LeaseTable
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.replication.enqueue.discovery import ShardDiscovery
from regworkers_core.replication.enqueue.held_shards import HeldShard, ShardLeases
from regworkers_core.replication.enqueue.shard_rows import shard_of, state_of
from regworkers_core.settings import EnqueueSettings, StreamSettings

log = structlog.get_logger(__name__)

# A receive hands out what it has after this time, so that a record does not wait for a shard that answers slowly.
_ROUND_SECONDS = 0.1
# And where more shards are due than are read at once, so that readers do not wait for the slowest of them.
_BUSY_ROUND_SECONDS = 0.02
_LATE_READ_SECONDS = 0.05
# A shard without a record for this long is read less often. All shards together are read so often while they are idle,
# up to one read a second and shard; and above that pace, so often at most.
QUIET_SECONDS = 10.0
_IDLE_READS_PER_SECOND = 100.0
MOST_IDLE_READS_PER_SECOND = 400.0
_LONGEST_THROTTLE_SECONDS = 4.0
_SHORTEST_REST_SECONDS = 0.01
# The end does not wait longer for a listing that does not answer: its lease expires.
_LAST_STEP_SECONDS = 2.0


CHECKPOINT_SECONDS = 1.0
# All shards together write that many: with many, each is written less often.
CHECKPOINTS_PER_SECOND = 40.0
# After an unnoticed restart of the service an old iterator returns nothing for ever. Iterators live 15 minutes.
RESEEK_SECONDS = 180.0


def idle_pause(pace: StreamSettings, shards: int) -> float:
    """Seconds between two reads of an idle shard, of `shards` in all."""
    return max(
        1 / pace.reads_per_second,
        min(pace.idle_read_seconds, shards / _IDLE_READS_PER_SECOND),
        shards / MOST_IDLE_READS_PER_SECOND,
    )


@dataclass(eq=False)
class StreamSource:
    """The stream as `engine.drain.Source[StreamRecord]`. Several shards are read at once, each in a thread; none waits
    for another.
    """

    streams: Streams
    table: LeaseTable
    limits: EnqueueSettings
    # How often it reads.
    pace: StreamSettings
    _: KW_ONLY
    # It is unique to this start.
    owner: str
    clock: Callable[[], float] = scheduling.monotonic
    # A bounded wait that a stop signal may cut short.
    sleep: Callable[[float], object] = scheduling.sleep
    # It gets `enqueue.before_checkpoint` before each checkpoint is written.
    on_step: OnStep = no_step
    # Shards are listed there; reading goes on with the known ones however the listing ends.
    background: Background = field(default_factory=lambda: Background("shard-discovery"))

    def __post_init__(self) -> None:
        self._window = max(1, int(self.pace.reads_per_second))
        lease_seconds = self.limits.lease_seconds
        self._discovery = ShardDiscovery(
            self.streams, self.table, owner=self.owner, lease_seconds=lease_seconds, clock=self.clock
        )
        self._leases = ShardLeases(
            self.streams.table_name,
            self.table,
            self._discovery,
            owner=self.owner,
            lease_seconds=lease_seconds,
            clock=self.clock,
        )
        # Guards the fields below; never held during a call to a service.
        self._lock = scheduling.lock()
        self._held: dict[str, HeldShard] = {}
        # Read and not handed out yet; and to be handed out again, each at its time.
        self._ready: deque[StreamRecord] = deque()
        self._again: list[tuple[float, int, StreamRecord]] = []
        self._ticket = itertools.count()
        # Why the last read that ended failed for all shards: the next one, under way, is no sign that it passed.
        self._unread: TransientFailure | None = None
        self._readers: scheduling.Pool | None = None
        self._reading: dict[str, scheduling.Future[list[StreamRecord]]] = {}
        # Grows with each connection error: iterators of an older era are not trusted.
        self._era = 0
        self._all_known = self._others_hold = False
        self._counts: Counter[str] = Counter()

    def receive(self) -> list[StreamRecord]:
        """The next batch, empty after a short rest. Raises TransientFailure or UsageError if no shard has a record and
        the read of one failed, or if no shard is known and the listing failed.
        """
        self._discovery.join()
        self._discover()
        failure: TransientFailure | UsageError | None = None
        for part in (partial(self._settle_all, at_end=True), self._balance_in_time, self._read_round):
            try:
                part()
            except TransientFailure as error:
                self._era += 1
                failure = error
        if batch := self._due():
            return batch
        failing = (held.failure for held in self._holdings() if held.failure is not None)
        failure = failure or next(failing, None) or self._unread or self._discovery.blindness
        if failure is not None:
            raise failure
        if not self._reading:
            self._rest()
        return []

    def acknowledge(self, done: Sequence[StreamRecord]) -> None:
        with self._lock:
            for record in done:
                held = self._holder_of(record)
                if held is not None:
                    held.done(record)
        self._settle_all()

    def give_back(self, again: Sequence[tuple[StreamRecord, float]]) -> None:
        now = self.clock()
        with self._lock:
            for record, delay in again:
                if self._holder_of(record) is not None:
                    heapq.heappush(self._again, (now + delay, next(self._ticket), record))

    def heartbeat(self) -> None:
        try:
            if not self._leases.has_begun:
                # This drain stands by, or has not received anything yet: it only learns who holds what.
                self._leases.observe()
                return
            self._discover()
            if not self._leases.show_life():
                for held in self._holdings():
                    if not held.lease.renew():
                        self._drop(held)
            self._settle_all()
        except TransientFailure:
            self._era += 1
            raise

    def may_idle(self) -> bool:
        """Idle time counts only once this consumer holds a shard or no consumer does, and no record waits in memory."""
        with self._lock:
            # A shard that was read too often may have records.
            if not self._all_known or any(held.open or held.throttled for held in self._held.values()):
                return False
            # So may one whose read does not end.
            late = self.clock() - _LATE_READ_SECONDS
            if any(held.asked_at < late for name, held in self._held.items() if name in self._reading):
                return False
            return bool(self._held) or not self._others_hold

    def let_go(self) -> None:
        failures: list[TransientFailure] = []

        def attempt(part: Callable[[], None]) -> None:
            try:
                part()
            except TransientFailure as failure:
                failures.append(failure)

        if holdings := self._holdings():
            # Its successor takes each shard as soon as it is free. Readers may be busy with a shard that hangs.
            pool = scheduling.pool(min(len(holdings), self.pace.readers), "stream-leave")
            list(pool.map(attempt, [partial(self._settle, held, leave=True) for held in holdings]))
            pool.shutdown(wait=True)
        self.background.wait(_LAST_STEP_SECONDS)
        for part in (self._discovery.leave, self._leases.leave):
            attempt(part)
        if failures:
            raise failures[0]

    def close(self) -> None:
        if self._readers is not None:
            self._readers.shutdown(wait=False, cancel_futures=True)
        self.let_go()

    def counts(self) -> Counter[str]:
        """`trimmed` (how often records may have been lost), `leases_lost`, `iterators_expired`, `shards_finished`,
        `reads_throttled`, `discovery_failures`.
        """
        return self._counts + self._discovery.counts

    # Reading

    def _read_round(self) -> None:
        """Read due shards as long as less than a batch is ready. Raises what a read raised for all shards."""
        more = self._start_reads()
        if not self._reading:
            return
        scheduling.wait(self._reading.values(), _BUSY_ROUND_SECONDS if more else _ROUND_SECONDS)
        failure: TransientFailure | None = None
        for shard_id, reading in list(self._reading.items()):
            if not reading.done():
                continue
            del self._reading[shard_id]
            try:
                fresh = reading.result()
            except TransientFailure as error:
                failure = error
            else:
                self._unread = None
                with self._lock:
                    self._ready.extend(fresh)
        if failure is not None:
            self._unread = failure
            raise failure

    def _start_reads(self) -> bool:
        """Whether more shards are due than can be read at once."""
        if len(self._ready) >= self.limits.batch_records:
            return False
        now, reading = self.clock(), self._reading
        due = [
            held
            for held in self._holdings()
            if held.read_at <= now and held.readable and held.shard_id not in reading
        ]
        # A second one waits for each reader, which is never idle between two rounds.
        free = 2 * self.pace.readers - len(reading)
        # Those that wait longest first: with more shards than readers, none is read often while others wait.
        for held in heapq.nsmallest(free, due, key=lambda held: held.read_at):
            # The lease may have expired during a pause of this process: check before reading on.
            if held.lease.lost and not self._leases.shows_life and not held.lease.renew():
                self._drop(held)
                continue
            limit = min(MAX_RECORDS, self.limits.batch_records, self._room(held))
            if limit > 0:
                held.asked_at = now
                reading[held.shard_id] = self._pool().submit(
                    copy_context().run, self._read_alone, held, limit
                )
        return len(due) > free

    def _pool(self) -> scheduling.Pool:
        if self._readers is None:
            self._readers = scheduling.pool(self.pace.readers, "stream-reader")
        return self._readers

    def _read_alone(self, held: HeldShard, limit: int) -> list[StreamRecord]:
        """Read it in a thread of its own. Raises DependencyDown, which concerns all shards; another failure is that of
        its shard, which is read again later.
        """
        try:
            return self._read(held, limit)
        except DependencyDown:
            raise
        except TransientFailure as failure:
            self._era += 1
            held.failed(failure, self.clock())
            return []

    def _read(self, held: HeldShard, limit: int) -> list[StreamRecord]:
        began = self.clock()
        try:
            iterator = self._iterator(held)
        except Trimmed:
            # If not even the horizon has an iterator, the shard itself is gone.
            self._trimmed(held, gone=held.last_read is None)
            return []
        try:
            page = self.streams.read(held.shard_id, iterator, limit)
        except IteratorExpired:
            held.iterator = None
            self._count("iterators_expired")
            return []
        except Trimmed:
            self._trimmed(held, gone=False)
            return []
        with self._lock:
            fresh = held.take_in(page)
        self._pause(held, page, began, more=len(page.records) == limit or page.full)
        return fresh

    def _pause(self, held: HeldShard, page: StreamPage, began: float, *, more: bool) -> None:
        """Set when the shard is read next. `began` is when the read did, `more`: records follow at once."""
        held.reads.append(began)
        shortest = 1 / self.pace.reads_per_second
        if page.records:
            held.quiet_since = began
        held.throttled = held.throttled + 1 if page.throttled else 0
        if page.throttled:
            self._count("reads_throttled")
            pause = min(_LONGEST_THROTTLE_SECONDS, shortest * 2**held.throttled)
        elif more:
            # The reads that the pace allows follow each other, then the oldest of them has to be over.
            held.read_at = (
                held.reads[0] + self._window * shortest if len(held.reads) == self._window else began
            )
            return
        elif began - held.quiet_since < QUIET_SECONDS:
            pause = shortest
        else:
            pause = idle_pause(self.pace, self._leases.workable)
        held.read_at = began + pause

    def _iterator(self, held: HeldShard) -> str:
        """The shard's iterator; a new one when it cannot be trusted any more. Raises Trimmed."""
        era, now = self._era, self.clock()
        old = now - held.sought_at >= RESEEK_SECONDS
        if held.iterator is None or held.sought_in != era or old:
            held.iterator = self.streams.iterator(held.lease.scope, held.shard_id, held.last_read)
            held.sought_at, held.sought_in = now, era
        return held.iterator

    def _trimmed(self, held: HeldShard, *, gone: bool) -> None:
        with self._lock:
            held.iterator, held.ended, held.gone, held.trimmed = None, gone, gone, not gone
            held.settled = False
        self._count("trimmed")
        log.error(
            "records were trimmed from the stream before they were read: run `regworkers reconcile --repair --apply`",
            shard=held.shard_id,
            table=self.streams.table_name,
        )

    def _due(self) -> list[StreamRecord]:
        """Up to a batch of what is to be handed out again, then of what was read."""
        batch: list[StreamRecord] = []
        now, most = self.clock(), self.limits.batch_records
        with self._lock:
            while len(batch) < most and ((self._again and self._again[0][0] <= now) or self._ready):
                due_again = self._again and self._again[0][0] <= now
                record = heapq.heappop(self._again)[2] if due_again else self._ready.popleft()
                if self._holder_of(record) is not None:
                    batch.append(record)
        return batch

    def _room(self, held: HeldShard) -> int:
        """How many more records of this shard may be unsettled."""
        with self._lock:
            shards = max(1, len(self._held))
            if held.open_bytes * shards >= self.limits.max_unacknowledged_bytes:
                return 0
            return max(1, self.limits.max_unacknowledged // shards) - len(held.tracker)

    def _rest(self) -> None:
        """Wait until something may be due, at most the shortest pause between two reads."""
        longest = 1 / self.pace.reads_per_second
        due = [self._leases.balance_at]
        due.extend(
            held.read_at
            for held in self._holdings()
            if held.readable and (not held.open or self._room(held) > 0)
        )
        with self._lock:
            due.extend(at for at, _, _ in self._again[:1])
        self.sleep(max(_SHORTEST_REST_SECONDS, min(longest, min(due) - self.clock())))

    # Holding

    def _discover(self) -> None:
        if self._discovery.due:
            self.background.start(self._discovery.step)

    def _balance_in_time(self) -> None:
        if self.clock() < self._leases.balance_at:
            return
        try:
            self._balance()
        except TransientFailure:
            self._leases.balance_later()
            raise

    def _balance(self) -> None:
        holdings = {held.shard_id: held for held in self._holdings()}
        view = self._leases.balance(holdings.keys(), in_parallel=self._pool().map)
        for shard_id in view.lost:
            self._drop(holdings[shard_id])
            self._leases.balance_soon()
        with self._lock:
            for lease in view.taken:
                shard_id = shard_of(lease.key)
                self._held[shard_id] = HeldShard.of(shard_id, lease, self.clock(), self._window)
            # Above the share, the youngest are released once their records in flight are done.
            keep = view.share
            for held in self._held.values():
                held.leaving = keep <= 0 or held.lease.scope != view.stream_arn
                held.settled = held.settled and not held.leaving
                keep -= not held.leaving
            self._all_known, self._others_hold = view.all_known, view.others_hold

    def _settle_all(self, *, at_end: bool = False) -> None:
        """Each write is a call: several are made at once. With `at_end` only shards that are to be released or read
        from the horizon, so that reading does not wait for checkpoints.
        """
        now = self.clock()
        with self._lock:
            every = max(CHECKPOINT_SECONDS, len(self._held) / CHECKPOINTS_PER_SECOND)
            due = [
                (held, held.due(now, every, leave=False)) for held in self._held.values() if not held.settled
            ]
        to_settle = [held for held, due in due if due.release or due.restart or (due.save and not at_end)]
        if len(to_settle) > 1:
            list(self._pool().map(self._settle, to_settle))
        else:
            for held in to_settle:
                self._settle(held)

    def _settle(self, held: HeldShard, *, leave: bool = False) -> None:
        """Write the shard's checkpoint if that is due, and release it if it has ended."""
        if not held.writing.acquire(blocking=leave):
            return
        try:
            with self._lock:
                if self._held.get(held.shard_id) is not held:
                    return
                due = held.due(self.clock(), CHECKPOINT_SECONDS, leave=leave)
            if due.restart:
                # Stored, so that a consumer which takes it over also reads from the horizon.
                if not self._save(held, state_of(held.lease.state, None), ""):
                    return
                with self._lock:
                    held.restart()
            elif due.save and not self._save(
                held,
                state_of(held.lease.state, due.checkpoint, finished=due.finished, lost=due.lost),
                due.position,
            ):
                return
            if due.release:
                # Forgotten first: a heartbeat in between must not take a released lease for a lost one.
                self._forget(held)
                held.lease.release()
            if due.finished:
                self._count("shards_finished")
                self._leases.balance_soon()
        finally:
            held.writing.release()

    def _save(self, held: HeldShard, state: dict[str, str], position: str) -> bool:
        self.on_step("enqueue.before_checkpoint")
        held.saved_at = self.clock()
        if held.lease.save(state, position):
            return True
        self._drop(held)
        return False

    def _drop(self, held: HeldShard) -> None:
        """The lease is lost: its new owner reads on from the checkpoint. Late acknowledgements are ignored."""
        if self._forget(held):
            self._count("leases_lost")
            log.warning("lost the lease of a shard", shard=held.shard_id)

    def _forget(self, held: HeldShard) -> bool:
        with self._lock:
            known = self._held.get(held.shard_id) is held
            if known:
                del self._held[held.shard_id]
            return known

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    def _holdings(self) -> list[HeldShard]:
        with self._lock:
            return list(self._held.values())

    def _holder_of(self, record: StreamRecord) -> HeldShard | None:
        """The shard in which this very record is open; None once its lease was lost. Call with the lock."""
        held = self._held.get(record.shard_id)
        return held if held is not None and held.owns(record) else None
