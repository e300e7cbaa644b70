"""The draw in plain Python for the tests, and parts of it by their definitions, slowly.

Leaves are `(ref, unit, weight, segments, preferences)`, markets `(id, capacity, [(segment, seats)])`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fairdraw.maths import plain
from fairdraw.maths.leaves import Leaf
from fairdraw.maths.manifest import Manifest, ManifestSeedSource, MarketTerms, ReserveTerms
from fairdraw.maths.plain import Drawn, Place
from fairdraw.terms import Outcome

OracleLeaf = tuple[str, str, int, tuple[str, ...], tuple[str, ...]]
# Without laterReserves, for a draw of one phase.
OracleMarket = tuple[str, int, list[tuple[str, int]]]


def sha(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def canonical(document: Any) -> bytes:
    """For documents whose keys and strings are plain ASCII this is RFC 8785."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def tree_hash(leaves: list[bytes]) -> str:
    """RFC 6962, 2.1, by its recursion."""

    def mth(part: list[bytes]) -> bytes:
        if not part:
            return hashlib.sha256(b"").digest()
        if len(part) == 1:
            return hashlib.sha256(b"\x00" + part[0]).digest()
        split = 1
        while split * 2 < len(part):
            split *= 2
        return hashlib.sha256(b"\x01" + mth(part[:split]) + mth(part[split:])).digest()

    return mth(leaves).hex()


def audit_path(index: int, leaves: list[bytes]) -> list[str]:
    """RFC 6962, 2.1.1, by its recursion."""
    if len(leaves) <= 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*audit_path(index, leaves[:split]), tree_hash(leaves[split:])]
    return [*audit_path(index - split, leaves[split:]), tree_hash(leaves[:split])]


def leaf_line(leaf: OracleLeaf) -> str:
    ref, unit, weight, segments, preferences = leaf
    return f"{ref}|{unit}|{weight}|{','.join(segments)}|{','.join(preferences)}"


def market_terms(market: MarketTerms | OracleMarket) -> MarketTerms:
    if isinstance(market, MarketTerms):
        return market
    market_id, capacity, reserves = market
    return MarketTerms(market_id, capacity, tuple(ReserveTerms(*reserve) for reserve in reserves))


def draw(
    leaves: list[OracleLeaf],
    markets: Sequence[MarketTerms | OracleMarket],
    seed: str,
    draw_id: str,
    *,
    wins_per_unit: int = 1,
    waitlist_size: int | None = None,
    strikes: dict[str, str] | None = None,
    previous: Mapping[str, tuple[str, int, str]] | None = None,
) -> Drawn:
    """One phase in plain Python, which shares no step with the engine that these tests try."""
    manifest = Manifest(
        as_of="",
        campaign_id=draw_id,
        count=len(leaves),
        draw_id=draw_id,
        markets=tuple(map(market_terms, markets)),
        phase=1,
        previous=None,
        registrations=None,
        root="",
        seed_source=ManifestSeedSource("", 1),
        strikes_hash="",
        strikes_root="",
        waitlist_size=waitlist_size,
        wins_per_unit=wins_per_unit,
    )
    before = {
        ref: Place(market, rank, Outcome(name)) for ref, (market, rank, name) in (previous or {}).items()
    }
    return plain.draw([Leaf(*leaf) for leaf in leaves], manifest, seed, strikes or {}, before)


def serial_dictatorship(candidates: list[OracleLeaf], offered: dict[str, int]) -> dict[str, str]:
    """Each candidate in rank order takes the first preference with room."""
    room, homes = dict(offered), {}
    for leaf in candidates:
        home = next((market for market in leaf[4] if room[market] > 0), None)
        if home is not None:
            room[home] -= 1
            homes[leaf[0]] = home
    return homes
