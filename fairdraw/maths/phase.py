"""The inputs of one phase, checked against each other and the phase before; and summary.json, which counts results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from fairdraw.errors import DrawError
from fairdraw.maths.files import (
    LEAVES,
    MANIFEST,
    RESULT,
    SEED,
    STRIKES,
    SUMMARY,
    Fields,
    JsonFile,
    equal_files,
    file_hash,
    json_keys,
    sha256_hex,
)
from fairdraw.maths.manifest import Manifest, SeedFile, changed_terms, newly_unclaimed, parse_strikes
from fairdraw.maths.merkle import root_over
from fairdraw.terms import Outcome


@dataclass(frozen=True, slots=True)
class Phase:
    """The inputs of one phase."""

    # It has leaves.txt, manifest.json, strikes.txt and seed.json.
    folder: Path
    # The folder of the phase before; None in phase 1.
    previous: Path | None
    manifest: Manifest
    # Reasons by ref.
    strikes: dict[str, str]
    seed: SeedFile
    # Refs that are UNCLAIMED for the first time.
    unclaimed: frozenset[str] = frozenset()

    @staticmethod
    def read(folder: Path, previous: Path | None) -> Phase:
        """Read and check the inputs. Raises DrawError for an artefact that is malformed or contradicts another one.

        It neither recomputes the root nor verifies drand's signature.
        """
        manifest = Manifest.parse((folder / MANIFEST).read_bytes())
        strikes_data = (folder / STRIKES).read_bytes()
        strikes = parse_strikes(strikes_data)
        if sha256_hex(strikes_data) != manifest.strikes_hash:
            raise DrawError(STRIKES, "its SHA-256 is not the strikesHash of the manifest")
        if root_over(strikes_data) != manifest.strikes_root:
            raise DrawError(STRIKES, "the root over its lines is not the strikesRoot of the manifest")
        seed = SeedFile.parse((folder / SEED).read_bytes())
        before = None if previous is None else parse_strikes((previous / STRIKES).read_bytes())
        phase = Phase(folder, previous, manifest, strikes, seed, newly_unclaimed(before, strikes))
        if (previous is None) != (manifest.phase == 1):
            raise DrawError(
                MANIFEST, f"phase {manifest.phase}: the phase before is needed from phase 2 on, and only then"
            )
        if previous is None:
            seed.check(manifest.hash, manifest.seed_source)
        else:
            phase._check_previous(previous)
        return phase

    def _check_previous(self, folder: Path) -> None:
        data = (folder / MANIFEST).read_bytes()
        before = Manifest.parse(data)
        hashes = {"manifestHash": sha256_hex(data), "resultHash": file_hash(folder / RESULT)}
        for key, found in hashes.items():
            if (self.manifest.previous or {}).get(key) != found:
                raise DrawError(
                    MANIFEST, f"previous.{key}: not the hash of the phase before, which is {found}"
                )
        if self.manifest.phase != before.phase + 1:
            raise DrawError(MANIFEST, f"phase {self.manifest.phase} follows phase {before.phase}: one by one")
        for error in changed_terms([before], self.manifest):
            raise error
        for name in (LEAVES, SEED):
            if not equal_files(self.folder / name, folder / name):
                raise DrawError(name, "differs from the phase before: it is the same in all phases")


def seats_offered(manifest: Manifest, taken: Sequence[int]) -> dict[str, int]:
    """The seats of this phase by market: `capacity` is the total, of which earlier winners keep theirs. `taken` are
    their seats, by market in the order of the manifest. Raises DrawError for too few.
    """
    offered = {}
    for market, kept in zip(manifest.markets, taken, strict=True):
        left = offered[market.market_id] = market.capacity - kept
        if left < 0:
            raise DrawError(
                MANIFEST,
                f"market {market.market_id}: capacity {market.capacity}, {kept} have won seats already",
            )
        reserved = sum(reserve.seats for reserve in market.reserves)
        if reserved > left:
            raise DrawError(
                MANIFEST, f"market {market.market_id}: {reserved} seats are reserved, {left} are offered"
            )
    return offered


@dataclass(frozen=True, slots=True)
class MarketCounts:
    """Winners of one market: `new` in this phase, `winners` in all phases."""

    new: int
    winners: int


@dataclass(frozen=True, slots=True)
class Summary(JsonFile):
    """summary.json: the hashes and counts of a phase."""

    FILE: ClassVar[str] = SUMMARY

    manifest_hash: str
    result_hash: str
    # The root over the lines of result.txt, in hex.
    result_root: str
    cutoffs_hash: str
    # Entries by outcome, zeros included.
    outcomes: Mapping[str, int]
    # Every market of the manifest.
    markets: Mapping[str, MarketCounts]

    @classmethod
    def read(cls, fields: Fields) -> Self:
        outcomes, markets = fields.nested("outcomes", tuple(Outcome)), fields.nested("markets")
        counts = {name: markets.nested(name, json_keys(MarketCounts)) for name in markets.names}
        return cls(
            fields.hash("manifestHash"),
            fields.hash("resultHash"),
            fields.hash("resultRoot"),
            fields.hash("cutoffsHash"),
            {outcome: outcomes.integer(outcome) for outcome in Outcome},
            {
                name: MarketCounts(each.integer("new"), each.integer("winners"))
                for name, each in counts.items()
            },
        )
