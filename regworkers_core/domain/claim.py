"""Who has entered, as the demand table remembers it: one item per identity, which at most one entry holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regworkers_core.domain.keys import CAMPAIGN_PREFIX

IDENTITY_PREFIX = "IDENTITY#"
# A claim without an entry is another writer's within this time: longer than any writer goes on trying.
CLAIM_LEASE_SECONDS = 60.0
# How long after its `createdAt` an entry may still land in the demand table. A writer takes `createdAt` right before
# it judges; then come its claims and the put with its retries. It begins no attempt of the put later than
# `CLOCKS_SECONDS` and the longest attempt (`aws.connectTimeoutSeconds` + `eligibility.readSeconds`, 5 s unless set
# otherwise) before the end of this time, and never puts an older entry: a repeat is judged again at its own moment.
# To see every entry that was admitted before a moment, wait this long after it.
WRITE_GRACE_SECONDS = 30.0
# What the clocks of two machines may differ by, and a request may linger on the wire when its sender has given up.
CLOCKS_SECONDS = 3.0
TableKey = tuple[str, str]


def claim_key(campaign_id: str, kind: str, digest: str) -> TableKey:
    """PK and SK of the claim on an identity; `digest` is a keyed hash of its value, so the key does not reveal it."""
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
        """An item of the table. A damaged one counts as free."""
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
