"""A demand table, a replica and a replicator that lags, on a clock that moves with every look."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.demand_table import DemandTable, TablePage
from regworkers_core.adapters.mongo.entry_documents import Stored
from regworkers_core.adapters.mongo.superseded import Lowering
from regworkers_core.domain.entry import Entry, Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, Op, ReplicationItem, decode
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import RetryPolicy
from regworkers_core.engine.queue import Outgoing, SendFailure
from regworkers_core.replication.reconcile.acceptance import Accept
from regworkers_core.replication.reconcile.classify import Sides
from regworkers_core.replication.reconcile.reconciliation import Comparing, ReconcileResult, Reconciliation
from regworkers_core.replication.reconcile.segments import Segments
from regworkers_core.settings import ReplicationSettings
from tests.adapters.fakes import dependency
from tests.simulation.gate import OpenGate
from tests.support.entries import item
from tests.support.in_memory import MemoryItems, MemoryLeaseTable, MemoryQueue

OBJECTIVE = 60.0
START = 1_000_000.0
# What one read takes; changes happen in between.
READ_SECONDS = 7.0
PAGE = 2


def entry_key(number: int) -> EntryKey:
    return EntryKey("summer", f"e{number}")


@dataclass
class World:
    """`after` schedules; whatever is due happens before the clock is read by anyone again."""

    now: float = START
    items: MemoryItems = field(default_factory=MemoryItems)
    stored: dict[EntryKey, Stored] = field(default_factory=dict)
    refused: dict[EntryKey, set[Order]] = field(default_factory=dict)
    slept: list[float] = field(default_factory=list)
    deleted_tombstones: list[tuple[EntryKey, Order]] = field(default_factory=list)
    # What an acceptance copied, by key and order.
    kept: dict[tuple[EntryKey, Order], Stored] = field(default_factory=dict)
    sent: list[ReplicationItem] = field(default_factory=list)
    # With the seconds for which each is hidden.
    sent_later: list[tuple[ReplicationItem, int]] = field(default_factory=list)
    leases: MemoryLeaseTable = field(default_factory=MemoryLeaseTable)
    deliver_sent_after: float | None = None
    read_seconds: float = READ_SECONDS
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _ticket: Iterator[int] = field(default_factory=itertools.count)

    # The clock
    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._ticket), action))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, _, action = heapq.heappop(self._due)
            action()
        self.now = end

    # The writers
    def write(self, key: EntryKey, *, lag: float | None, **changes: Any) -> None:
        """A new state, replicated after `lag` seconds (None: never)."""
        now, before = iso(self.now), self.items.get(key)
        fields = {
            "createdAt": before["createdAt"] if before else now,
            "version": before["version"] + 1 if before else 1,
            "updatedAt": now,
        }
        self.items[key] = item(key, **{"ref": "r", **fields, **changes})
        if lag is not None:
            self.after(lag, lambda: self.replicate(ReplicationItem(key, Op.UPSERT)))

    def remove(self, key: EntryKey, *, lag: float | None) -> None:
        image = self.items.pop(key, None)
        if image is not None and lag is not None:
            order = Entry.parse(key, {**image, "email": "x"}).order
            self.after(lag, lambda: self.replicate(ReplicationItem(key, Op.REMOVE, order)))

    # The replicator
    def replicate(self, wish: ReplicationItem) -> None:
        current = self.items.get(wish.key)
        if current is None:
            if wish.op is Op.REMOVE:
                self.store(wish.key, wish.order, None)
        elif current.get("email"):
            entry = Entry.parse(wish.key, current)
            self.store(wish.key, entry.order, entry.fields)

    def store(self, key: EntryKey, order: Order, fields: Mapping[str, Any] | None) -> None:
        before = self.stored.get(key)
        above = before is not None and (
            before.order > order or (before.order == order and before.fields is None and fields is not None)
        )
        if not above:
            deleted_at = iso(self.now) if fields is None else None
            self.stored[key] = Stored(order, fields, order.as_fields(), deleted_at)

    def settle(self, key: EntryKey, **changes: Any) -> None:
        """An entry that source and replica agree on since long ago."""
        long_ago = iso(self.now - 10 * OBJECTIVE)
        self.write(key, lag=None, **{"createdAt": long_ago, "updatedAt": long_ago, **changes})
        self.replicate(ReplicationItem(key, Op.UPSERT))

    def reconcile(
        self,
        *,
        repair: bool = False,
        yes_remove: int | None = None,
        accept: Accept | None = None,
        **options: Any,
    ) -> ReconcileResult:
        settings = ReplicationSettings(
            lag_objective_seconds=options.pop("objective", OBJECTIVE),
            repair_items_per_second=options.pop("rate", 1000.0),
            # One thread, so that the clock is not shared.
            scan_segments=1,
            compare_memory_mib=16,
        )
        sides = Sides(SourceSide(self), ReplicaSide(self), DeadLetters(self))
        part = {name: options.pop(name) for name in ("campaign_id", "since", "cycle") if name in options}
        segments = Segments(self.leases, lease_seconds=30, monotonic=self.clock, sleep=self.sleep)
        flow = Reconciliation(
            sides,
            options.pop("queue", Replication(self)),
            settings,
            segments=segments,
            superseded=Superseded(self),
            visibility_seconds=options.pop("visibility_seconds", 60),
            clock=self.clock,
            sleep=self.sleep,
            **options,
        )
        return flow.run(Comparing(repair=repair, yes_remove=yes_remove, accept=accept, **part))

    def order(self, key: EntryKey) -> Order:
        return self.stored[key].order


class _Slow(OpenGate):
    """Pages are small, and each takes its time before it is read."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def before(self, server: str, operation: str, request: Any) -> None:
        if operation != "Scan":
            self._world.advance(self._world.read_seconds)
        if operation == "Query":
            request["Limit"] = PAGE


class SourceSide(DemandTable):
    def __init__(self, world: World) -> None:
        guard = dependency("dynamodb", classify_aws("dynamodb"))
        super().__init__(world.items.client(_Slow(world)), guard, world.items.name, policy=RetryPolicy())

    def entries(self, *range_: Any) -> Iterator[TablePage]:
        """Each item is a read unit, which the server does not say."""
        return (replace(page, units=page.scanned) for page in super().entries(*range_))


@dataclass
class ReplicaSide:
    world: World

    def campaign_ids(self) -> set[str]:
        return {key.campaign_id for key in self.world.stored}

    def entries(
        self, campaign_id: str, first: str, end: str | None, since: str
    ) -> Iterator[tuple[EntryKey, Stored]]:
        stored, page = self.world.stored, [""] * PAGE
        while len(page) == PAGE:
            self.world.advance(self.world.read_seconds)
            ids = sorted(key.entry_id for key in stored if key.campaign_id == campaign_id)
            page = [each for each in ids if first <= each and (end is None or each < end)][:PAGE]
            keys = [EntryKey(campaign_id, each) for each in page]
            yield from [(key, stored[key]) for key in keys if stored[key].order.updated_at >= since]
            first = f"{page[-1]}\0" if page else first

    def get(self, keys: Sequence[EntryKey]) -> dict[EntryKey, Stored]:
        self.world.advance(self.world.read_seconds)
        return {key: self.world.stored[key] for key in keys if key in self.world.stored}

    def delete_tombstone(self, key: EntryKey, order: Order) -> bool:
        stored = self.world.stored.get(key)
        if stored is None or stored.fields is not None or stored.order != order:
            return False
        del self.world.stored[key]
        self.world.deleted_tombstones.append((key, order))
        return True


@dataclass
class Superseded:
    world: World

    def keep(self, lowerings: Sequence[Lowering], *, acceptance: str, at: str) -> list[Lowering]:
        stored = [each for each in lowerings if self._as_seen(each)]
        self.world.kept |= {
            (each.key, self.world.order(each.key)): self.world.stored[each.key] for each in stored
        }
        return stored

    def lower(self, lowerings: Sequence[Lowering]) -> None:
        for each in filter(self._as_seen, lowerings):
            stored = self.world.stored[each.key]
            custody = {**stored.custody, **each.order.as_fields()}
            self.world.stored[each.key] = replace(stored, order=each.order, custody=custody)

    def _as_seen(self, lowering: Lowering) -> bool:
        stored = self.world.stored.get(lowering.key)
        return stored is not None and stored.fields is not None and stored.custody == lowering.custody


@dataclass
class DeadLetters:
    world: World

    def open_orders(self, keys: Sequence[EntryKey]) -> dict[EntryKey, set[Order]]:
        return {key: self.world.refused[key] for key in keys if key in self.world.refused}


class Replication(MemoryQueue):
    """The replication queue; delivers after `world.deliver_sent_after` seconds, or never."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def send(self, messages: Sequence[Outgoing], *, within_seconds: float | None = None) -> list[SendFailure]:
        world = self._world
        for message in messages:
            hidden = message.delay_seconds
            for wish in sent_items([message]):
                if hidden:
                    world.sent_later.append((wish, hidden))
                else:
                    world.sent.append(wish)
                if world.deliver_sent_after is not None:
                    arrives = hidden + world.deliver_sent_after
                    world.after(arrives, lambda wish=wish: world.replicate(wish))
        return super().send(messages)


def sent_items(messages: Sequence[Outgoing]) -> list[ReplicationItem]:
    """The keys in messages for the replication queue, all of them valid."""
    return [
        ReplicationItem.parse(raw)
        for message in messages
        for raw in decode(message.body, MessageType.REPLICATE).items
    ]
