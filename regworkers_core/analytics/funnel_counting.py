"""The numbers of the funnel. Each source becomes a narrow Parquet file of ids, markets, segments and days; DuckDB,
which spills to disk, joins all entries; pandas gets the aggregates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fairdraw.large.engine import spilling
from regworkers_core.adapters.judged_entries import POOL
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord, PhaseStatus
from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.selection import NoticeType, Outcome, pipeline_key
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.runtime import Runtime


class Stage(StrEnum):
    """The stages in the order in which an entry passes them."""

    REGISTERED = "registered"
    REPLICATED = "replicated"
    ELIGIBLE = "eligible"
    WON = "won"
    CODED = "coded"
    NOTIFIED = "notified"

    @property
    def source(self) -> str:
        return _SOURCES[self]


STAGES = tuple(Stage)
# These stages count an entry in every market of its preferences, the later ones in the market where it won.
LISTED = (Stage.REGISTERED, Stage.REPLICATED, Stage.ELIGIBLE)
# Means no market of the campaign, no segment, or an invalid day.
NONE = "–"
_SOURCES = {
    Stage.REGISTERED: "entries in the demand table now, by a consistent read; removed entries are not "
    "included",
    Stage.REPLICATED: "current live entries of the replica (MongoDB `entries`)",
    Stage.ELIGIBLE: "entries of the pool that the draw froze (`pool.parquet`): eligible, and able to take "
    "part",
    Stage.WON: "entries with the outcome WINNER in the latest drawn phase (`outcomes.parquet`)",
    Stage.CODED: "entries with a row in `selections` in any phase: each has an access code",
    Stage.NOTIFIED: "entries whose winner message the mailer's queue confirmed (`outbox`: SENT)",
}


# A file of the draw in the object store, one per phase.
OUTCOMES = "outcomes.parquet"
SOURCE, REPLICA, FROZEN = "source.parquet", "replica.parquet", "frozen.parquet"
CODED, MESSAGES = "coded.parquet", "messages.parquet"
_POOL_COLUMNS = ["entry_id", "preferences", "segments", "created_at"]
# Rows that are buffered before they are written: about 10 MB.
_ROWS = 50_000
_TEXT: pa.DataType = pa.string()
_TEXTS: pa.DataType = pa.list_(pa.string())
_ENTRY = {"entry_id": _TEXT, "markets": _TEXTS, "segments": _TEXTS, "day": _TEXT}
_CODED = {"entry_id": _TEXT, "market": _TEXT, "phase": pa.int32()}
_MESSAGE = {**_CODED, "type": _TEXT, "status": _TEXT}


@dataclass(frozen=True, slots=True)
class StagedFiles:
    """Files by name in a folder, of the draw as far as it has progressed."""

    folder: Path
    draw: DrawRecord | None
    frozen: PhaseRecord | None  # the phase whose pool is fixed
    drawn: PhaseRecord | None  # the phase that was drawn
    removed: int  # tombstones

    def path(self, name: str) -> Path | None:
        """The path of a file, None if the draw has not progressed that far."""
        there = {FROZEN: self.frozen is not None, OUTCOMES: self.drawn is not None}
        return self.folder / name if there.get(name, True) else None


def stage_sources(
    runtime: Runtime, campaign_id: str, folder: Path, tell: Callable[[str], None] = lambda _text: None
) -> StagedFiles:
    """Read all sources, from the last stage to the first. An entry that progresses meanwhile is then missing in the
    later stage, never in the earlier one. Raises TransientFailure.
    """
    tell("messages")
    _write(folder / MESSAGES, _MESSAGE, map(_message, runtime.outbox.entries(campaign_id)))
    tell("codes")
    _write(folder / CODED, _CODED, map(_coded, runtime.selections.entries(campaign_id)))
    tell("draw")
    record = runtime.draws.get(campaign_id)
    phases = [] if record is None else list(record.phases.values())
    frozen = next((phase for phase in phases if phase.freeze), None)
    drawn = next((phase for phase in reversed(phases) if phase.reached(PhaseStatus.DRAWN)), None)
    if record is not None and frozen is not None:
        runtime.objects.get_file(record.frozen_key(POOL), folder / POOL)
        _write(folder / FROZEN, _ENTRY, _of_the_pool(folder / POOL))
    if drawn is not None:
        key = pipeline_key(campaign_id, drawn.phase, OUTCOMES)
        runtime.objects.get_file(key, folder / OUTCOMES)
    removed = 0

    def replicated() -> Iterator[tuple[Any, ...]]:
        nonlocal removed
        for key, stored in runtime.replica.entries(campaign_id):
            if stored.fields is None:
                removed += 1
            else:
                yield _entry(key.entry_id, stored.fields)

    tell("entries of the replica")
    _write(folder / REPLICA, _ENTRY, replicated())
    tell("entries of the demand table")
    pages = runtime.demand_table.pages(campaign_id)
    _write(
        folder / SOURCE, _ENTRY, (_entry(key.entry_id, item) for page in pages for key, item in page.items)
    )
    return StagedFiles(folder, record, frozen, drawn, removed)


def _of_the_pool(path: Path) -> Iterator[tuple[Any, ...]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS, columns=_POOL_COLUMNS):
            columns = [column.to_pylist() for column in batch.select(_POOL_COLUMNS).columns]
            for entry_id, preferences, segments, created_at in zip(*columns, strict=True):
                yield entry_id, preferences, segments, _day(created_at)


def _entry(entry_id: str, fields: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        entry_id,
        _texts(fields.get("markets")),
        _texts(fields.get("segments")),
        _day(fields.get("createdAt")),
    )


def _day(created_at: object) -> str:
    """The day in UTC, as in the eligibility report."""
    moment = seconds(created_at) if isinstance(created_at, str) else None
    return NONE if moment is None else iso(moment)[:10]


def _texts(value: object) -> list[str]:
    """The texts in a list; the demand table may contain anything else."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _coded(document: Mapping[str, Any]) -> tuple[Any, ...]:
    return document["entryId"], document["marketId"], document["phase"]


def _message(document: Mapping[str, Any]) -> tuple[Any, ...]:
    return *_coded(document), NoticeType(document["type"]).value, RowStatus(document["status"]).value


def _write(path: Path, columns: Mapping[str, Any], rows: Iterable[tuple[Any, ...]]) -> None:
    fields: list[pa.Field[Any]] = [pa.field(name, kind) for name, kind in columns.items()]
    schema, held = pa.schema(fields), list[tuple[Any, ...]]()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def flush() -> None:
            if held:
                arrays = [
                    pa.array(column, kind)
                    for column, kind in zip(zip(*held, strict=True), columns.values(), strict=True)
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
                held.clear()

        for row in rows:
            held.append(row)
            if len(held) == _ROWS:
                flush()
        flush()


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
