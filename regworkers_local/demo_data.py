"""Realistic entries: names of several languages, mail addresses, markets, segments and households."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from faker import Faker

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.timestamps import iso

LOCALES = ("de_DE", "fr_FR", "pl_PL", "ja_JP", "el_GR", "ar_AA", "es_MX", "en_US")
MARKETS = ("berlin", "paris", "warsaw", "tokyo", "athens", "mexico-city", "new-york", "london")
# Faker makes a thousand names a second; a pool for each language is drawn from instead.
_POOL = 300


# Seats of each market, and those that members of the loyalty programme get first.
SEATS, LOYAL_SEATS = 100, 20


@dataclass(frozen=True, slots=True)
class DemoCampaign:
    """A campaign as the `campaigns` collection holds it; with `auto_draw` a sensor draws it once it is closed."""

    campaign_id: str
    name: str
    auto_draw: bool = False

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
                for id_ in MARKETS
            ],
            "autoDraw": self.auto_draw,
        }


CAMPAIGNS = (
    DemoCampaign("aurora-world-tour", "Aurora – World Tour", auto_draw=True),
    DemoCampaign("harbour-nights", "Harbour Nights – Été"),
)


def user_of(entry: dict[str, Any], number: int) -> dict[str, Any]:
    """What the User Service knows of an entry's fan: every fifth has no verified phone, every twentieth is blocked."""
    return {
        "_id": entry["globalUserId"],
        "verifiedPhone": number % 5 != 4,
        "blocked": number % 20 == 19,
        "region": ("DE", "FR", "PL", "JP")[number % 4],
        "birthDate": f"{1960 + number % 50}-06-15",
    }


class DemoData:
    """Deterministic for a `seed`, except for the times."""

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
        """`count` new entries over the campaigns in turn, as plain items of the demand table."""
        for number in range(count):
            yield self.entry(campaigns[number % len(campaigns)].campaign_id, number, now)

    def entry(self, campaign_id: str, number: int, now: float) -> dict[str, Any]:
        """One new entry at version 1; some have a member id, a household or a weight, some have none."""
        draw = self._random
        index = draw.randrange(len(self._names))
        first, last = self._names[index]
        entry_id = f"{number:07d}-{uuid.UUID(int=draw.getrandbits(128)).hex[:12]}"
        key = EntryKey(campaign_id, entry_id)
        stamp = iso(now)
        item: dict[str, Any] = {
            "PK": key.pk,
            "SK": key.sk,
            "entityType": "ENTRY",
            "campaignId": campaign_id,
            "entryId": entry_id,
            "ref": uuid.UUID(int=draw.getrandbits(128)).hex,
            "email": f"{self._tags[index]}{number}@example.com",
            "firstName": first,
            "lastName": last,
            "globalUserId": f"gu-{draw.getrandbits(40):010x}",
            "markets": draw.sample(MARKETS, k=draw.randint(1, 4)),
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
