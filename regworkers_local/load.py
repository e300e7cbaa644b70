"""Demo data: realistic entries of two campaigns, written to the demand table, then a share of updates and removals."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from faker import Faker
from pymongo import UpdateOne

from fairdraw.documents import as_document
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.aws.tables import attribute, attributes
from regworkers_core.domain.campaign import RegistrationLog
from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import retry_parts
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.opening import log_open
from regworkers_local.issuer import OF_THIS_MACHINE
from regworkers_local.service_stores import Stores

LOCALES = ("de_DE", "fr_FR", "pl_PL", "ja_JP", "el_GR", "ar_AA", "es_MX", "en_US")
MARKETS = ("berlin", "paris", "warsaw", "tokyo", "athens", "mexico-city", "new-york", "london")
# Faker makes only a thousand names a second, so names come from a pool for each language.
_POOL = 300
# Seats of each market, and those reserved for members of the loyalty programme.
SEATS, LOYAL_SEATS = 100, 20


@dataclass(frozen=True, slots=True)
class DemoCampaign:
    """A campaign as the `campaigns` collection holds it."""

    campaign_id: str
    name: str
    auto_draw: bool = False  # a sensor draws it once it is closed
    logs_registrations: bool = False  # each entry is in a public tree before the draw
    codes_expire: bool = False  # after a day, and the issuer of this machine says which were used
    markets: tuple[str, ...] = MARKETS  # what its entries choose from

    def document(self, opens_at: str = "2026-01-01T00:00:00.000Z") -> dict[str, Any]:
        return {
            "_id": self.campaign_id,
            "slug": self.campaign_id,
            "name": self.name,
            "status": "OPEN",
            "opensAt": opens_at,
            "closesAt": "2099-01-01T00:00:00.000Z",
            "markets": [
                {
                    "marketId": id_,
                    "name": id_.replace("-", " ").title(),
                    "capacity": SEATS,
                    "reserves": [{"segment": "loyal", "seats": LOYAL_SEATS}],
                }
                for id_ in self.markets
            ],
            "autoDraw": self.auto_draw,
            "registration": {
                "log": (RegistrationLog.ON if self.logs_registrations else RegistrationLog.OFF).value
            },
            **(_expiring() if self.codes_expire else {}),
        }


def _expiring() -> dict[str, Any]:
    return {"codes": {"expireAfterHours": 24}, "issuerKeys": [asdict(OF_THIS_MACHINE.key)]}


CAMPAIGNS = (
    DemoCampaign(
        "aurora-world-tour",
        "Aurora – World Tour",
        auto_draw=True,
        logs_registrations=True,
        codes_expire=True,
    ),
    DemoCampaign("harbour-nights", "Harbour Nights – Été"),
)


def user_of(entry: dict[str, Any], number: int) -> dict[str, Any]:
    """The User Service's record of an entry's fan. Every fifth has no verified phone, every twentieth is blocked."""
    return {
        "_id": entry["globalUserId"],
        "verifiedPhone": number % 5 != 4,
        "blocked": number % 20 == 19,
        "region": ("DE", "FR", "PL", "JP")[number % 4],
        "birthDate": f"{1960 + number % 50}-06-15",
    }


class DemoData:
    """Generates entries, deterministic for a `seed` except for the times."""

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._names: list[tuple[str, str]] = []
        self._tags: list[str] = []
        for locale in LOCALES:
            faker = Faker(locale)
            faker.seed_instance(seed)
            self._names += [(faker.first_name(), faker.last_name()) for _ in range(_POOL)]
            self._tags += [faker.ascii_safe_email().split("@")[0] for _ in range(_POOL)]

    def entries(self, count: int, campaigns: Sequence[DemoCampaign], now: float) -> Iterator[dict[str, Any]]:
        """`count` new entries of the campaigns in turn, as plain items of the demand table."""
        for number in range(count):
            yield self.entry(campaigns[number % len(campaigns)], number, now)

    def entry(self, campaign: DemoCampaign, number: int, now: float) -> dict[str, Any]:
        """A new entry at version 1. Some have a member id, a household or a weight."""
        draw = self._random
        index = draw.randrange(len(self._names))
        first, last = self._names[index]
        entry_id = f"{number:07d}-{uuid.UUID(int=draw.getrandbits(128)).hex[:12]}"
        key = EntryKey(campaign.campaign_id, entry_id)
        stamp = iso(now)
        item: dict[str, Any] = {
            "PK": key.pk,
            "SK": key.sk,
            "entityType": "ENTRY",
            "campaignId": campaign.campaign_id,
            "entryId": entry_id,
            "ref": uuid.UUID(int=draw.getrandbits(128)).hex,
            "email": f"{self._tags[index]}{number}@example.com",
            "firstName": first,
            "lastName": last,
            "globalUserId": f"gu-{draw.getrandbits(40):010x}",
            "markets": draw.sample(campaign.markets, k=draw.randint(1, min(4, len(campaign.markets)))),
            "attributes": {
                "source": draw.choice(("web", "ios", "android")),
                "newsletter": draw.random() < 0.4,
            },
            "version": 1,
            "createdAt": stamp,
            "updatedAt": stamp,
            "correlationId": uuid.UUID(int=draw.getrandbits(128)).hex,
            "needsReplication": True,
        }
        if draw.random() < 0.3:
            item["memberId"] = f"m-{draw.getrandbits(32):08x}"
        if draw.random() < 0.2:
            item["unit"] = f"household-{draw.randrange(10_000)}"
        if draw.random() < 0.1:
            item["segments"], item["weight"] = ["loyal"], draw.randint(2, 8)
        return item


BATCH = 25
# The embedded server is not faster with more.
THREADS = 4
# The User Service knows the fans of this number of first entries.
USERS = 100


@dataclass(slots=True)
class Loaded:
    """What was written so far."""

    inserted: int = 0  # entries
    updated: int = 0  # entries
    removed: int = 0  # entries
    seconds: float = 0.0
    # Keys (`PK`, `SK`) of entries that exist at the end.
    live: list[tuple[str, str]] = field(default_factory=list)
    # A globalUserId that the local User Service knows.
    example_user: str | None = None

    def as_dict(self) -> dict[str, Any]:
        counts = as_document(self, "inserted", "updated", "removed")
        return counts | {"live": len(self.live), "seconds": round(self.seconds, 1)}


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to write."""

    entries: int = 20_000
    updates: float = 0.1  # a share of the entries
    removals: float = 0.02  # a share of the entries
    per_second: float = 0.0  # 0: as fast as possible
    seed: int = 7


class Loader:
    """Writes a plan. Other threads may read the progress in `loaded`."""

    def __init__(
        self, runtime: Runtime, plan: LoadPlan, campaigns: Sequence[DemoCampaign] = CAMPAIGNS
    ) -> None:
        self._runtime, self._plan, self._campaigns = runtime, plan, campaigns
        self._table = runtime.names.demand_table
        # The last and the second, for updates.
        self._markets = {
            EntryKey(each.campaign_id, "").pk: list(dict.fromkeys((each.markets[-1], each.markets[:2][-1])))
            for each in campaigns
        }
        self._lock = threading.Lock()
        self._data = DemoData(plan.seed)
        self.loaded = Loaded()

    def insert_first(self) -> EntryKey:
        """Write the campaigns and only the first entry; `run` continues from there."""
        self.write_campaigns()
        self._write([0])
        pk, sk = self.loaded.live[0]
        key = EntryKey.parse(pk, sk)
        if key is None:
            raise ValueError("demo data made a key that is not an entry's")
        return key

    def run(self, stop: StopSignal, on_progress: Progress = no_progress) -> Loaded:
        """Insert, then update and remove. Raises TransientFailure when DynamoDB stops answering."""
        started = time.monotonic()
        if not self.loaded.inserted:
            self.write_campaigns()
        self._insert(stop, started, on_progress)
        self._change(stop)
        self.loaded.seconds = time.monotonic() - started
        return self.loaded

    def write_campaigns(self) -> None:
        """Create missing campaigns, and log what is open; existing ones stay as they are."""
        collection = self._runtime.database["campaigns"]
        for campaign in self._campaigns:
            # Open before the first entry.
            document = campaign.document(opens_at=iso(time.time()))
            self._runtime.dependency("mongo").call(
                collection.update_one, {"_id": document["_id"]}, {"$setOnInsert": document}, upsert=True
            )
            self._runtime.campaign_cache.forget(read_campaign(document))
        log_open(self._runtime)

    def _insert(self, stop: StopSignal, started: float, on_progress: Progress) -> None:
        plan = self._plan

        def batches() -> Iterator[list[int]]:
            numbers = iter(range(self.loaded.inserted, plan.entries))
            while batch := list(islice(numbers, BATCH)):
                yield batch

        def write(numbers: list[int]) -> None:
            if not stop.is_set:
                self._pace(started, stop)
                self._write(numbers)
                on_progress(self.loaded.inserted, plan.entries, "entries")

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(write, batches()))

    def _write(self, numbers: Sequence[int]) -> None:
        with self._lock:
            # One clock reading per batch, at the time of its write.
            now = time.time()
            items = [
                self._data.entry(self._campaigns[number % len(self._campaigns)], number, now)
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
        collection = Stores.of(self._runtime.mongo, self._runtime.names.prefix).users
        writes = [UpdateOne({"_id": user["_id"]}, {"$set": user}, upsert=True) for user in users]
        self._runtime.dependency("mongo").call(collection.bulk_write, writes, ordered=False)
        self.loaded.example_user = users[0]["_id"]

    def _pace(self, started: float, stop: StopSignal) -> None:
        if self._plan.per_second:
            due = started + self.loaded.inserted / self._plan.per_second
            stop.wait(max(0.0, due - time.monotonic()))

    def _put(self, requests: list[dict[str, Any]]) -> None:
        dynamodb = self._runtime.dependency("dynamodb")

        def put(pending: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
            asked = {self._table: pending}
            answer = dynamodb.call(self._runtime.dynamodb.batch_write_item, RequestItems=asked)
            left: Sequence[dict[str, Any]] = answer.get("UnprocessedItems", {}).get(self._table, [])
            return left

        if left := retry_parts(requests, put, dynamodb.policy, time.sleep):
            raise TransientFailure("dynamodb", f"{len(left)} items stayed unprocessed")

    def _change(self, stop: StopSignal) -> None:
        """Update the first live entries (every tenth twice) and remove the last."""
        plan, loaded = self._plan, self.loaded
        keys = sorted(loaded.live)
        updates = keys[: round(plan.entries * plan.updates)]
        removals = keys[len(keys) - round(plan.entries * plan.removals) :] if plan.removals else []

        def change(key: tuple[str, str]) -> None:
            if not stop.is_set:
                self._update(key)
                with self._lock:
                    loaded.updated += 1

        def remove(key: tuple[str, str]) -> None:
            if not stop.is_set:
                self._runtime.dependency("dynamodb").call(
                    self._runtime.dynamodb.delete_item, TableName=self._table, Key=_key(key)
                )
                with self._lock:
                    loaded.removed += 1

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(change, [*updates, *updates[::10]]))
            list(pool.map(remove, removals))
        gone = set(removals[: loaded.removed])
        loaded.live = [key for key in keys if key not in gone]

    def _update(self, key: tuple[str, str]) -> None:
        """Change an entry: new version, updatedAt and markets, and the flag is set."""
        self._runtime.dependency("dynamodb").call(
            self._runtime.dynamodb.update_item,
            TableName=self._table,
            Key=_key(key),
            UpdateExpression="SET updatedAt = :at, needsReplication = :yes, markets = :markets ADD version :one",
            ConditionExpression="attribute_exists(PK)",
            ExpressionAttributeValues={
                ":at": {"S": iso(time.time())},
                ":yes": {"BOOL": True},
                ":markets": attribute(self._markets[key[0]]),
                ":one": {"N": "1"},
            },
        )


def _key(key: tuple[str, str]) -> dict[str, Any]:
    return attributes({"PK": key[0], "SK": key[1]})
