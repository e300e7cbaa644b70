"""Keys and cut-offs of a single entry, in plain hashlib: all that the check of a receipt needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fairdraw.documents import as_json
from fairdraw.maths.files import CUTOFFS, Fields, json_keys, sha256_hex

MAX_WEIGHT = 64
_ZEROS = "0" * 64


def key_prefix(seed: str, draw_id: str) -> str:
    """Return the text of a ticket up to its unit."""
    return f"vf2|{seed}|{draw_id}|"


def entry_key_prefix(seed: str) -> str:
    """Return the text of an entry key up to its ref."""
    return f"vf2e|{seed}|"


def keys_of(seed: str, draw_id: str, unit: str, weight: int) -> list[str]:
    """Return the keys of the unit's tickets 0 to weight-1, in hex; the least of them is the unit's key."""
    prefix = key_prefix(seed, draw_id)
    return [sha256_hex(f"{prefix}{unit}|{ticket}".encode()) for ticket in range(weight)]


def unit_key(seed: str, draw_id: str, unit: str, weight: int) -> str:
    """Return `min over j of SHA256("vf2|" + seed + "|" + drawId + "|" + unit + "|" + j)`, in hex."""
    return min(keys_of(seed, draw_id, unit, weight))


def entry_key(seed: str, ref: str) -> str:
    """Return `SHA256("vf2e|" + seed + "|" + ref)`, in hex."""
    return sha256_hex(f"{entry_key_prefix(seed)}{ref}".encode())


@dataclass(frozen=True, slots=True)
class Cutoff:
    """The worst-ranked winner in a full group of seats. A group without seats has rank 0 and zero keys, which no entry
    meets.
    """

    rank: int
    key: str
    entry_key: str


NO_SEATS = Cutoff(0, _ZEROS, _ZEROS)


@dataclass(frozen=True, slots=True)
class MarketCutoffs:
    """The cut-offs of one market, None where a group has room. `reserves` are (segment, cut-off) in order of
    precedence.
    """

    open: Cutoff | None
    reserves: tuple[tuple[str, Cutoff | None], ...] = ()

    def as_document(self) -> dict[str, Any]:
        reserves = [{"cutoff": as_json(cutoff), "segment": segment} for segment, cutoff in self.reserves]
        return {"open": as_json(self.open), "reserves": reserves}


def cutoffs_document(cutoffs: Mapping[str, MarketCutoffs]) -> dict[str, Any]:
    """Return the JSON of cutoffs.json."""
    return {"markets": as_json(cutoffs)}


def parse_cutoffs(document: object) -> dict[str, MarketCutoffs]:
    """Read the JSON of cutoffs.json. Raises DrawError with the key and what was found."""
    markets = Fields(CUTOFFS, "", document, ("markets",)).nested("markets")
    return {name: _market_cutoffs(markets.nested(name, json_keys(MarketCutoffs))) for name in markets.names}


def _market_cutoffs(market: Fields) -> MarketCutoffs:
    reserves = market.objects("reserves", ("cutoff", "segment"))
    return MarketCutoffs(
        _cutoff(market, "open"),
        tuple((reserve.text("segment", bool, "an id"), _cutoff(reserve, "cutoff")) for reserve in reserves),
    )


def _cutoff(fields: Fields, key: str) -> Cutoff | None:
    """Return None for null: the group has room."""
    if fields.raw(key) is None:
        return None
    cutoff = fields.nested(key, json_keys(Cutoff))
    return Cutoff(cutoff.integer("rank"), cutoff.hash("key"), cutoff.hash("entryKey"))


def meets_cutoff(cutoff: Cutoff | None, key: str, entry_key: str) -> bool:
    """Whether the group has room (None), or (key, entry key) is at most that of the cut-off."""
    return cutoff is None or (key, entry_key) <= (cutoff.key, cutoff.entry_key)


def market_of(
    preferences: Iterable[str],
    segments: Iterable[str],
    key: str,
    entry_key: str,
    cutoffs: Mapping[str, MarketCutoffs],
) -> str | None:
    """Return the first preference whose open cut-off, or that of a reserve for one of the entry's segments, is met;
    else None.

    Valid for a candidate that is neither struck nor a winner of an earlier phase. Raises KeyError for an unknown
    market.
    """
    own = set(segments)
    for market in preferences:
        groups = cutoffs[market]
        if meets_cutoff(groups.open, key, entry_key) or any(
            segment in own and meets_cutoff(cutoff, key, entry_key) for segment, cutoff in groups.reserves
        ):
            return market
    return None
