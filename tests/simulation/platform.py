"""The platform around the product: writers of the demand table, operators' acts, and what is true of each entry.

Nothing here uses the product's rules: what an entry should become is kept beside what was written.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from boto3.dynamodb.types import TypeSerializer

from fairdraw.terms import seconds
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.operations.erasure.erase import Eraser
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import registry
from regworkers_core.selection.campaigns.opening import log_open
from tests.simulation.plan import Change, Plan
from tests.simulation.scheduler import EPOCH

if TYPE_CHECKING:
    from tests.simulation.world import World

CAMPAIGN, OTHER = "spring", "winter"
# Seconds by which the clock of a writer is off at most.
WRITERS_SKEW = 2.0
DAY = 86_400.0
# Fields of an item that are not of the entry.
_OWN = {"PK", "SK", "entityType", "needsReplication", "replicatedVersion", "replicatedAt", "ttl"}
_CAMPAIGN_KEYS = {f"CAMPAIGN#{CAMPAIGN}", f"CAMPAIGN#{OTHER}"}
Order = tuple[str, int, str]
_serialize = TypeSerializer().serialize


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def attributes(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _serialize(value) for name, value in item.items()}


def open_campaign(
    runtime: Runtime,
    campaign_id: str,
    opens: float,
    closes: float,
    markets: Sequence[Mapping[str, Any]],
    rules: Mapping[str, Any] | None = None,
) -> None:
    """A campaign that logs registrations, as an operator opens it; `rules` are other fields of its definition."""
    definition = {
        "campaignId": campaign_id,
        "name": campaign_id.capitalize(),
        "opensAt": stamp(opens),
        "closesAt": stamp(closes),
        "markets": [*markets],
        "registration": {"log": "on"},
        **(rules or {}),
    }
    registry.create(runtime, definition)
    registry.advance(runtime, campaign_id, CampaignStatus.OPEN, reason="play", run_id="play")
    log_open(runtime)


class Platform:
    """By the ids of entries: `live` has the orders of the valid states that each ever had, `gone` those of the states
    in which it was removed, `invalid` those of states that replication must refuse.
    """

    def __init__(self, world: World, plan: Plan) -> None:
        self.world, self.plan = world, plan
        self.random = world.scheduler.random
        self.runtime = world.runtime()
        self.names = self.runtime.names
        self.items: dict[int, dict[str, Any]] = {}
        # By entry: the greatest order that it ever had.
        self._latest: dict[int, Order] = {}
        # By entry that is gone: when a later life begins at the earliest.
        self._not_before: dict[int, str] = {}
        self.live: dict[str, set[Order]] = {}
        self.gone: dict[str, set[Order]] = {}
        self.invalid: dict[str, set[Order]] = {}
        self.refused_messages = self.refused_events = self.requests = 0
        # What a restore goes back to: at some times, what was written and what the table held.
        self._snapshots: list[tuple[float, dict[int, dict[str, Any]], list[Mapping[str, Any]]]] = []

    def prepare(self) -> None:
        """A campaign that is known; entries of the other one are saved all the same."""
        if self.plan.registering:
            market = {"marketId": "berlin", "name": "Berlin", "capacity": 1}
            open_campaign(self.runtime, CAMPAIGN, EPOCH, EPOCH + DAY, [market])
            return
        self.runtime.database["campaigns"].insert_one(
            {"_id": CAMPAIGN, "slug": CAMPAIGN, "name": "Spring", "status": "OPEN"}
        )

    def id_of(self, entry: int) -> str:
        return f"{CAMPAIGN if entry % 4 else OTHER}:e{entry}"

    def write(self, tell: Callable[[str], None]) -> None:
        scheduler = self.world.scheduler
        for change in self.plan.changes:
            scheduler.sleep(max(0.0, change.at - self.world.elapsed))
            tell(f"writes {change.op} {self.id_of(change.entry)}")
            getattr(self, f"_{change.op}")(change)
            if not self._snapshots or self.world.elapsed - self._snapshots[-1][0] > 2.0:
                self._snapshots.append(
                    (self.world.elapsed, copy.deepcopy(self.items), self._stored(ours=True))
                )

    def _stored(self, *, ours: bool) -> list[Mapping[str, Any]]:
        """What the table holds of these entries, or of the draw's."""
        return [item for item in self.world.raw_items() if (item["PK"]["S"] in _CAMPAIGN_KEYS) is ours]

    # Changes

    def _put(self, change: Change) -> None:
        self._save(change.entry, self._next(change.entry))

    def _invalid(self, change: Change) -> None:
        item = self._next(change.entry)
        del item["email"]
        self._save(change.entry, item)

    def _unbumped(self, change: Change) -> None:
        item = self.items.get(change.entry)
        if item is None or "email" not in item:
            return
        self._save(change.entry, {**item, "needsReplication": True, "attributes": self._attributes()})

    def _flag(self, change: Change) -> None:
        if change.entry in self.items:
            self.runtime.dynamodb.update_item(
                TableName=self.names.demand_table,
                Key=attributes(self._key(change.entry)),
                UpdateExpression="SET needsReplication = :true",
                ExpressionAttributeValues={":true": {"BOOL": True}},
            )

    def _move(self, change: Change) -> None:
        unit = f"house-{self.random.randrange(4)}" if self.random.random() < 0.8 else None
        item = self._next(change.entry)
        self._save(change.entry, {**item, "unit": unit} if unit else item)

    def _erase(self, change: Change) -> None:
        """No later life may have begun before."""
        item = self.items.pop(change.entry, None)
        if item is None:
            return
        self._note_removal(change.entry, item)
        eraser = Eraser(self.runtime, [key := EntryKey(*self.id_of(change.entry).split(":"))])
        while not self._is_erased(change.entry, key, eraser):
            # As the command says: repeat it.
            self.world.scheduler.sleep(1.0)
        self.world.reached["erased"] += 1

    def _is_erased(self, entry: int, key: EntryKey, eraser: Eraser) -> bool:
        try:
            report = eraser.run(key)
            eraser.end([report])
        except TransientFailure:
            return False
        self._not_before[entry] = _after(report.erased_at)
        return report.complete or not report.known

    def _remove(self, change: Change) -> None:
        item = self.items.pop(change.entry, None)
        if item is None:
            return
        self._note_removal(change.entry, item)
        self.runtime.dynamodb.delete_item(
            TableName=self.names.demand_table, Key=attributes(self._key(change.entry))
        )

    def _flicker(self, change: Change) -> None:
        self._remove(change)
        for _ in range(2):
            self._put(change)
            self.world.scheduler.sleep(self.random.uniform(0.2, 1.2))
            self._remove(change)

    def _expire(self, change: Change) -> None:
        item = self.items.pop(change.entry, None)
        if item is None:
            return
        self._note_removal(change.entry, item)
        self.world.servers.tables.expire_item(
            self.world.calm, self.names.demand_table, attributes(self._key(change.entry))
        )

    def _request(self, change: Change) -> None:
        """A key that is queued directly, also of an entry that there is not."""
        self.requests += 1
        key = self._key(change.entry if self.random.random() < 0.7 else 90 + change.entry)
        item = {
            "pk": key["PK"],
            "sk": key["SK"],
            "op": "upsert",
            "version": 0,
            "createdAt": "",
            "updatedAt": "",
        }
        body = {"type": "entries.replicate", "version": 1, "correlationId": "by-hand", "items": [item]}
        self._send(self.names.replication_queue, orjson.dumps(body).decode())

    def _message(self, change: Change) -> None:
        self.refused_messages += 1
        self._send(self.names.replication_queue, "{}")

    def _event(self, change: Change) -> None:
        self.refused_events += 1
        body = {"type": "analytics.publish", "version": 1, "correlationId": "bad", "items": [{"id": "none"}]}
        self._send(self.names.analytics_queue, orjson.dumps(body).decode())

    def restore(self, to: float) -> None:
        """The table as it was at `to` seconds, as another table with another stream takes its place."""
        kept = [(items, stored) for at, items, stored in self._snapshots if at <= to]
        items, stored = kept[-1] if kept else ({}, [])
        self.items = copy.deepcopy(items)
        self.world.replace_table(self.names.demand_table, [*self._stored(ours=False), *stored])

    # Items

    def _next(self, entry: int) -> dict[str, Any]:
        # Writers are on hosts of their own, whose clocks differ by seconds.
        now = stamp(self.world.scheduler.time + self.random.uniform(-WRITERS_SKEW, WRITERS_SKEW))
        # What was erased is never taken for a later life.
        now = max(now, self._not_before.get(entry, ""))
        old = self.items.get(entry)
        if old is None and (now, 0, "") <= self._latest.get(entry, ("", 0, "")):
            # A life that begins before the one that was removed: the contract asks for a later createdAt.
            self.world.behind.add(self.id_of(entry))
        campaign_id, _, entry_id = self.id_of(entry).partition(":")
        return {
            **self._key(entry),
            "entityType": "ENTRY",
            "campaignId": campaign_id,
            "entryId": entry_id,
            "ref": f"ref-{entry}",
            "email": f"fan{entry}@example.com",
            "markets": ["berlin", "paris"],
            "attributes": self._attributes(),
            "version": 1 if old is None else old["version"] + 1,
            "createdAt": now if old is None else old["createdAt"],
            "updatedAt": now,
            "correlationId": f"corr-{entry}",
            "needsReplication": True,
        }

    def _attributes(self) -> dict[str, str]:
        return {"note": str(self.random.getrandbits(32))}

    def _key(self, entry: int) -> dict[str, str]:
        campaign_id, _, entry_id = self.id_of(entry).partition(":")
        return {"PK": f"CAMPAIGN#{campaign_id}", "SK": f"ENTRY#{entry_id}"}

    def _save(self, entry: int, item: dict[str, Any]) -> None:
        self.items[entry] = item
        self._latest[entry] = max(order_of(item), self._latest.get(entry, ("", 0, "")))
        self._note(entry, item)
        self.runtime.dynamodb.put_item(TableName=self.names.demand_table, Item=attributes(item))

    def _note(self, entry: int, item: Mapping[str, Any]) -> None:
        (self.live if "email" in item else self.invalid).setdefault(self.id_of(entry), set()).add(
            order_of(item)
        )

    def _note_removal(self, entry: int, item: Mapping[str, Any]) -> None:
        self.gone.setdefault(self.id_of(entry), set()).add(order_of(item))
        if self.plan.registering:
            # Other plays have lives that begin before the one that was removed, for an operator to settle.
            self._not_before[entry] = _after(self._latest[entry][0])

    def _send(self, queue: str, body: str) -> None:
        url = self.runtime.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        self.runtime.sqs.send_message(QueueUrl=url, MessageBody=body)
        self.world.arrived()


def _after(at: str) -> str:
    return stamp((seconds(at) or 0.0) + 0.001)


def order_of(item: Mapping[str, Any]) -> Order:
    return item.get("createdAt", ""), int(item.get("version", 0)), item.get("updatedAt", "")


def fields_of(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in _OWN}
