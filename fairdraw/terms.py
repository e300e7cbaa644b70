"""The terms of a draw that all parts share: ids, times, outcomes, and the rounds of the public beacon."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

# Every id that a draw hashes or names: refs, units, markets, segments, campaigns.
SELECTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# The market id of what concerns no market: messages to those who did not win.
NON_WINNERS = "-"


def is_selection_id(text: str) -> bool:
    """Whether the whole text is such an id."""
    return SELECTION_ID.fullmatch(text) is not None


def is_market_id(text: str) -> bool:
    """Whether a market of a draw may have this id."""
    return text != NON_WINNERS and is_selection_id(text)


class Outcome(StrEnum):
    """What a draw decides for each leaf."""

    WINNER = "WINNER"
    WAITLIST = "WAITLIST"
    UNSELECTED = "UNSELECTED"
    HOUSEHOLD_LIMIT = "HOUSEHOLD_LIMIT"
    STRUCK = "STRUCK"
    # A winner of an earlier phase who let the seat lapse; also the reason in strikes.txt.
    UNCLAIMED = "UNCLAIMED"


def iso(seconds: float) -> str:
    """`seconds` since the epoch as `2026-11-25T08:15:00.123Z`."""
    stamp = datetime.fromtimestamp(seconds, UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{stamp.microsecond // 1000:03d}Z"


def seconds(text: str) -> float | None:
    """Seconds since the epoch, or None when `text` is not an ISO-8601 time. A time without zone is UTC."""
    try:
        stamp = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()


# Least time between the commit and the round, so that no one can know the round when the manifest is fixed.
LEAD_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Chain:
    """One drand chain."""

    # A compressed G2 point, in hex.
    public_key: str
    group_hash: str
    beacon_id: str
    # When round 1 was signed, in whole seconds since the epoch.
    genesis: int
    # Seconds between two rounds.
    period: int

    @property
    def hash(self) -> str:
        """The chain hash that this description has: the name under which a manifest commits to the chain."""
        return hashlib.sha256(
            self.period.to_bytes(4, "big")
            + self.genesis.to_bytes(8, "big")
            + bytes.fromhex(self.public_key)
            + bytes.fromhex(self.group_hash)
            + self.beacon_id.encode()
        ).hexdigest()

    def due(self, round_number: int) -> int:
        """When the round is signed, in seconds since the epoch; rounds count from 1."""
        return self.genesis + (round_number - 1) * self.period


QUICKNET_HASH = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"
QUICKNET = Chain(
    public_key="83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
    "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a",
    group_hash="f477d5c89f21a17c863a7f937c6a6d15859414d2be09cd448d4279af331c5d3e",
    beacon_id="quicknet",
    genesis=1692803367,
    period=3,
)
# The chains that are known, by their hashes.
CHAINS = {QUICKNET_HASH: QUICKNET}
# The last second of the year 9999: times have a year of four digits.
LAST_SECOND = 253402300799


def signed_at(seed_source: Mapping[str, Any]) -> str | None:
    """When the round of a manifest's `seedSource` is signed, `2026-11-25T08:15:00.000Z`; None for a secret, an
    unknown chain or a round after the year 9999.
    """
    chain = CHAINS.get(str(seed_source.get("chain")))
    if chain is None:
        return None
    due = chain.due(seed_source["round"])
    return iso(due) if due <= LAST_SECOND else None
