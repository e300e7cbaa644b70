"""Who has entered, as the demand table remembers it: one item per identity, which at most one entry holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regworkers_core.domain.keys import CAMPAIGN_PREFIX

IDENTITY_PREFIX = "IDENTITY#"
TableKey = tuple[str, str]


def claim_key(campaign_id: str, kind: str, digest: str) -> TableKey:
    """PK and SK of the claim on an identity; `digest` is a keyed hash of its value, so the key tells nobody who."""
    return CAMPAIGN_PREFIX + campaign_id, f"{IDENTITY_PREFIX}{kind}#{digest}"


@dataclass(frozen=True, slots=True)
class Claim:
    """`entry_id` holds the identity since `claimed_at` (epoch seconds). `token` is new with every write, so that a
    condition on it means: exactly as it was read.
    """

    key: TableKey
    entry_id: str
    claimed_at: float
    token: str

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Claim:
        """An item of the table. One that is damaged counts as held by nobody since ever."""
        entry_id, claimed_at, token = (item.get(name) for name in ("entryId", "claimedAt", "token"))
        return cls(
            (item["PK"], item["SK"]),
            entry_id if isinstance(entry_id, str) else "",
            float(claimed_at) if isinstance(claimed_at, int | float) else 0.0,
            token if isinstance(token, str) else "",
        )

    def as_item(self) -> dict[str, Any]:
        return {
            "PK": self.key[0],
            "SK": self.key[1],
            "entityType": "IDENTITY",
            "campaignId": self.key[0].removeprefix(CAMPAIGN_PREFIX),
            "entryId": self.entry_id,
            "claimedAt": self.claimed_at,
            "token": self.token,
        }
