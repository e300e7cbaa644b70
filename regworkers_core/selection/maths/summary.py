"""summary.json: the hashes and counts of a phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regworkers_core.selection.maths.canonical import Fields, canonical_bytes, parse_canonical
from regworkers_core.selection.maths.files import HEX_DIGITS, SUMMARY, is_hash
from regworkers_core.selection.maths.rules import LeafOutcome


@dataclass(frozen=True, slots=True)
class MarketCounts:
    """`new`: winners of this phase; `winners`: all, those kept from earlier phases included."""

    new: int
    winners: int


@dataclass(frozen=True, slots=True)
class Summary:
    """summary.json. `outcomes` has every outcome, `markets` every market of the manifest, zeros included."""

    manifest_hash: str
    result_hash: str
    cutoffs_hash: str
    outcomes: Mapping[str, int]
    markets: Mapping[str, MarketCounts]

    def as_document(self) -> dict[str, Any]:
        return {
            "cutoffsHash": self.cutoffs_hash,
            "manifestHash": self.manifest_hash,
            "markets": {
                market: {"new": each.new, "winners": each.winners} for market, each in self.markets.items()
            },
            "outcomes": dict(self.outcomes),
            "resultHash": self.result_hash,
        }

    def to_bytes(self) -> bytes:
        return canonical_bytes(self.as_document())

    @staticmethod
    def parse(data: bytes, artefact: str = SUMMARY) -> Summary:
        """The summary in exactly these bytes. DrawError names the key and what was found."""
        hashes = ("manifestHash", "resultHash", "cutoffsHash")
        fields = Fields(artefact, "", parse_canonical(data, artefact), (*hashes, "outcomes", "markets"))
        outcomes = Fields(artefact, "outcomes", fields.raw("outcomes"), tuple(LeafOutcome))
        markets = fields.raw("markets")
        if not isinstance(markets, Mapping):
            fields.refuse("markets", f"a JSON object is needed, found {markets!r}")
        manifest_hash, result_hash, cutoffs_hash = (fields.text(key, is_hash, HEX_DIGITS) for key in hashes)
        return Summary(
            manifest_hash,
            result_hash,
            cutoffs_hash,
            {outcome: outcomes.integer(outcome) for outcome in LeafOutcome},
            {market: _market_counts(artefact, market, each) for market, each in markets.items()},
        )


def _market_counts(artefact: str, market: str, document: object) -> MarketCounts:
    fields = Fields(artefact, f"markets.{market}", document, ("new", "winners"))
    return MarketCounts(fields.integer("new"), fields.integer("winners"))
