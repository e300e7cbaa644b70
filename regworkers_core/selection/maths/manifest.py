"""What is committed to before the seed exists: the manifest, exactly the bytes that are hashed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from regworkers_core.domain.keys import is_selection_id
from regworkers_core.selection.maths.canonical import (
    TIME,
    Fields,
    canonical_bytes,
    is_time,
    parse_canonical,
)
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.files import HEX_DIGITS, MANIFEST, is_hash, sha256_hex

ALGORITHM = "vf1"
COMMIT_REVEAL = "commit-reveal"
DRAND = "drand"
# The allocation numbers them in 16 bits.
MOST_MARKETS = 2**15 - 1
_KEYS = (
    "algorithm", "asOf", "campaignId", "count", "drawId", "markets", "phase", "previous", "root", "seedSource",
    "strikesHash", "waitlistSize", "winsPerUnit",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReserveTerms:
    """`seats` of a market kept for members of `segment` first."""

    segment: str
    seats: int


@dataclass(frozen=True, slots=True)
class MarketTerms:
    """`capacity` is the total of all phases; reserves in precedence order, among the seats offered."""

    market_id: str
    capacity: int
    reserves: tuple[ReserveTerms, ...] = ()


@dataclass(frozen=True, slots=True)
class SeedSource:
    """What a `seedSource` says to whoever derives the seed: `source` and `round` are what enters it."""

    kind: str
    source: str
    round: int
    commitment: str | None

    @staticmethod
    def parse(document: object, artefact: str = MANIFEST) -> SeedSource:
        """From `{"commitment", "kind": "commit-reveal"}` or `{"chain", "kind": "drand", "round"}`."""
        kind = document.get("kind") if isinstance(document, Mapping) else None
        if kind == DRAND:
            fields = Fields(artefact, "seedSource", document, ("chain", "kind", "round"))
            chain = fields.text("chain", is_hash, HEX_DIGITS)
            return SeedSource(DRAND, chain, fields.integer("round", 1), None)
        if kind == COMMIT_REVEAL:
            fields = Fields(artefact, "seedSource", document, ("commitment", "kind"))
            commitment = fields.text("commitment", is_hash, HEX_DIGITS)
            return SeedSource(COMMIT_REVEAL, COMMIT_REVEAL, 0, commitment)
        raise DrawError(artefact, f"seedSource.kind: {COMMIT_REVEAL} or {DRAND} is needed, found {kind!r}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One phase's commitment. `markets` by id; `waitlist_size` None = all. `previous` and `seed_source` are as in
    the JSON: null or `{"manifestHash", "resultHash"}`, and what `SeedSource.parse` reads.
    """

    as_of: str
    campaign_id: str
    count: int
    draw_id: str
    markets: tuple[MarketTerms, ...]
    phase: int
    previous: Mapping[str, str] | None
    root: str
    seed_source: Mapping[str, Any]
    strikes_hash: str
    waitlist_size: int | None
    wins_per_unit: int

    @property
    def hash(self) -> str:
        """`manifestHash`."""
        return sha256_hex(self.to_bytes())

    def market(self, market_id: str) -> MarketTerms:
        """KeyError for an unknown one."""
        for market in self.markets:
            if market.market_id == market_id:
                return market
        raise KeyError(market_id)

    def as_document(self) -> dict[str, Any]:
        return {
            "algorithm": ALGORITHM,
            "asOf": self.as_of,
            "campaignId": self.campaign_id,
            "count": self.count,
            "drawId": self.draw_id,
            "markets": [
                {
                    "capacity": market.capacity,
                    "marketId": market.market_id,
                    "reserves": [{"seats": each.seats, "segment": each.segment} for each in market.reserves],
                }
                for market in self.markets
            ],
            "phase": self.phase,
            "previous": None if self.previous is None else dict(self.previous),
            "root": self.root,
            "seedSource": dict(self.seed_source),
            "strikesHash": self.strikes_hash,
            "waitlistSize": self.waitlist_size,
            "winsPerUnit": self.wins_per_unit,
        }

    def to_bytes(self) -> bytes:
        """The bytes of manifest.json. DrawError when `parse` would refuse them."""
        data = canonical_bytes(self.as_document())
        Manifest.parse(data)
        return data

    @staticmethod
    def parse(data: bytes, artefact: str = MANIFEST) -> Manifest:
        """The manifest in exactly these bytes. DrawError names the key and what was found."""
        fields = Fields(artefact, "", parse_canonical(data, artefact), _KEYS)
        fields.text("algorithm", lambda text: text == ALGORITHM, f'"{ALGORITHM}"')
        campaign_id = fields.text("campaignId", is_selection_id, "an id")
        draw_id = fields.text("drawId", campaign_id.__eq__, f"the campaign's id ({campaign_id})")
        phase = fields.integer("phase", 1)
        waitlist = None if fields.raw("waitlistSize") is None else fields.integer("waitlistSize")
        return Manifest(
            as_of=fields.text("asOf", is_time, TIME),
            campaign_id=campaign_id,
            count=fields.integer("count"),
            draw_id=draw_id,
            markets=_markets(fields, artefact),
            phase=phase,
            previous=_previous(fields, artefact, phase),
            root=fields.text("root", is_hash, HEX_DIGITS),
            seed_source=_seed_source(fields.raw("seedSource"), artefact),
            strikes_hash=fields.text("strikesHash", is_hash, HEX_DIGITS),
            waitlist_size=waitlist,
            wins_per_unit=fields.integer("winsPerUnit", 1),
        )


def _markets(fields: Fields, artefact: str) -> tuple[MarketTerms, ...]:
    markets = tuple(
        _market(artefact, f"markets[{number}]", document)
        for number, document in enumerate(fields.list("markets"))
    )
    if len(markets) > MOST_MARKETS:
        fields.refuse("markets", f"{len(markets)}, at most {MOST_MARKETS} can be drawn together")
    ids = [market.market_id for market in markets]
    for before, after in pairwise(ids):
        if before >= after:
            fields.refuse("markets", f"ids must increase strictly: {after} follows {before}")
    return markets


def _market(artefact: str, path: str, document: object) -> MarketTerms:
    fields = Fields(artefact, path, document, ("capacity", "marketId", "reserves"))
    market_id, capacity = fields.text("marketId", _is_market_id, "an id, not -"), fields.integer("capacity")
    reserves: list[ReserveTerms] = []
    for number, each in enumerate(fields.list("reserves")):
        reserve = Fields(artefact, f"{path}.reserves[{number}]", each, ("seats", "segment"))
        segment = reserve.text("segment", is_selection_id, "an id")
        if any(segment == other.segment for other in reserves):
            fields.refuse("reserves", f"segment {segment} stands twice in market {market_id}")
        reserves.append(ReserveTerms(segment, reserve.integer("seats")))
    seats = sum(reserve.seats for reserve in reserves)
    if seats > capacity:
        fields.refuse(
            "reserves", f"{seats} reserved seats in market {market_id}, whose capacity is {capacity}"
        )
    return MarketTerms(market_id, capacity, tuple(reserves))


def _is_market_id(text: str) -> bool:
    # `-` stands for "no market" among the keys of messages.
    return is_selection_id(text) and text != "-"


def _previous(fields: Fields, artefact: str, phase: int) -> dict[str, str] | None:
    document = fields.raw("previous")
    if (document is None) != (phase == 1):
        fields.refuse("previous", f"null in phase 1 and only there, found {document!r} in phase {phase}")
    if document is None:
        return None
    hashes = Fields(artefact, "previous", document, ("manifestHash", "resultHash"))
    return {key: hashes.text(key, is_hash, HEX_DIGITS) for key in ("manifestHash", "resultHash")}


def _seed_source(document: Any, artefact: str) -> dict[str, Any]:
    SeedSource.parse(document, artefact)
    return dict(document)
