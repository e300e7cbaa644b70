"""The shards that a consumer holds: what it keeps in memory of each, and how it shares them with other consumers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from fairdraw import scheduling
from regworkers_core.adapters.aws.streams import StreamPage, StreamRecord
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.leases import Lease, LeaseHolder, LeaseRow, LeaseTable
from regworkers_core.replication.enqueue import shard_rows
from regworkers_core.replication.enqueue.discovery import ShardDiscovery

# The pause after a failed read of a shard; it doubles with each failure in a row.
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 16.0
# How often a consumer that waits for shards reads the rows; and when it has just begun, perhaps as a successor.
WAITING_SECONDS = 1.0
_BEGINNING_SECONDS = 0.1
# Leases that are taken before shards are read on.
_TAKEN_AT_ONCE = 50


class ContiguousTracker:
    """Sequence numbers in the order in which they were read, and the checkpoint: the highest one with no gap before it,
    whatever the order of the acknowledgements. Not thread-safe.
    """

    def __init__(self, checkpoint: str | None = None) -> None:
        self.checkpoint = checkpoint
        self._reached = -1 if checkpoint is None else int(checkpoint)
        self._order: deque[str] = deque()
        self._open: set[str] = set()

    def __len__(self) -> int:
        """How many were read and are not behind the checkpoint."""
        return len(self._order)

    def read(self, sequence: str) -> bool:
        """A record was read; False if it is already being worked on."""
        if sequence in self._open:
            return False
        self._open.add(sequence)
        self._order.append(sequence)
        return True

    def acknowledge(self, sequence: str) -> None:
        """A record is done; one that is not open is ignored."""
        self._open.discard(sequence)
        while self._order and self._order[0] not in self._open:
            first = self._order.popleft()
            # They are compared as integers: the strings differ in length. Never backwards, should a service restart its
            # numbers.
            if int(first) > self._reached:
                self._reached, self.checkpoint = int(first), first


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done for a shard and its lease."""

    checkpoint: str | None  # None: there is none
    position: str  # of the checkpoint, empty when it did not move
    save: bool  # the checkpoint is to be stored
    finished: bool  # all of it is done
    lost: bool  # it is finished because the shard is gone
    restart: bool  # read it from the horizon
    release: bool  # give its lease back, after that


@dataclass(slots=True, eq=False)
class HeldShard:
    """One leased shard, without I/O or lock: the source guards it."""

    shard_id: str
    lease: Lease
    last_read: str | None  # where the next iterator starts
    tracker: ContiguousTracker
    # Records that were handed out or wait to be handed out again.
    open: dict[str, StreamRecord] = field(default_factory=dict)
    open_bytes: int = 0  # memory of those
    iterator: str | None = None  # where the next read starts, None: to be requested
    # When the iterator was requested: seconds on the source's clock, and the source's count of connection errors.
    sought_at: float = 0.0
    sought_in: int = 0
    # Not to be read before this; when it was last asked for, and when its latest reads began; since when it has brought
    # no record; how often in a row it was read too often. Last checkpoint written then.
    read_at: float = 0.0
    asked_at: float = 0.0
    reads: deque[float] = field(default_factory=deque)  # when the latest reads began
    quiet_since: float = 0.0
    throttled: int = 0  # how often in a row it was read too often
    saved_at: float = 0.0
    # The failure of its last read, and the number of failures in a row.
    failure: TransientFailure | None = None
    failures: int = 0  # reads in a row that failed
    ended: bool = False  # it was read to its end
    gone: bool = False  # the stream has it no longer
    leaving: bool = False  # its lease is to be given back
    # It lost records: it is not read until none of it is open, and then from the horizon.
    trimmed: bool = False
    # Nothing has come that would have to be written or released: most shards at most times.
    settled: bool = True
    # Two threads must not write one shard's checkpoints in the wrong order.
    writing: scheduling.Lock = field(default_factory=scheduling.lock)

    @classmethod
    def of(cls, shard_id: str, lease: Lease, now: float, window: int) -> HeldShard:
        """A shard that was just leased: it continues after its checkpoint. `window` reads of it are remembered."""
        checkpoint = shard_rows.checkpoint_of(lease.state)
        tracker, reads = ContiguousTracker(checkpoint), deque[float](maxlen=window)
        return cls(shard_id, lease, checkpoint, tracker, reads=reads, quiet_since=now)

    @property
    def readable(self) -> bool:
        return not (self.ended or self.leaving or self.trimmed)

    def owns(self, record: StreamRecord) -> bool:
        """Whether this very delivery is open; one from before a lost lease is not."""
        return self.open.get(record.sequence) is record

    def take_in(self, page: StreamPage) -> list[StreamRecord]:
        """Add a page; returns its records without those that are being worked on already."""
        self.failure, self.failures = None, 0
        fresh = [record for record in page.records if self.tracker.read(record.sequence)]
        self.open.update((record.sequence, record) for record in fresh)
        self.open_bytes += sum(record.size_bytes for record in fresh)
        if page.records:
            self.last_read = page.records[-1].sequence
        self.iterator = page.next_iterator
        self.ended = page.next_iterator is None
        self.settled = self.settled and not self.ended
        return fresh

    def failed(self, failure: TransientFailure, now: float) -> None:
        """A read failed, with all its retries."""
        self.failure = failure
        self.read_at = now + min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(self.failures, 10))
        self.failures += 1

    def done(self, record: StreamRecord) -> None:
        del self.open[record.sequence]
        self.open_bytes -= record.size_bytes
        self.tracker.acknowledge(record.sequence)
        self.settled = False

    def restart(self) -> None:
        """Read from the horizon: what came before it no longer matters."""
        self.tracker, self.last_read, self.trimmed = ContiguousTracker(), None, False

    def due(self, now: float, every_seconds: float, *, leave: bool) -> Due:
        """What to do for it now; `leave`: release it although records are open."""
        quiet, checkpoint = not self.open, self.tracker.checkpoint
        position = shard_rows.position_of(checkpoint)
        moved = position > self.lease.position
        finished, restart = quiet and self.ended, quiet and self.trimmed
        release = leave or finished or (quiet and self.leaving)
        timely = release or now - self.saved_at >= every_seconds
        self.settled = not (moved or self.ended or self.trimmed or self.leaving)
        return Due(
            checkpoint=checkpoint,
            position=position if moved else "",
            save=not restart and (finished or (moved and timely)),
            finished=finished,
            lost=self.gone,
            restart=restart,
            release=release,
        )


@dataclass(frozen=True, slots=True)
class Balance:
    """What reading the rows found."""

    stream_arn: str
    lost: list[str] = field(default_factory=list)  # held shards that have another owner by now
    taken: list[Lease] = field(default_factory=list)  # new leases
    share: int = 0  # how many shards this consumer may hold
    others_hold: bool = False  # whether other consumers hold shards
    all_known: bool = False  # whether every shard is known, the children of finished ones included


class ShardLeases:
    """One consumer's leases on shards. Its own row, whose counter it moves, keeps them: a shard is free once neither
    its row nor that of its owner has moved for one lease time. `balance` belongs to one thread, `show_life` and
    `observe` may run in another. They block for calls to the table and raise TransientFailure.
    """

    def __init__(
        self,
        table_name: str,
        table: LeaseTable,
        discovery: ShardDiscovery,
        *,
        owner: str,
        lease_seconds: float,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._table_name, self._table, self._clock = table_name, table, clock
        self._discovery = discovery
        self._holder = LeaseHolder(table, owner, lease_seconds=lease_seconds, clock=clock)
        self._lease_seconds = lease_seconds
        self._presence: Lease | None = None
        self._balance_at, self._changes = clock(), 0
        self._begun_until = 0.0
        # How many shards of the stream may be read now, by all consumers.
        self.workable = 0

    @property
    def balance_at(self) -> float:
        """When the rows are to be read next, on the clock: in the past if discovery has added some."""
        return self._balance_at if self._changes == self._discovery.changes else -math.inf

    def balance_soon(self) -> None:
        """A shard ended: share the shards again at the next opportunity."""
        self._balance_at = self._clock()

    def balance_later(self) -> None:
        """The table did not answer; held shards are worked on meanwhile."""
        self._balance_at = self._clock() + WAITING_SECONDS

    @property
    def shows_life(self) -> bool:
        """Whether this consumer's row has moved within the lease time, which keeps its shards."""
        return self._presence is not None and not self._presence.lost

    def show_life(self) -> bool:
        """Move the counter of this consumer's row. False if that came too late: others may have removed the row, and
        taken shards.
        """
        in_time = self.shows_life
        if self._presence is not None and self._presence.renew():
            return in_time
        key = shard_rows.consumer_key(self._table_name, self._holder.owner)
        self._presence = self._holder.take(key, None)
        return False

    @property
    def has_begun(self) -> bool:
        """Whether this consumer has ever asked for its share."""
        return self._begun_until > 0

    def observe(self) -> None:
        """Read the rows and take nothing: a consumer that stands by then knows which counters do not move."""
        for row in self._table.rows(shard_rows.partition(self._table_name)):
            self._holder.is_live(row)

    def balance(self, held: Collection[str], in_parallel: Callable[..., Iterable[Lease | None]]) -> Balance:
        """Read the rows and take free or expired shards up to the fair share, several at once by `in_parallel`, which
        is used like `map`. `held` are the shards that this consumer holds already. A live lease is never taken from its
        owner.
        """
        if self._presence is None:
            self.show_life()
        if not self.has_begun:
            self._begun_until = self._clock() + 2 * self._lease_seconds
        changes = self._discovery.changes
        rows, consumers = shard_rows.split_rows(self._table.rows(shard_rows.partition(self._table_name)))
        self._discovery.seen(rows)
        arn, complete = self._discovery.stream_arn, self._discovery.complete
        living = self._living(consumers)
        # All rows are observed each time: two observations show for how long a counter has not moved.
        live = {
            shard_id
            for shard_id, row in rows.items()
            if self._holder.is_live(row) or (row.owner in living and row.owner != self._holder.owner)
        }
        ready = shard_rows.workable(arn, rows)
        self.workable = len(ready)
        share = shard_rows.fair_share(len(ready), len(living))
        free = [shard_id for shard_id in ready if shard_id not in live and shard_id not in held]
        free = free[: max(0, min(share - len(held), _TAKEN_AT_ONCE))]
        attempts = in_parallel(
            lambda shard_id: self._holder.take(rows[shard_id].key, rows[shard_id], arn), free
        )
        taken = [lease for lease in attempts if lease is not None]
        all_known = complete and not shard_rows.childless(arn, rows)
        beginning = self._clock() < self._begun_until
        # A successor waits for more than its share: whom it replaces still holds the rest, and soon leaves.
        waits = not all_known or len(held) + len(taken) < (len(ready) if beginning else share)
        self._changes = changes
        pause = self._lease_seconds / 3
        if waits:
            pause = min(pause, _BEGINNING_SECONDS if beginning else WAITING_SECONDS)
        self._balance_at = self._clock() + (0.0 if len(free) == _TAKEN_AT_ONCE else pause)
        mine = {lease.key for lease in taken}
        others = any(
            rows[shard_id].owner not in ("", self._holder.owner) and rows[shard_id].key not in mine
            for shard_id in ready
        )
        lost = [
            shard_id for shard_id in held if shard_id in rows and rows[shard_id].owner != self._holder.owner
        ]
        return Balance(arn, lost, taken, share, others, all_known)

    def leave(self) -> None:
        """Remove this consumer's row, so that the others share its shards at once."""
        if self._presence is not None:
            row = self._table.get(self._presence.key)
            if row is not None:
                self._table.remove(row)
            self._presence = None
        # From now on it only observes, until it is asked for its share again.
        self._begun_until = 0.0

    def _living(self, consumers: Collection[LeaseRow]) -> set[str]:
        """The owners of rows that move, this one among them; the other rows are removed."""
        living = {self._holder.owner}
        for row in consumers:
            if self._holder.is_live(row):
                living.add(row.owner)
            elif row.owner != self._holder.owner:
                self._table.remove(row)
        return living
