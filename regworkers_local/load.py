"""Demo data into the demand table: new entries, then a share of updates and removals."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pymongo import UpdateOne

from regworkers_core.adapters.aws.tables import attribute, attributes
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.secrets import make_secret
from regworkers_local.demo_data import CAMPAIGNS, DemoCampaign, DemoData, user_of
from regworkers_local.services.stores import Stores

BATCH = 25
# The embedded server answers no faster with more.
THREADS = 4
_MAX_ROUNDS = 8
# Fans of the first so many entries that the User Service knows: some to look at.
USERS = 100


@dataclass(slots=True)
class Loaded:
    """What was written so far; `live` are the keys (`PK`, `SK`) that stand at the end."""

    inserted: int = 0
    updated: int = 0
    removed: int = 0
    seconds: float = 0.0
    live: list[tuple[str, str]] = field(default_factory=list)
    # A globalUserId that the User Service on this machine knows.
    example_user: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "inserted": self.inserted,
            "updated": self.updated,
            "removed": self.removed,
            "live": len(self.live),
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """`updates` and `removals` are shares of `entries`; `per_second` 0 means as fast as it goes."""

    entries: int = 20_000
    updates: float = 0.1
    removals: float = 0.02
    per_second: float = 0.0
    seed: int = 7


class Loader:
    """Writes a plan; `loaded` grows while it runs and may be read from another thread."""

    def __init__(
        self, runtime: Runtime, plan: LoadPlan, campaigns: Sequence[DemoCampaign] = CAMPAIGNS
    ) -> None:
        self._runtime, self._plan, self._campaigns = runtime, plan, campaigns
        self._table = runtime.names.demand_table
        self._lock = threading.Lock()
        self._data = DemoData(plan.seed)
        self.loaded = Loaded()

    def insert_first(self) -> EntryKey:
        """The campaigns and the first entry, alone: `run` goes on from there."""
        self._write_campaigns()
        self._write([0])
        pk, sk = self.loaded.live[0]
        key = EntryKey.parse(pk, sk)
        if key is None:
            raise ValueError("demo data made a key that is not an entry's")
        return key

    def run(self, stop: StopSignal, on_progress: Callable[[Loaded], None] = lambda _loaded: None) -> Loaded:
        """Insert, then update and remove. Raises TransientFailure when DynamoDB stops answering."""
        started = time.monotonic()
        if not self.loaded.inserted:
            self._write_campaigns()
        self._insert(stop, started, on_progress)
        self._change(stop, on_progress)
        self.loaded.seconds = time.monotonic() - started
        return self.loaded

    def _write_campaigns(self) -> None:
        """Those that are not there yet; one that was closed or drawn stays so. The commitment to the secret of
        their draw comes before they open.
        """
        collection = self._runtime.database["campaigns"]
        for campaign in self._campaigns:
            now = time.time()
            # Open for the first entry already, and not before the commitment.
            document = campaign.document(opens_at=iso(now + 0.001))
            commitment = make_secret(self._runtime, campaign.campaign_id)
            document["draw"] = {"commitment": commitment, "committedAt": iso(now)}
            self._runtime.dependency("mongo").call(
                collection.update_one, {"_id": document["_id"]}, {"$setOnInsert": document}, upsert=True
            )
            self._runtime.campaign_cache.forget(Campaign.parse(document))

    def _insert(self, stop: StopSignal, started: float, on_progress: Callable[[Loaded], None]) -> None:
        plan = self._plan

        def batches() -> Iterator[list[int]]:
            numbers = iter(range(self.loaded.inserted, plan.entries))
            while batch := list(islice(numbers, BATCH)):
                yield batch

        def write(numbers: list[int]) -> None:
            if not stop.is_set:
                self._pace(started, stop)
                self._write(numbers)
                on_progress(self.loaded)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(write, batches()))

    def _write(self, numbers: Sequence[int]) -> None:
        with self._lock:
            # One clock reading per batch: an entry is created when it is written.
            now = time.time()
            items = [
                self._data.entry(self._campaigns[number % len(self._campaigns)].campaign_id, number, now)
                for number in numbers
            ]
        self._put([{"PutRequest": {"Item": attributes(item)}} for item in items])
        known = [user_of(item, number) for item, number in zip(items, numbers, strict=True) if number < USERS]
        if known:
            self._write_users(known)
        with self._lock:
            self.loaded.inserted += len(items)
            self.loaded.live += [(item["PK"], item["SK"]) for item in items]

    def _write_users(self, users: Sequence[dict[str, Any]]) -> None:
        """What the User Service on this machine knows."""
        collection = Stores.of(self._runtime.mongo, self._runtime.names.prefix).users
        writes = [UpdateOne({"_id": user["_id"]}, {"$set": user}, upsert=True) for user in users]
        self._runtime.dependency("mongo").call(collection.bulk_write, writes, ordered=False)
        self.loaded.example_user = users[0]["_id"]

    def _pace(self, started: float, stop: StopSignal) -> None:
        if self._plan.per_second:
            due = started + self.loaded.inserted / self._plan.per_second
            stop.wait(max(0.0, due - time.monotonic()))

    def _put(self, requests: list[dict[str, Any]]) -> None:
        pending = requests
        for attempt in range(1, _MAX_ROUNDS):
            answer = self._runtime.dependency("dynamodb").call(
                self._runtime.dynamodb.batch_write_item, RequestItems={self._table: pending}
            )
            pending = answer.get("UnprocessedItems", {}).get(self._table, [])
            if not pending:
                return
            time.sleep(self._runtime.dependencies.policy.backoff(attempt))
        raise TransientFailure("dynamodb", f"{len(pending)} items stayed unprocessed")

    def _change(self, stop: StopSignal, on_progress: Callable[[Loaded], None]) -> None:
        """The first live entries are updated (every tenth twice), the last are removed."""
        plan, loaded = self._plan, self.loaded
        keys = sorted(loaded.live)
        updates = keys[: round(plan.entries * plan.updates)]
        removals = keys[len(keys) - round(plan.entries * plan.removals) :] if plan.removals else []

        def change(key: tuple[str, str]) -> None:
            if not stop.is_set:
                self._update(key)
                with self._lock:
                    loaded.updated += 1
                on_progress(loaded)

        def remove(key: tuple[str, str]) -> None:
            if not stop.is_set:
                self._runtime.dependency("dynamodb").call(
                    self._runtime.dynamodb.delete_item, TableName=self._table, Key=_key(key)
                )
                with self._lock:
                    loaded.removed += 1
                on_progress(loaded)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(change, [*updates, *updates[::10]]))
            list(pool.map(remove, removals))
        gone = set(removals[: loaded.removed])
        loaded.live = [key for key in keys if key not in gone]

    def _update(self, key: tuple[str, str]) -> None:
        """A business change: version and updatedAt move, the flag is set, the markets are turned round."""
        self._runtime.dependency("dynamodb").call(
            self._runtime.dynamodb.update_item,
            TableName=self._table,
            Key=_key(key),
            UpdateExpression="SET updatedAt = :at, needsReplication = :yes, markets = :markets ADD version :one",
            ConditionExpression="attribute_exists(PK)",
            ExpressionAttributeValues={
                ":at": {"S": iso(time.time())},
                ":yes": {"BOOL": True},
                ":markets": attribute(["london", "paris"]),
                ":one": {"N": "1"},
            },
        )


def _key(key: tuple[str, str]) -> dict[str, Any]:
    return attributes({"PK": key[0], "SK": key[1]})
