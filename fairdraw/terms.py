"""The terms of a draw that all parts share: ids, times, outcomes, and the rounds of the public beacon."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from fractions import Fraction

from fairdraw.errors import DrawError

# The rules of draws, as a manifest names them.
ALGORITHM = "vf2"
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


# What is counted of each: for one entry, and for several.
_COUNTED = {
    Outcome.WINNER: ("winner", "winners"),
    Outcome.WAITLIST: ("on the waiting list",) * 2,
    Outcome.UNSELECTED: ("not selected",) * 2,
    Outcome.HOUSEHOLD_LIMIT: ("beyond the household's limit",) * 2,
    Outcome.STRUCK: ("struck",) * 2,
    Outcome.UNCLAIMED: ("who did not claim the seat",) * 2,
}


def outcome_in_words(outcome: str, number: int) -> str:
    """What this number of entries with the outcome is. Raises ValueError for a word that is no outcome."""
    return _COUNTED[Outcome(outcome)][number > 1]


def outcomes_in_words(outcomes: Mapping[str, int]) -> str:
    """Numbers of entries by outcome, without those of none: `30 winners, 1 beyond the household's limit`."""
    found = [(each, outcomes.get(each, 0)) for each in Outcome]
    return ", ".join(f"{number:,} {outcome_in_words(each, number)}" for each, number in found if number)


# Those of struck entries, which have no seat and wait for none.
OF_STRUCK = (Outcome.STRUCK, Outcome.UNCLAIMED)
# The same as SQL has them after IN.
OF_STRUCK_SQL = "(" + ", ".join(f"'{each}'" for each in OF_STRUCK) + ")"


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


# Least time between the commit and the round, so that no one can know the round when the manifest is fixed: quicknet's.
LEAD_SECONDS = 600
# A chain other than quicknet lies beside `phase-1` under this name.
CHAIN_FILE = "chain.json"
SCHEME = "bls-unchained-g1-rfc9380"
# The canonical form leaves one order and no space; an id is printable ASCII.
_CHAIN = re.compile(
    r'\{"genesis":([1-9][0-9]{0,15}),"groupHash":"([0-9a-f]{64})","id":("(?:[ !#-\[\]-~]|\\["\\])+"),'
    rf'"period":([1-9][0-9]{{0,9}}),"publicKey":"([0-9a-f]{{192}})","scheme":"{SCHEME}"\}}'
)


@dataclass(frozen=True, slots=True)
class Chain:
    """One drand chain of the scheme `bls-unchained-g1-rfc9380`."""

    # A compressed G2 point, in hex.
    public_key: str
    group_hash: str
    beacon_id: str
    # When round 1 was signed, in whole seconds since the epoch.
    genesis: int
    # Seconds between two rounds.
    period: int

    @staticmethod
    def parse(data: bytes) -> Chain:
        """Read exactly the bytes of `chain.json`. Raises DrawError."""
        found = _CHAIN.fullmatch(data.decode("ascii", "replace"))
        if found is None:
            raise DrawError(
                CHAIN_FILE,
                f"not the description of a chain: genesis, groupHash, id, period, publicKey and scheme ({SCHEME}) are"
                " needed, and no more, as canonical JSON (RFC 8785)",
            )
        genesis, group_hash, beacon_id, period, key = found.groups()
        chain = Chain(key, group_hash, json.loads(beacon_id), int(genesis), int(period))
        if chain.beacon_id == "default":
            raise DrawError(CHAIN_FILE, "id: 'default' is not part of a chain's hash: another one is needed")
        if chain.period >> 32 or chain.genesis > LAST_SECOND:
            raise DrawError(CHAIN_FILE, "period or genesis: more than 4 bytes, or after the year 9999")
        # late: who names ids and times, such as the function that answers fans, has no curves.
        from fairdraw.bls import is_key

        if not is_key(key):
            raise DrawError(CHAIN_FILE, "publicKey: not a point of the group of keys")
        return chain

    def to_bytes(self) -> bytes:
        """The bytes of `chain.json`. Raises DrawError when `parse` would reject them."""
        document = {
            "genesis": self.genesis,
            "groupHash": self.group_hash,
            "id": self.beacon_id,
            "period": self.period,
            "publicKey": self.public_key,
            "scheme": SCHEME,
        }
        data = json.dumps(document, separators=(",", ":")).encode()
        self.parse(data)
        return data

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

    def round_after(self, moment: float, lead: float) -> int:
        """The first round that is signed at least `lead` seconds after `moment`, in seconds since the epoch."""
        # Fractions, because a float's rounding must not choose a round that comes too early.
        waited = Fraction(moment) + Fraction(lead) - self.genesis
        return max(1, -(-waited // self.period) + 1)


# The last second of the year 9999: times have a year of four digits.
LAST_SECOND = 253402300799
QUICKNET_HASH = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"
QUICKNET = Chain(
    public_key="83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
    "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a",
    group_hash="f477d5c89f21a17c863a7f937c6a6d15859414d2be09cd448d4279af331c5d3e",
    beacon_id="quicknet",
    genesis=1692803367,
    period=3,
)
# What is said of a draw with another chain.
OWN_BEACON = "a beacon of this machine: for trying out only"


def signed_at(chain: Chain, round_number: int) -> str | None:
    """When the chain signs the round, `2026-11-25T08:15:00.000Z`; None for a round after the year 9999."""
    due = chain.due(round_number)
    return iso(due) if due <= LAST_SECOND else None
