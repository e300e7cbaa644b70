"""Ports of a check as small classes: they count their calls and fail on demand."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from regworkers_core.adapters.mongo.entrants import EACH, FIELDS, Entrant, FoundEntrants, Trace
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.claim import Claim, TableKey, User
from regworkers_core.domain.eligibility import Fact, FactSource, Known, Missing
from regworkers_core.eligibility.gather import Gatherer
from regworkers_core.eligibility.identity import IdentitySecret
from regworkers_core.settings import EligibilitySettings
from tests.support.in_memory import MemorySecrets

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


class Table:
    """The demand table, with its conditions."""

    def __init__(self) -> None:
        self.items: dict[TableKey, dict[str, Any]] = {}
        self.reads: list[int] = []
        self.within: list[float | None] = []
        self.put_within: list[float | None] = []
        self.trouble: Trouble = no_trouble
        self._lock = threading.Lock()

    def put(self, item: dict[str, Any]) -> None:
        self.items[item["PK"], item["SK"]] = item

    def read(
        self, keys: Sequence[TableKey], *, within_seconds: float | None = None
    ) -> dict[TableKey, dict[str, Any]]:
        self.within.append(within_seconds)
        self.trouble()
        with self._lock:
            self.reads.append(len(keys))
            assert len(keys) == len(set(keys)) <= 100
            return {key: dict(self.items[key]) for key in keys if key in self.items}

    def claim(self, claim: Claim, over: Claim | None, *, within_seconds: float | None = None) -> bool:
        self.trouble()
        with self._lock:
            held = self.items.get(claim.key)
            if (held["token"] if held else None) != (over.token if over else None):
                return False
            self.put(claim.as_item())
            return True

    def put_entry(self, item: dict[str, Any], *, within_seconds: float | None = None) -> bool:
        self.put_within.append(within_seconds)
        self.trouble()
        with self._lock:
            if (item["PK"], item["SK"]) in self.items:
                return False
            self.put(item)
            return True


class Replica:
    """Finds among `entrants` as the adapter does."""

    def __init__(self, *entrants: Entrant) -> None:
        self.entrants = list(entrants)
        self.asked: list[int] = []
        self.within: list[float | None] = []
        self.trouble: Trouble = no_trouble
        self.whole = True

    def find(
        self, traces: set[Trace], each: int = EACH, *, within_seconds: float | None = None
    ) -> FoundEntrants:
        self.within.append(within_seconds)
        self.trouble()
        self.asked.append(len(traces))
        found = [
            entrant
            for entrant in self.entrants
            if any(Trace(entrant.campaign_id, *value) in traces for value in entrant.values.items())
        ]
        counts = Counter(
            Trace(entrant.campaign_id, *value) for entrant in found for value in entrant.values.items()
        )
        return FoundEntrants(found, self.whole and all(counts[trace] < each for trace in traces))


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


def entrant(
    entry_id: str, *, campaign_id: str = "summer", created_at: str = "2026-02-01", **values: str
) -> Entrant:
    """`email`, `unit` and so on, as the replica has them."""
    paths = {path.rpartition(".")[2]: path for path in FIELDS}
    return Entrant(campaign_id, entry_id, created_at, {paths[name]: value for name, value in values.items()})
