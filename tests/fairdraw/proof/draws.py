"""Draws on disk: the inputs of a phase, and small draws of the product with households, weights, reserves, strikes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fairdraw.large.allocate import compute
from fairdraw.large.engine import Engine
from fairdraw.maths.beside import (
    ACCEPTED,
    NOTICE,
    AcceptedFinding,
    NoticeFile,
    ReplacedManifest,
    accepted_bytes,
    replaced_name,
)
from fairdraw.maths.files import LEAVES, MANIFEST, RESULT, SEED, STRIKES, file_hash
from fairdraw.maths.leaves import Leaf, unit_of
from fairdraw.maths.manifest import (
    Manifest,
    ManifestSeedSource,
    MarketTerms,
    Registrations,
    ReserveTerms,
    SeedFile,
    strikes_bytes,
)
from fairdraw.maths.merkle import root_of
from fairdraw.terms import QUICKNET, QUICKNET_HASH, iso
from tests.fairdraw.maths import oracle
from tests.fairdraw.maths.oracle import OracleMarket

CAMPAIGN = "summer"
# A recorded round of the real quicknet chain.
ROUND = 1000
SIGNATURE = "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"
RANDOMNESS = "fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd"
BEACON = ManifestSeedSource(QUICKNET_HASH, ROUND)
AS_OF = iso(QUICKNET.due(ROUND) - 1_200)
UNIT_KEY = hashlib.sha256(b"a unit key for tests").digest()


def refs(count: int) -> list[str]:
    """As random as real ones, the same every time."""
    return sorted(hashlib.sha256(f"entry {number}".encode()).hexdigest()[:32] for number in range(count))


def entrants(count: int = 36, *, households: int = 6) -> list[Leaf]:
    """In ref order; the first `households` pairs share a unit, every fifth unit has a weight, every third entry
    is of segment `fan`, and all want one or both of two markets.
    """
    leaves = []
    for number, ref in enumerate(refs(count)):
        pair = number // 2 if number < 2 * households else number
        unit = unit_of(UNIT_KEY, CAMPAIGN, f"unit-{pair}") if number < 2 * households else ref
        leaves.append(
            Leaf(
                ref,
                unit,
                3 if pair % 5 == 0 else 1,
                ("fan",) if number % 3 == 0 else (),
                (("east", "west"), ("west", "east"), ("west",))[number % 3],
            )
        )
    return leaves


@dataclass(frozen=True, slots=True)
class Terms:
    """What one phase offers."""

    markets: Sequence[MarketTerms | OracleMarket]
    strikes: Mapping[str, str] = field(default_factory=dict)
    waitlist_size: int | None = None
    wins_per_unit: int = 1


FIRST = (
    MarketTerms("east", 4, (ReserveTerms("fan", 2),)),
    MarketTerms("west", 5, (), (ReserveTerms("fan", 2),)),
)
MORE = (
    MarketTerms("east", 6),
    MarketTerms("west", 8, (ReserveTerms("fan", 1),), (ReserveTerms("fan", 2),)),
)


def write_inputs(
    folder: Path,
    lines: Iterable[str],
    terms: Terms,
    previous: Path | None = None,
    *,
    source: ManifestSeedSource = BEACON,
    signature: str = SIGNATURE,
    campaign_id: str = CAMPAIGN,
    as_of: str = AS_OF,
    seed: bytes | None = None,
    registrations: Registrations | None = None,
) -> Manifest:
    """What one phase is drawn from. Its seed is that of the phase before, or follows from its manifest, unless a test
    wants another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LEAVES).write_bytes("".join(f"{line}\n" for line in lines).encode())
    (folder / STRIKES).write_bytes(strikes_bytes(terms.strikes))
    root, count = root_of(folder / LEAVES)
    number, hashes = 1, None
    if previous is not None:
        number = Manifest.parse((previous / MANIFEST).read_bytes()).phase + 1
        hashes = {"manifestHash": file_hash(previous / MANIFEST), "resultHash": file_hash(previous / RESULT)}
        seed = seed or (previous / SEED).read_bytes()
    manifest = Manifest(
        as_of=as_of,
        campaign_id=campaign_id,
        count=count,
        draw_id=campaign_id,
        markets=tuple(map(oracle.market_terms, terms.markets)),
        phase=number,
        previous=hashes,
        registrations=registrations,
        root=root,
        seed_source=source,
        strikes_hash=file_hash(folder / STRIKES),
        strikes_root=root_of(folder / STRIKES).root,
        waitlist_size=terms.waitlist_size,
        wins_per_unit=terms.wins_per_unit,
    )
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    (folder / SEED).write_bytes(seed or SeedFile.of(manifest.hash, source, signature).to_bytes())
    return manifest


def make(
    root: Path,
    leaves: Sequence[Leaf],
    phases: Sequence[Terms],
    *,
    source: ManifestSeedSource = BEACON,
    signature: str = SIGNATURE,
    wins: int = 1,
    as_of: str = AS_OF,
) -> Path:
    """Write `root/phase-1`, ... as a draw would; returns `root`. By default the recorded round of the beacon lies
    twenty minutes ahead.
    """
    engine = Engine(root / "scratch", threads=1, memory_mib=256)
    before: Path | None = None
    for number, each in enumerate(phases, 1):
        folder, terms = root / f"phase-{number}", replace(each, wins_per_unit=wins)
        write_inputs(
            folder,
            [leaf.line for leaf in leaves],
            terms,
            before,
            source=source,
            signature=signature,
            as_of=as_of,
        )
        compute(folder, before, folder, engine=engine)
        before = folder
    return root


def two_phases(root: Path, *, source: ManifestSeedSource = BEACON) -> Path:
    """A draw with strikes in both phases: one from the start, and later a winner of phase 1."""
    leaves = entrants()
    first = Terms(FIRST, {leaves[20].ref: "FRAUD"}, waitlist_size=8)
    probe = make(root / "probe", leaves, [first], source=source)
    winner = next(ref for ref, outcome in outcomes(probe / "phase-1").items() if outcome == "WINNER")
    second = Terms(MORE, {**first.strikes, winner: "DUPLICATE_ACCOUNT"}, waitlist_size=8)
    return make(root / "draw", leaves, [first, second], source=source)


def publish_beside(root: Path, *, lead_seconds: int = 700) -> Path:
    """Put notice.json beside each phase, and in phase 1 a replaced manifest and an accepted finding: the manifest was
    public so long before the round. Returns `root`.
    """
    for number, folder in enumerate(sorted(root.glob("phase-*")), 1):
        manifest = Manifest.parse((folder / MANIFEST).read_bytes())
        due = QUICKNET.due(manifest.seed_source.round)
        public = iso(due - lead_seconds)
        notice = NoticeFile.of(
            manifest,
            strikes=len((folder / STRIKES).read_text().splitlines()),
            committed_at=iso(due - lead_seconds - 1),
            published_at=public,
            reason="more seats" if number > 1 else "",
        )
        (folder / NOTICE).write_bytes(notice.to_bytes())
        if number == 1:
            before = replace(manifest, seed_source=ManifestSeedSource(QUICKNET_HASH, ROUND - 100))
            old = ReplacedManifest(iso(due - 900), before.to_bytes().decode(), None, iso(due - 800))
            (folder / replaced_name(1)).write_bytes(old.to_bytes())
            accepted = [AcceptedFinding(public, "late_commit", "the store was down")]
            (folder / ACCEPTED).write_bytes(accepted_bytes(accepted))
    return root


def outcomes(folder: Path) -> dict[str, str]:
    """Outcome by ref, of a phase."""
    lines = (folder / RESULT).read_text().splitlines()
    return {line.split("|")[0]: line.split("|")[3] for line in lines}
