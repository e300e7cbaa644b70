"""What a consumer keeps in memory of one leased shard. No I/O, no lock: the source guards it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from regworkers_core.adapters.aws.streams import StreamPage, StreamRecord
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.checkpoint import ContiguousTracker
from regworkers_core.engine.leases import Lease
from regworkers_core.replication.enqueue.shards import checkpoint_of, position_of

# How long a shard whose reads fail one after the other is left alone: twice as long each time.
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 16.0


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done for a shard at its lease: `restart` from the horizon, or `save` the checkpoint
    (`position` is empty when it did not move), then `release`. `lost`: finished, because it is gone.
    """

    checkpoint: str | None
    position: str
    save: bool
    finished: bool
    lost: bool
    restart: bool
    release: bool


@dataclass(slots=True, eq=False)
class HeldShard:
    """`last_read` is where the next iterator starts; `open` are records handed out or waiting to be handed
    out again. A `trimmed` shard is not read until nothing of it is open, and then from the horizon.
    """

    shard_id: str
    lease: Lease
    last_read: str | None
    tracker: ContiguousTracker
    open: dict[str, StreamRecord] = field(default_factory=dict)
    open_bytes: int = 0
    iterator: str | None = None
    # Seconds on the source's clock, and the source's count of connection errors, when it was sought.
    sought_at: float = 0.0
    sought_in: int = 0
    # Not to be read before this; last checkpoint written then.
    read_at: float = 0.0
    saved_at: float = 0.0
    # What its last read failed with, and how many did in a row.
    failure: TransientFailure | None = None
    failures: int = 0
    ended: bool = False
    gone: bool = False
    leaving: bool = False
    trimmed: bool = False
    # Two threads must not write one shard's checkpoints in the wrong order.
    writing: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, shard_id: str, lease: Lease) -> HeldShard:
        """A shard just leased: it goes on where its checkpoint stands."""
        checkpoint = checkpoint_of(lease.state)
        return cls(shard_id, lease, checkpoint, ContiguousTracker(checkpoint))

    @property
    def readable(self) -> bool:
        return not (self.ended or self.leaving or self.trimmed)

    def owns(self, record: StreamRecord) -> bool:
        """Whether this very delivery is open; one from before a lost lease is not."""
        return self.open.get(record.sequence) is record

    def take_in(self, page: StreamPage) -> list[StreamRecord]:
        """A page was read; returns its records, without those that are being worked on already."""
        self.failure, self.failures = None, 0
        fresh = [record for record in page.records if self.tracker.read(record.sequence)]
        self.open.update((record.sequence, record) for record in fresh)
        self.open_bytes += sum(record.size_bytes for record in fresh)
        if page.records:
            self.last_read = page.records[-1].sequence
        self.iterator = page.next_iterator
        self.ended = page.next_iterator is None
        return fresh

    def failed(self, failure: TransientFailure, now: float) -> None:
        """A read failed, its retries included."""
        self.failure = failure
        self.read_at = now + min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(self.failures, 10))
        self.failures += 1

    def done(self, record: StreamRecord) -> None:
        del self.open[record.sequence]
        self.open_bytes -= record.size_bytes
        self.tracker.acknowledge(record.sequence)

    def restart(self) -> None:
        """Nothing before the horizon matters any more."""
        self.tracker, self.last_read, self.trimmed = ContiguousTracker(), None, False

    def due(self, now: float, every_seconds: float, *, leave: bool) -> Due:
        """What to do for it now; `leave` to part with it although records are open."""
        quiet, checkpoint = not self.open, self.tracker.checkpoint
        position = position_of(checkpoint)
        moved = position > self.lease.position
        finished, restart = quiet and self.ended, quiet and self.trimmed
        release = leave or finished or (quiet and self.leaving)
        timely = release or now - self.saved_at >= every_seconds
        return Due(
            checkpoint=checkpoint,
            position=position if moved else "",
            save=not restart and (finished or (moved and timely)),
            finished=finished,
            lost=self.gone,
            restart=restart,
            release=release,
        )
