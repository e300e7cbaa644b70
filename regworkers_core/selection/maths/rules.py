"""Keys and cut-offs of a single entry, in plain hashlib: what a receipt is checked with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from regworkers_core.selection.maths.canonical import Fields
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.files import CUTOFFS, HEX_DIGITS, is_hash, sha256_hex

MAX_WEIGHT = 64
_ZEROS = "0" * 64


class LeafOutcome(StrEnum):
    """What a leaf's entry gets."""

    WINNER = "WINNER"
    WAITLIST = "WAITLIST"
    UNSELECTED = "UNSELECTED"
    HOUSEHOLD_LIMIT = "HOUSEHOLD_LIMIT"
    STRUCK = "STRUCK"


def key_prefix(seed: str, draw_id: str) -> str:
    """What stands before the unit in the text of a ticket."""
    return f"vf1|{seed}|{draw_id}|"


def entry_key_prefix(seed: str) -> str:
    """What stands before the ref in the text of an entry key."""
    return f"vf1e|{seed}|"


def keys_of(seed: str, draw_id: str, unit: str, weight: int) -> list[str]:
    """The keys of the unit's tickets 0..weight-1, in hex; the least of them is the unit's key."""
    prefix = key_prefix(seed, draw_id)
    return [sha256_hex(f"{prefix}{unit}|{ticket}".encode()) for ticket in range(weight)]


def unit_key(seed: str, draw_id: str, unit: str, weight: int) -> str:
    """`min over j of SHA256("vf1|" + seed + "|" + drawId + "|" + unit + "|" + j)`, in hex."""
    return min(keys_of(seed, draw_id, unit, weight))


def entry_key(seed: str, ref: str) -> str:
    """`SHA256("vf1e|" + seed + "|" + ref)`, in hex."""
    return sha256_hex(f"{entry_key_prefix(seed)}{ref}".encode())


@dataclass(frozen=True, slots=True)
class Cutoff:
    """The worst admitted of a full group of seats. A group without seats has rank 0 and zeros: nobody meets it."""

    rank: int
    key: str
    entry_key: str

    def as_document(self) -> dict[str, Any]:
        return {"entryKey": self.entry_key, "key": self.key, "rank": self.rank}

    @staticmethod
    def parse(artefact: str, path: str, document: object) -> Cutoff | None:
        """None = null = room was left."""
        if document is None:
            return None
        fields = Fields(artefact, path, document, ("entryKey", "key", "rank"))
        return Cutoff(
            fields.integer("rank"),
            fields.text("key", is_hash, HEX_DIGITS),
            fields.text("entryKey", is_hash, HEX_DIGITS),
        )


NO_SEATS = Cutoff(0, _ZEROS, _ZEROS)


@dataclass(frozen=True, slots=True)
class MarketCutoffs:
    """Cut-offs of one market; None where a group has room. `reserves`: (segment, cut-off) in precedence order."""

    open: Cutoff | None
    reserves: tuple[tuple[str, Cutoff | None], ...] = ()

    def as_document(self) -> dict[str, Any]:
        return {
            "open": self.open and self.open.as_document(),
            "reserves": [
                {"cutoff": cutoff and cutoff.as_document(), "segment": segment}
                for segment, cutoff in self.reserves
            ],
        }


def cutoffs_document(cutoffs: Mapping[str, MarketCutoffs]) -> dict[str, Any]:
    """The JSON of cutoffs.json."""
    return {"markets": {market: each.as_document() for market, each in cutoffs.items()}}


def parse_cutoffs(document: object, artefact: str = CUTOFFS) -> dict[str, MarketCutoffs]:
    """The inverse of `cutoffs_document`; DrawError names the key."""
    markets = Fields(artefact, "", document, ("markets",)).raw("markets")
    if not isinstance(markets, Mapping):
        raise DrawError(artefact, f"markets: a JSON object is needed, found {type(markets).__name__}")
    return {market: _market_cutoffs(artefact, f"markets.{market}", each) for market, each in markets.items()}


def _market_cutoffs(artefact: str, path: str, document: object) -> MarketCutoffs:
    fields = Fields(artefact, path, document, ("open", "reserves"))
    reserves = []
    for number, each in enumerate(fields.list("reserves")):
        reserve = Fields(artefact, f"{path}.reserves[{number}]", each, ("cutoff", "segment"))
        segment = reserve.text("segment", bool, "an id")
        reserves.append((segment, Cutoff.parse(artefact, f"{path}.{segment}", reserve.raw("cutoff"))))
    return MarketCutoffs(Cutoff.parse(artefact, f"{path}.open", fields.raw("open")), tuple(reserves))


def meets_cutoff(cutoff: Cutoff | None, key: str, entry_key: str) -> bool:
    """Null, or (own key, own entryKey) at most that of the cut-off."""
    return cutoff is None or (key, entry_key) <= (cutoff.key, cutoff.entry_key)


def market_of(
    preferences: Iterable[str],
    segments: Iterable[str],
    key: str,
    entry_key: str,
    cutoffs: Mapping[str, MarketCutoffs],
) -> str | None:
    """The first preference where open, or a reserve of an own segment, is met; None when there is none.

    Holds for a candidate that is neither struck nor pinned from an earlier phase. KeyError for an unknown market.
    """
    own = set(segments)
    for market in preferences:
        groups = cutoffs[market]
        if meets_cutoff(groups.open, key, entry_key) or any(
            segment in own and meets_cutoff(cutoff, key, entry_key) for segment, cutoff in groups.reserves
        ):
            return market
    return None
