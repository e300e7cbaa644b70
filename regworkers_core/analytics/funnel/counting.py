"""The numbers of the funnel: DuckDB, which spills to disk, joins all entries; pandas gets the aggregates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import duckdb
import pandas as pd

from fairdraw.large.engine import spilling
from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.analytics.funnel.staging import (
    CODED,
    FROZEN,
    LISTED,
    MESSAGES,
    NONE,
    OUTCOMES,
    REPLICA,
    SOURCE,
    STAGES,
    Stage,
    StagedFiles,
)
from regworkers_core.domain.selection import NoticeType, Outcome

# The preferences of an entry come from the frozen pool, from which was drawn; without a pool from the source; and for
# entries that only the replica has, from there. What an entry won is in the row of its latest phase.
_ENTRIES = """CREATE TABLE entry AS
SELECT coalesce(p.markets, s.markets, r.markets, []) AS markets,
    coalesce(p.segments, s.segments, r.segments, []) AS segments,
    coalesce(p.day, s.day, r.day, $none) AS day,
    s.entry_id IS NOT NULL AS registered, r.entry_id IS NOT NULL AS replicated, p.entry_id IS NOT NULL AS eligible,
    w.entry_id IS NOT NULL AS won, c.entry_id IS NOT NULL AS coded, t.entry_id IS NOT NULL AS notified,
    w.market AS won_market, c.market AS coded_market, t.market AS notified_market
FROM source s
FULL JOIN replica r USING (entry_id)
FULL JOIN pool p USING (entry_id)
FULL JOIN winner w USING (entry_id)
FULL JOIN coded c USING (entry_id)
FULL JOIN sent t USING (entry_id)"""
_EMPTY = {
    FROZEN: "SELECT NULL::VARCHAR AS entry_id, NULL::VARCHAR[] AS markets, NULL::VARCHAR[] AS segments,"
    " NULL::VARCHAR AS day WHERE false",
    OUTCOMES: "SELECT NULL::VARCHAR AS entry_id, NULL::VARCHAR AS market, NULL::VARCHAR AS outcome WHERE false",
}


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of entries.

    Each frame has one row per market, segment or day (UTC, of the entry's creation), and one column per stage.
    """

    totals: Mapping[Stage, int]  # by stage
    # For two stages the entries that are in the first stage but not in the second, earlier one.
    without: Mapping[tuple[Stage, Stage], int]
    elsewhere: int  # codes of another market than the one won
    sent: Mapping[str, int]  # messages that were sent, by type
    superseded: Mapping[str, int]  # messages that became invalid before they were sent, by type
    markets: pd.DataFrame
    segments: pd.DataFrame
    days: pd.DataFrame  # by the day of creation


class Counting:
    """A context manager over a DuckDB file in `folder`."""

    def __init__(self, folder: Path, memory_mib: int) -> None:
        self._database = duckdb.connect(str(folder / "funnel.duckdb"), config=spilling(folder, memory_mib))

    def count(self, staged: StagedFiles, markets: Sequence[str]) -> Counts:
        """Count all entries. `markets` are those of the campaign, in order."""
        names = {"source": SOURCE, "replica": REPLICA, "pool": FROZEN, "outcome": OUTCOMES}
        for name, file in {**names, "selection": CODED, "message": MESSAGES}.items():
            path = staged.path(file)
            rows = (
                self._database.sql(_EMPTY[file]) if path is None else self._database.read_parquet(str(path))
            )
            rows.create_view(name)
        latest = "entry_id, arg_max(market, phase) AS market"
        for name, select in {
            "winner": f"entry_id, market FROM outcome WHERE outcome = '{Outcome.WINNER}'",
            "coded": f"{latest} FROM selection GROUP BY entry_id",
            "sent": f"{latest} FROM message WHERE status = '{RowStatus.SENT}' AND type = '{NoticeType.WINNER}' "
            "GROUP BY entry_id",
        }.items():
            self._database.execute(f"CREATE VIEW {name} AS SELECT {select}")
        self._database.execute(_ENTRIES, {"none": NONE})
        pairs = [(later, earlier) for at, later in enumerate(STAGES) for earlier in STAGES[:at]]
        numbers = self._row([*map(_count, STAGES), *(_count_without(*pair) for pair in pairs), _ELSEWHERE])
        sent, superseded = (
            dict(
                self._database.execute(
                    "SELECT type, count(*) FROM message WHERE status = ? GROUP BY type", [status.value]
                ).fetchall()
            )
            for status in (RowStatus.SENT, RowStatus.SUPERSEDED)
        )
        return Counts(
            dict(zip(STAGES, numbers, strict=False)),
            dict(zip(pairs, numbers[len(STAGES) :], strict=False)),
            numbers[-1],
            sent,
            superseded,
            self._markets(markets),
            self._frame(
                "segment", "unnest(CASE WHEN segments = [] THEN [$none] ELSE list_distinct(segments) END)"
            ),
            self._frame("day", "day"),
        )

    def _row(self, expressions: Sequence[str]) -> list[int]:
        found = self._database.execute(f"SELECT {', '.join(expressions)} FROM entry").fetchone()
        return [int(each) for each in found or ()]

    def _frame(self, name: str, key: str, stages: Sequence[Stage] = STAGES) -> pd.DataFrame:
        flags = ", ".join(stages)
        counts = ", ".join(f"{_count(stage)} AS {stage}" for stage in stages)
        statement = (
            f"SELECT {name}, {counts} FROM (SELECT {key} AS {name}, {flags} FROM entry) GROUP BY 1 ORDER BY 1"
        )
        values = {"none": NONE} if "$none" in key else {}
        found: pd.DataFrame = self._database.execute(statement, values).df().set_index(name)
        return found

    def _markets(self, markets: Sequence[str]) -> pd.DataFrame:
        self._database.execute("CREATE TABLE market (id VARCHAR)")
        if markets:
            self._database.executemany("INSERT INTO market VALUES (?)", [[each] for each in markets])
        known = "list_intersect(list_distinct(markets), (SELECT coalesce(list(id), []) FROM market))"
        parts = [
            self._frame("market", f"unnest(CASE WHEN {known} = [] THEN [$none] ELSE {known} END)", LISTED)
        ]
        for stage in STAGES[len(LISTED) :]:
            parts.append(self._frame("market", f"{stage}_market", (stage,)).query("index.notna()"))
        found = pd.concat(parts, axis=1).reindex([*markets, *_others(parts, markets)])
        return found.fillna(0).astype(int).rename_axis("market")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()


_ELSEWHERE = "count(*) FILTER (WHERE won AND coded AND won_market <> coded_market)"


def _count(stage: Stage) -> str:
    return f"count(*) FILTER (WHERE {stage})"


def _count_without(later: Stage, earlier: Stage) -> str:
    return f"count(*) FILTER (WHERE {later} AND NOT {earlier})"


def _others(parts: Sequence[pd.DataFrame], markets: Sequence[str]) -> list[str]:
    """Names in the counts that are not markets of the campaign."""
    found = {str(name) for part in parts for name in part.index}
    return sorted(found - set(markets))
