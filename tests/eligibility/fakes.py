"""Ports of a check, over simulated servers where these are stores: they count their calls and fail on demand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from regworkers_core.adapters.aws.claims import EntryClaims
from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.tables import Item, attributes, plain_item
from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.adapters.mongo.entrants import EACH, Entrants, FoundEntrants, Trace
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.claim import Claim, TableKey, User
from regworkers_core.domain.eligibility import Fact, FactSource, Known, Missing
from regworkers_core.eligibility.gather import Gatherer
from regworkers_core.eligibility.identity import IdentitySecret
from regworkers_core.settings import EligibilitySettings
from tests.adapters.fakes import dependency
from tests.simulation.gate import OpenGate
from tests.simulation.servers.mongo import Mongo
from tests.support.in_memory import MemoryItems, MemorySecrets

NOW = 1_782_864_000.0
Trouble = Callable[[], object]


def no_trouble() -> None:
    """Answer at once."""


class Campaigns:
    def __init__(self, *campaigns: Campaign) -> None:
        self.by_name = {name: each for each in campaigns for name in (each.campaign_id, each.slug)}
        self.asked: list[str] = []
        self.missing: Missing | None = None
        self.trouble: Trouble = no_trouble
        self.dependency = "mongo"
        self.source = FactSource.DATABASE

    def find(self, slug_or_id: str) -> Fact[Campaign | None]:
        self.asked.append(slug_or_id)
        self.trouble()
        return self.missing or Known(self.by_name.get(slug_or_id), self.source)


class Table(EntryClaims):
    """The demand table in memory; `entries` are those of its `items` that are entries."""

    def __init__(self) -> None:
        self.entries = MemoryItems()
        self._puts = self.entries.client(OpenGate())
        self.reads: list[int] = []
        self.within: list[float | None] = []
        self.put_within: list[float | None] = []
        self.trouble: Trouble = no_trouble
        super().__init__(self._puts, dependency("dynamodb", classify_aws("dynamodb")), self.entries.name)

    @property
    def items(self) -> dict[TableKey, Item]:
        stored = map(plain_item, self.entries.account.tables.table(self.table).items())
        return {(item["PK"], item["SK"]): item for item in stored}

    def put(self, item: Item) -> None:
        self._puts.put_item(TableName=self.table, Item=attributes(item))

    def read(self, keys: Sequence[TableKey], *, within_seconds: float | None = None) -> dict[TableKey, Item]:
        self.within.append(within_seconds)
        self.trouble()
        self.reads.append(len(keys))
        return super().read(keys, within_seconds=within_seconds)

    def claim(self, claim: Claim, over: Claim | None, *, within_seconds: float | None = None) -> bool:
        self.trouble()
        return super().claim(claim, over, within_seconds=within_seconds)

    def put_entry(self, item: Item, *, within_seconds: float | None = None) -> bool:
        self.put_within.append(within_seconds)
        self.trouble()
        return super().put_entry(item, within_seconds=within_seconds)


class Replica(Entrants):
    def __init__(self) -> None:
        self.asked: list[int] = []
        self.within: list[float | None] = []
        self.trouble: Trouble = no_trouble
        entries = Mongo().client(OpenGate())["replica"]["entries"]
        super().__init__(entries, dependency("mongo", classify_mongo))

    def put(self, entry_id: str, *, campaign_id: str = "summer", **values: str) -> None:
        """`email`, `unit` and so on."""
        entry: dict[str, Any] = {"campaignId": campaign_id, "entryId": entry_id, **values}
        if email := entry.pop("email", None):
            entry["_identity"] = {"email": email}
        self._collection.insert_one({"_id": f"{campaign_id}:{entry_id}", **entry})

    def find(
        self, traces: Collection[Trace], each: int = EACH, *, within_seconds: float | None = None
    ) -> FoundEntrants:
        self.within.append(within_seconds)
        self.trouble()
        self.asked.append(len(traces))
        return super().find(traces, each, within_seconds=within_seconds)


class Users:
    def __init__(self, **records: User) -> None:
        self.records = records
        self.asked: list[str] = []
        self.trouble: Trouble = no_trouble

    def get(self, global_user_id: str) -> User | None:
        self.asked.append(global_user_id)
        self.trouble()
        return self.records.get(global_user_id)


class Secrets(MemorySecrets):
    def __init__(self) -> None:
        super().__init__()
        self.trouble: Trouble = no_trouble
        self.gets = 0

    def get(self, name: str, *, previous: bool = False) -> str | None:
        self.gets += 1
        self.trouble()
        return super().get(name, previous=previous)


class World:
    """A gatherer over all of them."""

    def __init__(self, *campaigns: Campaign, campaign_seconds: float = 6.0, **limits: Any) -> None:
        self.campaigns, self.table, self.replica = Campaigns(*campaigns), Table(), Replica()
        self.users, self.secrets, self.now = Users(), Secrets(), NOW
        self.secret = IdentitySecret(self.secrets, entropy=bytes)
        self.gatherer = Gatherer(
            self.campaigns,
            self.table,
            self.replica,
            lambda: self.users,
            self.secret,
            settings=EligibilitySettings(**limits),
            campaign_seconds=campaign_seconds,
        )
