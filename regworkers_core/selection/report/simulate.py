"""What the odds would be: the draw's own maths on today's entries or on a synthetic pool, with random seeds of its own.

Nothing is kept or published, and a simulation cannot predict the draw: its draw id and its seeds belong to no draw.

For one full market there is a short way that only a simulation may take: the K best of N nearly always have a key
below K/N of the key space plus one per cent. If fewer than K are below the bound, the bound is doubled, so the winners
are exactly those of the full draw (SELECTION.md, Engine). A draw needs the rank of every entry.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fairdraw.large.allocate import compute
from fairdraw.large.columns import write_leaves
from fairdraw.large.engine import Engine
from fairdraw.maths.files import LEAVES, MANIFEST, OUTCOMES, SEED, STRIKES, scratch_folder, sha256_hex
from fairdraw.maths.manifest import (
    Manifest,
    ManifestSeedSource,
    MarketTerms,
    ReserveTerms,
    SeedFile,
)
from fairdraw.maths.merkle import root_over
from fairdraw.maths.rules import entry_key_prefix, key_prefix
from fairdraw.terms import QUICKNET_HASH
from regworkers_core.adapters.judged_entries import POOL, POOL_SCHEMA
from regworkers_core.domain.campaign import Market
from regworkers_core.domain.reasons import UsageError
from regworkers_core.selection.report.simulation import Group, Scenario, Simulation

# Part of every key, so keys differ from those of a draw even with the same seed.
DRAW_ID = "simulation"
_SECRET = re.compile(r"[0-9a-fA-F]{64}")

# The weight of a segment in the scenario replaces that of the entry. The greatest weight of the unit counts.
_ENTRIES = """
COPY (
  SELECT p.* REPLACE (coalesce(s.weight, p.weight) AS weight)
  FROM read_parquet($pool) p JOIN segment_list s ON s.list = p.segments
) TO $path (FORMAT parquet)
"""
_MEMBERS = """
CREATE TABLE member AS
SELECT e.ref, e.unit, w.n AS preferences, s.n AS segments, max(e.weight) OVER (PARTITION BY e.unit) AS weight
FROM read_parquet($entries) e
JOIN preference_list w ON w.list = e.preferences JOIN segment_list s ON s.list = e.segments
"""
_TALLY = """
SELECT m.preferences, m.segments, m.weight, w.market, count(*), max(w.rank)
FROM read_parquet($winners) w JOIN member m ON m.ref = w.ref GROUP BY ALL
"""
_WINNERS = """
COPY (SELECT ref, market, rank FROM read_parquet($outcomes) WHERE outcome = 'WINNER') TO $path (FORMAT parquet)
"""


_SLACK = 1.01
_KEY_BITS = 64
# The ranking of the draw: by (key, unit, entryKey); the first $wins entries of a unit are candidates.
_QUICK_WINNERS = """
COPY (
  SELECT ref, $market AS market, place::INTEGER AS rank FROM (
    SELECT ref, row_number() OVER (ORDER BY key, unit, entry_key) AS place FROM (
      SELECT *, row_number() OVER (PARTITION BY unit ORDER BY entry_key) AS member FROM (
        SELECT ref, unit, sha256($entry_prefix || ref) AS entry_key,
               CASE WHEN weight = 1 THEN sha256($prefix || unit || '|0')
               ELSE list_min(list_transform(range(weight), lambda j: sha256($prefix || unit || '|' || j))) END AS key
        FROM entries WHERE key < $bound)
    ) WHERE member <= $wins
  ) WHERE place <= $seats
) TO $path (FORMAT parquet)
"""
_COUNT = "SELECT count(*) FROM read_parquet($path)"
MOST_CHOICES = 3
# Share of the fans in each segment that a rule names.
SEGMENT_SHARE = 0.2
_POOL_ROWS = 100_000


def simulation_seeds(text: str | None, random_hex: Callable[[], str]) -> Iterator[str]:
    """Yield a secret (64 hex digits) for each round: random, or reproducible for the same `text`.

    Raises UsageError if `text` looks like the seed or secret of a draw.
    """
    if text is not None and _SECRET.fullmatch(text.strip()):
        raise UsageError(
            "--seed looks like the seed or secret of a draw, which a simulation must not use: give a word"
        )
    return _secrets(text, random_hex)


def _secrets(text: str | None, random_hex: Callable[[], str]) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield (
            random_hex()
            if text is None
            else hashlib.sha256(f"simulation|{text}|{number}".encode()).hexdigest()
        )


def simulate(
    pool: Path,
    scenario: Scenario,
    *,
    rounds: int,
    seeds: Iterator[str],
    engine: Engine,
    on_round: Callable[[int], None] = lambda _done: None,
    quick: bool | None = None,
) -> Simulation:
    """Draw `pool` (pool.parquet) `rounds` times. With `quick` None the short way is used where it is exact.

    Raises DrawError for a pool that a draw would refuse, such as one with a repeated ref.
    """
    short = can_be_quick(scenario) if quick is None else quick
    with (
        scratch_folder(engine.scratch) as folder,
        duckdb.connect(str(folder / "simulation.duckdb"), config=_config(engine)) as base,
    ):
        entries = folder / "entries.parquet"
        _stage(base, pool, entries, scenario)
        # Also for the short way, which reads no leaves, so that both ways refuse the same pools.
        count = write_leaves(entries, folder / LEAVES, engine=engine).leaves
        groups = _Groups(base)
        tickets = int(_one(base, "SELECT coalesce(sum(weight), 0) FROM member"))
        winners, ranks = [], []
        for number in range(1, rounds + 1):
            seed = _begin(folder, scenario, count, next(seeds))
            drawn = folder / "winners.parquet"
            if short:
                quick_winners(entries, tickets, scenario, DRAW_ID, seed, drawn, engine)
            else:
                compute(folder, None, folder / "out", engine=engine)
                outcomes = {"outcomes": str(folder / "out" / OUTCOMES)}
                base.execute(_WINNERS, {**outcomes, "path": str(drawn)})
            won, last = groups.won(drawn)
            winners.append(won)
            ranks.append(
                {
                    m.market_id: last[m.market_id]
                    for m in scenario.markets
                    if 0 < m.capacity == won["market", m.market_id]
                }
            )
            on_round(number)
        return Simulation(scenario, short, groups.entries, tuple(winners), tuple(ranks))


def _config(engine: Engine) -> dict[str, Any]:
    return {"threads": engine.threads, "memory_limit": f"{max(engine.memory_mib // 2, 64)}MiB"}


def _stage(base: duckdb.DuckDBPyConnection, pool: Path, entries: Path, scenario: Scenario) -> None:
    """Write entries.parquet with the scenario's weights, the table `member`, and the distinct lists as tables."""
    values = {"pool": str(pool)}
    base.execute("CREATE TABLE ticket (segment VARCHAR, weight INTEGER)")
    for segment, weight in scenario.weights.items():
        base.execute("INSERT INTO ticket VALUES (?, ?)", [segment, weight])
    base.execute(
        "CREATE TABLE segment_list AS SELECT n, list, (SELECT max(weight) FROM ticket"
        " WHERE list_contains(list, segment)) AS weight FROM (SELECT row_number() OVER (ORDER BY list) AS n, list"
        " FROM (SELECT DISTINCT segments AS list FROM read_parquet($pool)))",
        values,
    )
    base.execute(
        "CREATE TABLE preference_list AS SELECT row_number() OVER (ORDER BY list) AS n, list"
        " FROM (SELECT DISTINCT preferences AS list FROM read_parquet($pool))",
        values,
    )
    base.execute(_ENTRIES, {**values, "path": str(entries)})
    base.execute(_MEMBERS, {"entries": str(entries)})
    if _one(base, "SELECT count(*) FROM member WHERE weight > 1"):
        # The short way needs the weight of the unit in every row.
        base.execute(
            "COPY (SELECT e.* REPLACE (m.weight AS weight) FROM read_parquet($entries) e JOIN member m USING (ref))"
            " TO $path (FORMAT parquet)",
            {"entries": str(entries), "path": f"{entries}.heavy"},
        )
        entries.with_name(entries.name + ".heavy").replace(entries)


def _begin(folder: Path, scenario: Scenario, count: int, secret: str) -> str:
    """Write manifest, strikes and seed of a round, which is never published. Returns the seed."""
    source = ManifestSeedSource(QUICKNET_HASH, 1)
    manifest = Manifest(
        as_of="1970-01-01T00:00:00.000Z",
        campaign_id=DRAW_ID,
        count=count,
        draw_id=DRAW_ID,
        markets=tuple(_terms(market) for market in scenario.markets),
        phase=1,
        previous=None,
        # The root proves the pool to others, to whom a simulation is not shown.
        root="0" * 64,
        seed_source=source,
        registrations=None,
        strikes_hash=sha256_hex(b""),
        strikes_root=root_over(b""),
        waitlist_size=scenario.waitlist_size,
        wins_per_unit=scenario.wins_per_unit,
    ).to_bytes()
    # Parsed for its checks.
    seed = SeedFile.of(
        Manifest.parse(manifest).hash, source, hashlib.sha384(bytes.fromhex(secret)).hexdigest()
    )
    (folder / MANIFEST).write_bytes(manifest)
    (folder / STRIKES).write_bytes(b"")
    (folder / SEED).write_bytes(seed.to_bytes())
    return seed.seed


def _terms(market: Market) -> MarketTerms:
    reserves = tuple(ReserveTerms(each.segment, each.seats) for each in market.reserves)
    return MarketTerms(market.market_id, market.capacity, reserves)


class Won(NamedTuple):
    groups: Counter[Group]
    last: dict[str, int]  # rank that each market admitted


class _Groups:
    """Counts entries and winners by group, over the few distinct lists."""

    def __init__(self, base: duckdb.DuckDBPyConnection) -> None:
        self._base = base
        self._preferences: dict[int, list[str]] = dict(
            base.execute("SELECT n, list FROM preference_list").fetchall()
        )
        self._segments: dict[int, list[str]] = dict(
            base.execute("SELECT n, list FROM segment_list").fetchall()
        )
        self.entries: Counter[Group] = Counter({("all", ""): 0})
        tally = base.execute("SELECT preferences, segments, weight, count(*) FROM member GROUP BY ALL")
        for preferences, segments, weight, n in tally.fetchall():
            self._add(self.entries, segments, weight, n)
            listed = self._preferences[preferences]
            self.entries["first", listed[0]] += n
            for place, market in enumerate(listed, 1):
                self.entries["any", market] += n
                self.entries["place", str(place)] += n

    def won(self, winners: Path) -> Won:
        found: Counter[Group] = Counter()
        last: dict[str, int] = defaultdict(int)
        for preferences, segments, weight, market, n, rank in self._base.execute(
            _TALLY, {"winners": str(winners)}
        ).fetchall():
            self._add(found, segments, weight, n)
            place = self._preferences[preferences].index(market) + 1
            found["market", market] += n
            found["place", str(place)] += n
            if place == 1:
                found["kept", market] += n
            last[market] = max(last[market], rank)
        return Won(found, last)

    def _add(self, counter: Counter[Group], segments: int, weight: int, n: int) -> None:
        counter["all", ""] += n
        counter["weight", str(weight)] += n
        for segment in self._segments[segments] or [""]:
            counter["segment", segment] += n


def can_be_quick(scenario: Scenario) -> bool:
    """Whether the short way is exact: for one market without reserves, which every entry lists."""
    return (
        len(scenario.markets) == 1 and not scenario.markets[0].reserves and scenario.markets[0].capacity > 0
    )


def quick_winners(
    entries: Path, tickets: int, scenario: Scenario, draw_id: str, seed: str, winners: Path, engine: Engine
) -> bool:
    """Write the winners (`ref, market, rank`) as Parquet. Returns whether the market is full.

    `entries` is a Parquet file with `ref, unit, weight` (of the unit) and a total of `tickets`.
    """
    market = scenario.markets[0]
    bound = _SLACK * market.capacity / max(tickets, 1)
    with engine.connection() as database:
        database.read_parquet(str(entries)).create_view("entries")
        while True:
            database.execute(
                _QUICK_WINNERS,
                {
                    "path": str(winners),
                    "market": market.market_id,
                    "prefix": key_prefix(seed, draw_id),
                    "entry_prefix": entry_key_prefix(seed),
                    # No key reaches 'g', so every entry is below the bound.
                    "bound": "g" if bound >= 1 else f"{int(bound * 2**_KEY_BITS):016x}",
                    "wins": scenario.wins_per_unit,
                    "seats": market.capacity,
                },
            )
            row = database.execute(_COUNT, {"path": str(winners)}).fetchone()
            full = row is not None and row[0] == market.capacity
            if full or bound >= 1:
                return full
            bound *= 2


def write_synthetic_pool(
    folder: Path, entries: int, markets: Sequence[str], segments: Sequence[str], rng: np.random.Generator
) -> None:
    """Write `pool.parquet` with this number of synthetic entries into `folder`, in constant memory.

    The n-th market is 1/n as popular as the first. Each fan lists up to three markets, belongs to each segment with a
    chance of one in five, and is a household of one with weight 1.
    """
    with pq.ParquetWriter(folder / POOL, POOL_SCHEMA, compression="zstd") as writer:
        for start in range(0, entries, _POOL_ROWS):
            writer.write_table(_pool_table(start, min(_POOL_ROWS, entries - start), markets, segments, rng))


def _pool_table(
    start: int, count: int, markets: Sequence[str], segments: Sequence[str], rng: np.random.Generator
) -> pa.Table:
    refs = pa.array([f"simulated-{n:010d}" for n in range(start, start + count)])
    # Each of several independent exponential clocks rings first with a chance in proportion to its rate, and so on.
    popularity = 1 / np.arange(1, len(markets) + 1)
    clocks = rng.exponential(size=(count, len(markets))) / popularity
    choices = np.argsort(clocks, axis=1)[:, :MOST_CHOICES]
    lengths = rng.integers(1, choices.shape[1] + 1, count)
    listed = np.arange(choices.shape[1]) < lengths[:, None]
    member = rng.random((count, len(segments))) < SEGMENT_SHARE
    columns: list[pa.Array[Any]] = [
        refs,
        refs,
        pa.array(np.ones(count, np.int32)),
        _list_column(np.broadcast_to(np.arange(len(segments)), member.shape), member, segments),
        _list_column(choices, listed, markets),
        refs,
        pa.array([""] * count),
        pa.array([""] * count),
        pa.nulls(count, pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=POOL_SCHEMA)


def _list_column(
    indexes: NDArray[np.int64], chosen: NDArray[np.bool_], names: Sequence[str]
) -> pa.Array[Any]:
    offsets = np.concatenate([[0], np.cumsum(chosen.sum(axis=1))]).astype(np.int32)
    values: pa.Array[Any] = pa.array(np.array(names, object)[indexes[chosen]], pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _one(base: duckdb.DuckDBPyConnection, statement: str) -> Any:
    row = base.execute(statement).fetchone()
    return None if row is None else row[0]
