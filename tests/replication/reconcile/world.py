"""A demand table, a replica and a replicator that lags, on a clock that moves with every look."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.demand_table import DemandTable, TablePage
from regworkers_core.adapters.mongo import replica
from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.adapters.mongo.entry_documents import Stored, Write, stored_of
from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.adapters.mongo.superseded import SupersededEntries
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
from tests.simulation.servers.mongo import Mongo
from tests.support.entries import item
from tests.support.in_memory import MemoryItems, MemoryLeaseTable, MemoryQueue

OBJECTIVE = 60.0
START = 1_000_000.0
# What one read takes; changes happen in between.
READ_SECONDS = 7.0
PAGE = 2


def entry_key(number: int) -> EntryKey:
    return EntryKey("summer", f"e{number}")


class Documents(MutableMapping[EntryKey, Stored]):
    """The entries of a replica, as far as they are under keys of their own."""

    def __init__(self) -> None:
        self._server, self._always = Mongo(), OpenGate()
        self.collection, self.superseded = (
            self.client(self._always)[name] for name in ("entries", "superseded")
        )

    def client(self, gate: OpenGate) -> Any:
        gate.lock = self._always.lock
        return self._server.client(gate)["replica"]

    def __getitem__(self, key: EntryKey) -> Stored:
        if (document := self.collection.find_one({"_id": key.document_id})) is None:
            raise KeyError(key)
        return stored_of(document)

    def __setitem__(self, key: EntryKey, stored: Stored) -> None:
        order = {} if stored.order == Order() else stored.order.as_fields()
        fields = {
            **(stored.fields or {}),
            "_replication": {**stored.custody, **order} or None,
            "deletedAt": stored.deleted_at,
            "erasedAt": stored.erased_at,
            "_identity": stored.identity,
        }
        document = {name: value for name, value in fields.items() if value is not None}
        document |= {"campaignId": key.campaign_id, "entryId": key.entry_id}
        self.collection.replace_one({"_id": key.document_id}, document, upsert=True)

    def __delitem__(self, key: EntryKey) -> None:
        if not self.collection.delete_one({"_id": key.document_id}).deleted_count:
            raise KeyError(key)

    def __iter__(self) -> Iterator[EntryKey]:
        return iter([EntryKey(each["campaignId"], each["entryId"]) for each in self.collection.find()])

    def __len__(self) -> int:
        return self.collection.count_documents({})


@dataclass
class World:
    """`after` schedules; whatever is due happens before the clock is read by anyone again."""

    now: float = START
    items: MemoryItems = field(default_factory=MemoryItems)
    stored: Documents = field(default_factory=Documents)
    refused: dict[EntryKey, set[Order]] = field(default_factory=dict)
    slept: list[float] = field(default_factory=list)
    deleted_tombstones: list[tuple[EntryKey, Order]] = field(default_factory=list)
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
        writes = Replica(self.stored.collection, dependency("mongo", classify_mongo))
        writes.apply([Write(key, order, fields, "message")], at=iso(self.now), run_id="run")

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
        guard = dependency("mongo", classify_mongo)
        superseded = SupersededEntries(self.stored.collection, self.stored.superseded, guard, keep_days=1.0)
        flow = Reconciliation(
            sides,
            options.pop("queue", Replication(self)),
            settings,
            segments=segments,
            superseded=superseded,
            visibility_seconds=options.pop("visibility_seconds", 60),
            clock=self.clock,
            sleep=self.sleep,
            **options,
        )
        with patch.object(replica, "_RANGE_DOCUMENTS", PAGE):
            return flow.run(Comparing(repair=repair, yes_remove=yes_remove, accept=accept, **part))

    def order(self, key: EntryKey) -> Order:
        return self.stored[key].order

    @property
    def kept(self) -> dict[tuple[EntryKey, Order], Stored]:
        """What an acceptance copied, by key and order."""
        rows = [(row, stored_of(row["former"])) for row in self.stored.superseded.find()]
        return {(EntryKey(row["campaignId"], row["entryId"]), each.order): each for row, each in rows}


class _Slow(OpenGate):
    """Pages are small, and each takes its time before it is read."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def before(self, server: str, operation: str, request: Any) -> None:
        if operation in ("Query", "BatchGetItem", "find"):
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


class ReplicaSide(Replica):
    def __init__(self, world: World) -> None:
        self._world = world
        super().__init__(world.stored.client(_Slow(world))["entries"], dependency("mongo", classify_mongo))

    def delete_tombstone(self, key: EntryKey, order: Order) -> bool:
        deleted = super().delete_tombstone(key, order)
        if deleted:
            self._world.deleted_tombstones.append((key, order))
        return deleted


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
