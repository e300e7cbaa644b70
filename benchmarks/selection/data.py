"""Pools as large as asked for, the same for the same size, made by DuckDB in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import duckdb

from fairdraw.large.columns import write_leaves
from fairdraw.large.engine import Engine
from fairdraw.maths.files import LEAVES, MANIFEST, SEED, STRIKES, sha256_hex
from fairdraw.maths.manifest import (
    Manifest,
    ManifestSeedSource,
    MarketTerms,
    ReserveTerms,
    SeedFile,
)
from fairdraw.maths.merkle import root_over
from fairdraw.terms import CHAIN_FILE, seconds
from regworkers_local.beacon import OwnChain

POOL = "pool.parquet"
IDS = "ids.parquet"
CAMPAIGN = "bench-campaign"
MARKETS = 50
# One entry in twenty wins, as 500,000 of 10 million.
ENTRIES_PER_SEAT = 20
# The list is fixed an hour before its round.
_AS_OF, _ROUND = "2026-11-25T08:00:00.000Z", 3_600
_OWN = OwnChain.made(int(seconds(_AS_OF) or 0), sha256(b"benchmark").digest()[1:].rjust(32, b"\0"))

# One to three different markets of 50, the first ones wanted most. `{unit}` and `{weight}` make households and weights.
_POOL = """
COPY (
    SELECT ref, {unit} AS unit, {weight} AS weight,
           CASE WHEN n % 3 = 0 THEN ['member'] WHEN n % 3 = 1 THEN ['member', 'presale'] ELSE [] END AS segments,
           list_transform(
               list_transform(range((1 + n % 3)::BIGINT), lambda j: (first + j * step::BIGINT) % {markets}),
               lambda m: 'market-' || lpad(m::VARCHAR, 2, '0')) AS preferences
    FROM (
        SELECT md5('ref' || i) AS ref, i, hash(i, 1) % 1000 AS n, 1 + hash(i, 2) % 16 AS step,
               floor({markets} * pow((hash(i, 3) % 1000003) / 1000003.0, 1.5))::BIGINT AS first
        FROM range({entries}) r(i))
) TO '{file}' (FORMAT parquet)
"""
_UNIT = "CASE WHEN i % 10 < 2 THEN 'u-' || left(sha256('unit' || (i // 10)), 42) || 'A' ELSE ref END"
_WEIGHT = "CASE WHEN i // 10 % 20 = 0 THEN 2 + (i // 10) % 3 ELSE 1 END"


@dataclass(frozen=True, slots=True)
class Shape:
    """`mixed`: a fifth of the entries in households of two, a twentieth with a weight of 2 to 4, two reserves in
    every market. Otherwise every entry is a unit of its own, with weight 1, and there are no reserves.
    """

    entries: int
    mixed: bool = False

    @property
    def folder_name(self) -> str:
        return f"{self.entries}-{'mixed' if self.mixed else 'plain'}"


def shape_of(folder: Path) -> Shape:
    """The inverse of `folder_name`."""
    entries, _, kind = folder.name.partition("-")
    return Shape(int(entries), kind == "mixed")


def make_pool(shape: Shape, folder: Path) -> None:
    """pool.parquet and, for the bare contestant, the same refs alone."""
    folder.mkdir(parents=True)
    connection = duckdb.connect(config={"threads": 2, "temp_directory": str(folder / "spill")})
    connection.execute(
        _POOL.format(
            entries=shape.entries,
            markets=MARKETS,
            file=folder / POOL,
            unit=_UNIT if shape.mixed else "ref",
            weight=_WEIGHT if shape.mixed else "1",
        )
    )
    connection.execute(f"COPY (SELECT ref AS id FROM '{folder / POOL}') TO '{folder / IDS}' (FORMAT parquet)")
    connection.close()


def leaves(folder: Path, engine: Engine) -> int:
    """leaves.txt from pool.parquet; the number of leaves."""
    return write_leaves(folder / POOL, folder / LEAVES, engine=engine).leaves


def make_terms(shape: Shape, folder: Path, root: str, count: int) -> None:
    """Manifest, strikes and seed beside leaves.txt."""
    seats = max(shape.entries // ENTRIES_PER_SEAT // MARKETS, 1)
    reserves = (
        (ReserveTerms("presale", seats // 5), ReserveTerms("member", seats // 5)) if shape.mixed else ()
    )
    (folder / STRIKES).write_bytes(b"")
    source = ManifestSeedSource(_OWN.chain.hash, _ROUND)
    (folder.parent / CHAIN_FILE).write_bytes(_OWN.chain.to_bytes())
    manifest = Manifest(
        as_of=_AS_OF,
        campaign_id=CAMPAIGN,
        count=count,
        draw_id=CAMPAIGN,
        markets=tuple(MarketTerms(f"market-{number:02d}", seats, reserves) for number in range(MARKETS)),
        phase=1,
        previous=None,
        root=root,
        registrations=None,
        seed_source=source,
        strikes_hash=sha256_hex(b""),
        strikes_root=root_over(b""),
        waitlist_size=None,
        wins_per_unit=1,
    )
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    seed = SeedFile.of(manifest.hash, source, _OWN.signature(_ROUND))
    (folder / SEED).write_bytes(seed.to_bytes())
