"""Runs of a backfill over a demand table and a queue in memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.demand_table import DemandTable
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
from tests.adapters.fakes import dependency
from tests.replication.reconcile.world import sent_items
from tests.support.in_memory import MemoryItems, MemoryLeaseTable, MemoryQueue, Switch

LEASE_SECONDS = 0.3
STARTED = "2026-01-01T00:00:00.000Z"
AT_ONCE = 1e9


def keys(number: int) -> list[EntryKey]:
    return [EntryKey(f"c{n % 7}", f"e{n:05}") for n in range(number)]


class _Pages(Switch):
    """Of seven items each."""

    def before(self, server: str, operation: str, request: Any) -> None:
        super().before(server, operation, request)
        request["Limit"] = 7


@dataclass
class Site:
    """What outlives a run."""

    entries: Iterable[EntryKey]
    segments: int = 2
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    leases: MemoryLeaseTable = field(default_factory=MemoryLeaseTable)
    runs: int = 0

    def __post_init__(self) -> None:
        self.items, self.gate = MemoryItems(), _Pages()
        self.items.update({key: {"version": 3} for key in self.entries})
        guard = dependency("dynamodb", classify_aws("dynamodb"))
        client = self.items.client(self.gate)
        self.reader = SegmentReader(DemandTable(client, guard, self.items.name, policy=guard.policy))

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
