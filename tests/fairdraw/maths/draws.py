"""Small draws for the tests: random ones by hypothesis, and the folders of their phases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from fairdraw.large.allocate import allocate_phase, compute
from fairdraw.large.engine import Engine
from fairdraw.large.rank import Ranked, order_leaves
from fairdraw.maths.files import LEAVES, MANIFEST, RESULT, SEED, STRIKES
from fairdraw.maths.leaves import unit_of
from fairdraw.maths.manifest import Manifest, MarketTerms, ReserveTerms, SeedFile, parse_strikes
from fairdraw.maths.phase import Phase, Summary
from tests.fairdraw.maths import oracle
from tests.fairdraw.maths.oracle import OracleLeaf, OracleMarket
from tests.fairdraw.proof.draws import CAMPAIGN, UNIT_KEY, Terms, write_inputs

_SEGMENTS = ("a", "b", "c")
_MARKETS = ("east", "north", "south", "west")


def write_pool(path: Path, leaves: Sequence[OracleLeaf]) -> Path:
    """pool.parquet with these rows in this order."""
    columns = list(zip(*leaves, strict=True)) or [[], [], [], [], []]
    lists = pa.list_(pa.string())
    types = {
        "ref": pa.string(),
        "unit": pa.string(),
        "weight": pa.int32(),
        "segments": lists,
        "preferences": lists,
    }
    arrays: Any = [pa.array(column, kind) for column, kind in zip(columns, types.values(), strict=True)]
    pq.write_table(pa.table(arrays, names=list(types)), path)
    return path


def write_phase(
    folder: Path,
    leaves: Sequence[OracleLeaf],
    terms: Terms,
    previous: Path | None = None,
    seed_of: Path | None = None,
) -> Path:
    """The inputs of one phase. With `seed_of`, the seed of that draw's folder, so that only the terms differ:
    for `compute_with_any_seed`, since it does not follow from this manifest.
    """
    seed = None if seed_of is None else (seed_of / SEED).read_bytes()
    write_inputs(folder, map(oracle.leaf_line, sorted(leaves)), terms, previous, seed=seed)
    return folder


def set_seed(folder: Path) -> str:
    return SeedFile.parse((folder / SEED).read_bytes()).seed


def compute_phase(folder: Path, engine: Engine, previous: Path | None = None) -> Summary:
    return compute(folder, previous, folder, engine=engine)


def order_of(folder: Path, engine: Engine) -> Ranked:
    """The order of a folder's leaves under its seed."""
    manifest = Manifest.parse((folder / MANIFEST).read_bytes())
    return order_leaves(folder / LEAVES, manifest, set_seed(folder), engine)


def compute_with_any_seed(folder: Path, engine: Engine, order: Ranked | None = None) -> Summary:
    """A first phase, whatever its seed.json says."""
    manifest = Manifest.parse((folder / MANIFEST).read_bytes())
    seed = SeedFile.parse((folder / SEED).read_bytes())
    phase = Phase(folder, None, manifest, parse_strikes((folder / STRIKES).read_bytes()), seed)
    return allocate_phase(phase, order or order_of(folder, engine), folder, engine=engine)


def taken_seats(folder: Path, strikes: Mapping[str, str]) -> dict[str, int]:
    """Winners of a phase by market who are not struck: their seats stay theirs."""
    return Counter(
        market for ref, (market, _, _) in outcomes_of(folder).items() if market and ref not in strikes
    )


def outcomes_of(folder: Path) -> dict[str, tuple[str, int, str]]:
    lines = (line.split("|") for line in (folder / RESULT).read_text().splitlines())
    return {ref: (market, int(rank or 0), outcome) for ref, market, rank, outcome in lines}


@st.composite
def pools(draw: st.DrawFn, most: int = 24, markets: Sequence[str] = _MARKETS) -> list[OracleLeaf]:
    """Households, weights that are one for a unit, segments and preferences."""
    count = draw(st.integers(0, most))
    units = [unit_of(UNIT_KEY, CAMPAIGN, str(number)) for number in range(max(count // 2, 1))]
    weights = {unit: draw(st.sampled_from((1, 1, 1, 2, 64))) for unit in units}
    leaves = []
    for number in range(count):
        ref = f"r{number:03d}"
        unit = draw(st.sampled_from([*units, ref, ref, ref]))
        weight = weights.setdefault(unit, draw(st.sampled_from((1, 1, 1, 3))))
        segments = tuple(sorted(draw(st.sets(st.sampled_from(_SEGMENTS)))))
        preferences = draw(st.lists(st.sampled_from(markets), min_size=1, max_size=3, unique=True))
        leaves.append((ref, unit, weight, segments, tuple(preferences)))
    return leaves


@st.composite
def market_terms(draw: st.DrawFn, reserves: bool = True) -> list[OracleMarket]:
    """All four markets of a first phase."""
    made: list[OracleMarket] = []
    for market in _MARKETS:
        left = seats = draw(st.integers(0, 6))
        kept = []
        for segment in draw(st.permutations(_SEGMENTS)) if reserves else ():
            if left and draw(st.booleans()):
                size = draw(st.integers(0, left))
                kept.append((segment, size))
                left -= size
        made.append((market, seats, kept))
    return made


@st.composite
def first_terms(draw: st.DrawFn) -> list[MarketTerms]:
    """All four markets of a first phase, with what later phases may reserve."""
    return [
        replace(
            oracle.market_terms(market),
            later_reserves=tuple(
                ReserveTerms(segment, draw(st.integers(0, 4)))
                for segment in draw(st.permutations(_SEGMENTS))[: draw(st.integers(0, 3))]
            ),
        )
        for market in draw(market_terms())
    ]


@st.composite
def later_terms(
    draw: st.DrawFn, earlier: Sequence[Sequence[MarketTerms]], taken: Mapping[str, int]
) -> list[MarketTerms]:
    """The markets of the phase after the `earlier` ones, with the seats that are taken."""
    made = []
    for number, market in enumerate(earlier[-1]):
        capacity = market.capacity + draw(st.integers(0, 3))
        left, kept = capacity - taken.get(market.market_id, 0), []
        for declared in market.later_reserves:
            used = sum(
                reserve.seats
                for phase in earlier[1:]
                for reserve in phase[number].reserves
                if reserve.segment == declared.segment
            )
            if draw(st.booleans()):
                seats = draw(st.integers(0, min(left, declared.seats - used)))
                kept.append(ReserveTerms(declared.segment, seats))
                left -= seats
        made.append(replace(market, capacity=capacity, reserves=tuple(kept)))
    return made
