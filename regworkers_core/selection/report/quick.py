"""The winners of one full market without ranking everybody: what only a simulation may do.

The K best of N are, nearly always, those with a key below K/N of the key space and one per cent more. Where too
few are below, the bound is doubled, so the winners are exactly those of the full draw (SELECTION.md, Engine).
A draw needs everybody's rank and never takes this way.
"""

from __future__ import annotations

from pathlib import Path

from regworkers_core.selection.maths.engine import Engine
from regworkers_core.selection.maths.rules import entry_key_prefix, key_prefix
from regworkers_core.selection.report.scenario import Scenario

_SLACK = 1.01
_KEY_BITS = 64
# As the draw ranks: by (key, unit, entryKey), the first so many of a unit being candidates.
_WINNERS = """
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
) TO '{path}' (FORMAT parquet)
"""
_COUNT = "SELECT count(*) FROM read_parquet($path)"


def can_be_quick(scenario: Scenario) -> bool:
    """Whether the short way is exact: one market without reserves, which everybody lists then."""
    return (
        len(scenario.markets) == 1 and not scenario.markets[0].reserves and scenario.markets[0].capacity > 0
    )


def quick_winners(
    entries: Path, tickets: int, scenario: Scenario, draw_id: str, seed: str, winners: Path, engine: Engine
) -> bool:
    """Write the winners (`ref, market, rank`) as Parquet; whether the market is full.

    `entries` is Parquet with `ref, unit, weight` (the unit's), holding so many `tickets` in all.
    """
    market = scenario.markets[0]
    bound = _SLACK * market.capacity / max(tickets, 1)
    with engine.connection() as database:
        database.execute(f"CREATE VIEW entries AS SELECT * FROM read_parquet('{_quoted(entries)}')")
        while True:
            database.execute(
                _WINNERS.format(path=_quoted(winners)),
                {
                    "market": market.market_id,
                    "prefix": key_prefix(seed, draw_id),
                    "entry_prefix": entry_key_prefix(seed),
                    # No key reaches 'g': then everybody is below the bound.
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


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
