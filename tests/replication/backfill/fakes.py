"""A demand table of a fixed size, a queue that remembers, and runs of a backfill over both."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.adapters.aws.demand_table import TablePage
from regworkers_core.domain.keys import EntryKey
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.engine.leases import Lease, LeaseHolder
from regworkers_core.engine.stop import StopSignal, no_step
from regworkers_core.replication.backfill_run import (
    BackfillRows,
    BackfillRun,
    Ended,
    Parameters,
    SegmentReader,
)
from tests.replication.reconcile.world import sent_items
from tests.support.in_memory import MemoryLeaseTable, MemoryQueue

LEASE_SECONDS = 0.3
STARTED = "2026-01-01T00:00:00.000Z"
AT_ONCE = 1e9
INVITE = "invite"


def keys(number: int) -> list[EntryKey]:
    return [EntryKey("summer", f"e{n:05}") for n in range(number)]


@dataclass
class FakeTable:
    """Item n lies in segment n % segments; a page shows no invites, but they take its room."""

    entries: list[EntryKey]
    page: int = 7
    reads: int = 0

    def scan(
        self,
        segment: int,
        segments: int,
        start_key: Mapping[str, Any] | None = None,
        limit: int | None = None,
        since: str = "",
    ) -> TablePage:
        return self._read(self.entries[segment::segments], start_key)

    def query(
        self,
        campaign_id: str,
        start_key: Mapping[str, Any] | None = None,
        limit: int | None = None,
        since: str = "",
    ) -> TablePage:
        return self._read([key for key in self.entries if key.campaign_id == campaign_id], start_key)

    def _read(self, mine: list[EntryKey], start_key: Mapping[str, Any] | None) -> TablePage:
        self.reads += 1
        after = start_key["SK"]["S"] if start_key else ""
        rest = [key for key in mine if key.sk > after]
        found = rest[: self.page]
        next_key = {"PK": {"S": found[-1].pk}, "SK": {"S": found[-1].sk}} if rest[self.page :] else None
        shown = [key for key in found if not key.entry_id.startswith(INVITE)]
        return TablePage([(key, {"version": 3}) for key in shown], next_key, len(found))


@dataclass
class Site:
    """What outlives a run."""

    table: FakeTable
    segments: int = 2
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    leases: MemoryLeaseTable = field(default_factory=MemoryLeaseTable)
    runs: int = 0

    def __post_init__(self) -> None:
        self.reader = SegmentReader(self.table)

    @property
    def rows(self) -> BackfillRows:
        return BackfillRows(self.leases, "all")

    def acquire(self) -> Lease | None:
        self.runs += 1
        holder = LeaseHolder(self.leases, f"run-{self.runs}", lease_seconds=LEASE_SECONDS)
        return self.rows.acquire(holder, lease_seconds=LEASE_SECONDS, wait=threading.Event().wait)

    def start(
        self,
        *,
        lease: Lease | None = None,
        rate: float = AT_ONCE,
        stop: StopSignal | None = None,
        afresh: bool = False,
        on_step: Callable[[str], None] = no_step,
    ) -> Ended:
        """One run to its end."""
        lease = lease or self.acquire()
        assert lease is not None
        run = BackfillRun(
            self.rows,
            lease,
            Parameters(None, self.segments, STARTED),
            self.reader,
            self.queue,
            lambda sleep: TokenBucket(rate, burst=1, sleep=sleep),
            rate=rate,
            heartbeat_seconds=LEASE_SECONDS / 3,
            on_step=on_step,
        )
        return run.run(stop or StopSignal(), afresh=afresh)

    @property
    def received(self) -> Counter[EntryKey]:
        """How often each key was sent."""
        return Counter(wish.key for wish in sent_items(self.queue.sent))

    @property
    def state(self) -> str:
        row = self.rows.run()
        return "" if row is None else row.state["state"]

    @property
    def confirmed(self) -> int:
        return sum(segment.sent for segment in self.rows.segments(self.segments))
