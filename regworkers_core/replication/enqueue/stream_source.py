"""The demand table's stream as the source of a drain: shards are read under leases, checkpoints have no gaps."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from regworkers_core.adapters.aws.streams import MAX_RECORDS, IteratorExpired, StreamRecord, Streams, Trimmed
from regworkers_core.domain.reasons import DependencyDown, TransientFailure, UsageError
from regworkers_core.engine import scheduling
from regworkers_core.engine.deadline import Background
from regworkers_core.engine.leases import LeaseTable
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.replication.enqueue.discovery import ShardDiscovery
from regworkers_core.replication.enqueue.held_shards import HeldShard, ShardLeases
from regworkers_core.replication.enqueue.shard_rows import shard_of, state_of
from regworkers_core.settings import EnqueueSettings

log = structlog.get_logger(__name__)

# A receive of many shards hands out what it has after this time, so that a record does not wait for the rest.
_ROUND_SECONDS = 0.5
_SHORTEST_REST_SECONDS = 0.01
# The end does not wait longer for a listing that does not answer: its lease expires.
_LAST_STEP_SECONDS = 2.0


CHECKPOINT_SECONDS = 1.0
# After an unnoticed restart of the service an old iterator returns nothing for ever. Iterators live 15 minutes.
RESEEK_SECONDS = 180.0


class StreamSource:
    """The stream as `engine.drain.Source[StreamRecord]`. `owner` is unique to this start; `sleep` is a bounded wait
    that a stop signal may cut short; `on_step` gets `enqueue.before_checkpoint` before each checkpoint is written.
    Shards are listed in the `background`; reading goes on with the known ones however the listing ends.
    """

    def __init__(
        self,
        streams: Streams,
        table: LeaseTable,
        limits: EnqueueSettings,
        *,
        owner: str,
        clock: Callable[[], float] = scheduling.monotonic,
        sleep: Callable[[float], object] = scheduling.sleep,
        on_step: OnStep = no_step,
        background: Background | None = None,
    ) -> None:
        self._streams, self._limits = streams, limits
        self._clock, self._sleep, self._on_step = clock, sleep, on_step
        self._background = Background("shard-discovery") if background is None else background
        self._discovery = ShardDiscovery(
            streams, table, owner=owner, lease_seconds=limits.lease_seconds, clock=clock
        )
        self._leases = ShardLeases(
            streams.table_name,
            table,
            self._discovery,
            owner=owner,
            lease_seconds=limits.lease_seconds,
            clock=clock,
        )
        # Guards the fields below; never held during a call to a service.
        self._lock = scheduling.lock()
        self._held: dict[str, HeldShard] = {}
        self._again: list[tuple[float, int, StreamRecord]] = []
        self._ticket = itertools.count()
        self._turn = 0
        # Grows with each connection error: iterators of an older era are not trusted.
        self._era = 0
        self._all_known = self._others_hold = False
        self._counts: Counter[str] = Counter()

    def receive(self) -> list[StreamRecord]:
        """The next batch, empty after a short rest. Raises TransientFailure or UsageError if no shard has a record and
        the read of one failed, or if no shard is known and the listing failed.
        """
        self._discover()
        batch: list[StreamRecord] = []
        failure: TransientFailure | UsageError | None = None
        for part in (self._settle_all, self._balance_in_time, lambda: self._read_round(batch)):
            try:
                part()
            except TransientFailure as error:
                self._era += 1
                failure = error
        if batch:
            return batch
        failing = (held.failure for held in self._holdings() if held.failure is not None)
        failure = failure or next(failing, None) or self._discovery.blindness
        if failure is not None:
            raise failure
        self._rest()
        return batch

    def acknowledge(self, done: Sequence[StreamRecord]) -> None:
        with self._lock:
            for record in done:
                held = self._holder_of(record)
                if held is not None:
                    held.done(record)
        self._settle_all()

    def give_back(self, again: Sequence[tuple[StreamRecord, float]]) -> None:
        now = self._clock()
        with self._lock:
            for record, delay in again:
                if self._holder_of(record) is not None:
                    heapq.heappush(self._again, (now + delay, next(self._ticket), record))

    def heartbeat(self) -> None:
        self._discover()
        try:
            self._leases.show_life()
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
            if not self._all_known or any(held.open for held in self._held.values()):
                return False
            return bool(self._held) or not self._others_hold

    def close(self) -> None:
        self._background.wait(_LAST_STEP_SECONDS)
        failure: TransientFailure | None = None
        parts: list[Callable[[], None]] = [
            partial(self._settle, held, leave=True) for held in self._holdings()
        ]
        for part in (*parts, self._discovery.leave, self._leases.leave):
            try:
                part()
            except TransientFailure as error:
                failure = error
        if failure is not None:
            raise failure

    def counts(self) -> Counter[str]:
        """`trimmed` (how often records may have been lost), `leases_lost`, `iterators_expired`, `shards_finished`,
        `discovery_failures`.
        """
        return self._counts + self._discovery.counts

    # Reading

    def _read_round(self, batch: list[StreamRecord]) -> None:
        """One read of each due shard, in turn, until the batch is full."""
        batch.extend(self._due_again())
        started = self._clock()
        holdings = self._holdings()
        # Records that are handed out again were counted when they were read.
        room = self._limits.batch_records - len(batch)
        self._turn = (self._turn + 1) % max(1, len(holdings))
        for held in holdings[self._turn :] + holdings[: self._turn]:
            now = self._clock()
            if room <= 0 or (batch and now - started >= _ROUND_SECONDS):
                return
            if not held.readable or held.read_at > now:
                continue
            # The lease may have expired during a pause of this process: check before reading on.
            if held.lease.lost and not held.lease.renew():
                self._drop(held)
                continue
            limit = min(MAX_RECORDS, room, self._room(held))
            if limit <= 0:
                continue
            try:
                fresh = self._read(held, limit)
            except DependencyDown:
                raise
            except TransientFailure as failure:
                # The other shards are read on, and do not wait for its retries each time.
                self._era += 1
                held.failed(failure, self._clock())
                continue
            room -= len(fresh)
            batch.extend(fresh)

    def _read(self, held: HeldShard, limit: int) -> list[StreamRecord]:
        try:
            iterator = self._iterator(held)
        except Trimmed:
            # If not even the horizon has an iterator, the shard itself is gone.
            self._trimmed(held, gone=held.last_read is None)
            return []
        try:
            page = self._streams.read(held.shard_id, iterator, limit)
        except IteratorExpired:
            held.iterator = None
            self._count("iterators_expired")
            return []
        except Trimmed:
            self._trimmed(held, gone=False)
            return []
        with self._lock:
            fresh = held.take_in(page)
        if len(page.records) < limit and not page.full:
            held.read_at = self._clock() + self._limits.empty_read_pause_seconds
        return fresh

    def _iterator(self, held: HeldShard) -> str:
        """The shard's iterator; a new one when it cannot be trusted any more. Raises Trimmed."""
        era, now = self._era, self._clock()
        old = now - held.sought_at >= RESEEK_SECONDS
        if held.iterator is None or held.sought_in != era or old:
            held.iterator = self._streams.iterator(held.lease.scope, held.shard_id, held.last_read)
            held.sought_at, held.sought_in = now, era
        return held.iterator

    def _trimmed(self, held: HeldShard, *, gone: bool) -> None:
        with self._lock:
            held.iterator, held.ended, held.gone, held.trimmed = None, gone, gone, not gone
        self._count("trimmed")
        log.error(
            "records were trimmed from the stream before they were read: run `regworkers reconcile --repair --apply`",
            shard=held.shard_id,
            table=self._streams.table_name,
        )

    def _due_again(self) -> list[StreamRecord]:
        batch: list[StreamRecord] = []
        now = self._clock()
        with self._lock:
            while self._again and self._again[0][0] <= now and len(batch) < self._limits.batch_records:
                record = heapq.heappop(self._again)[2]
                if self._holder_of(record) is not None:
                    batch.append(record)
        return batch

    def _room(self, held: HeldShard) -> int:
        """How many more records of this shard may be unsettled."""
        with self._lock:
            shards = max(1, len(self._held))
            if held.open_bytes * shards >= self._limits.max_unacknowledged_bytes:
                return 0
            return max(1, self._limits.max_unacknowledged // shards) - len(held.tracker)

    def _rest(self) -> None:
        """Wait until something may be due, at most the pause of an empty read."""
        longest = self._limits.empty_read_pause_seconds
        due = [self._leases.balance_at]
        due.extend(held.read_at for held in self._holdings() if held.readable and self._room(held) > 0)
        with self._lock:
            due.extend(at for at, _, _ in self._again[:1])
        self._sleep(max(_SHORTEST_REST_SECONDS, min(longest, min(due) - self._clock())))

    # Holding

    def _discover(self) -> None:
        if self._discovery.due:
            self._background.start(self._discovery.step)

    def _balance_in_time(self) -> None:
        if self._clock() < self._leases.balance_at:
            return
        try:
            self._balance()
        except TransientFailure:
            self._leases.balance_later()
            raise

    def _balance(self) -> None:
        holdings = self._holdings()
        view = self._leases.balance({held.shard_id for held in holdings})
        with self._lock:
            for lease in view.taken:
                shard_id = shard_of(lease.key)
                self._held[shard_id] = HeldShard.of(shard_id, lease)
            # Above the share, the youngest are released once their records in flight are done.
            keep = view.share
            for held in self._held.values():
                held.leaving = keep <= 0 or held.lease.scope != view.stream_arn
                keep -= not held.leaving
            self._all_known, self._others_hold = view.all_known, view.others_hold

    def _settle_all(self) -> None:
        for held in self._holdings():
            self._settle(held)

    def _settle(self, held: HeldShard, *, leave: bool = False) -> None:
        """Write the shard's checkpoint if that is due, and release it if it has ended."""
        if not held.writing.acquire(blocking=leave):
            return
        try:
            with self._lock:
                if self._held.get(held.shard_id) is not held:
                    return
                due = held.due(self._clock(), CHECKPOINT_SECONDS, leave=leave)
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
        self._on_step("enqueue.before_checkpoint")
        held.saved_at = self._clock()
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
