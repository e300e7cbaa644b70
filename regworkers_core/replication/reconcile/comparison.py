"""The comparison of two whole tables in bounded memory: join both sides, read again what may be lag.

States are loaded into a DuckDB file and joined there; Python only holds a page of differences. The file is in a
temporary folder and is deleted with it.

What could be lag is read again after the lag objective. It is a difference only if the source has not changed for that
long and the replica still does not agree. What agrees by then is dropped, what changed again gets another generation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import duckdb
import pyarrow as pa

from regworkers_core.adapters.files.spilling import spilling
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order
from regworkers_core.engine import scheduling
from regworkers_core.replication.reconcile.classify import (
    EntrySide,
    Kind,
    Pair,
    Sides,
    classify,
    could_be_lag,
    is_confirmed,
)

PAGE = 1000
# A commit takes as long as inserting some thousand rows, and one transaction for all would hold all in memory.
_LOAD_ROWS = 20_000

# name, type in Arrow, type in DuckDB
_STATE: tuple[tuple[str, pa.DataType, str], ...] = (
    ("campaign", pa.string(), "VARCHAR"),
    ("entry", pa.string(), "VARCHAR"),
    ("created_at", pa.string(), "VARCHAR"),
    ("version", pa.int64(), "BIGINT"),
    ("updated_at", pa.string(), "VARCHAR"),
    ("live", pa.bool_(), "BOOLEAN"),
    ("content", pa.binary(), "BLOB"),
    ("invalid", pa.bool_(), "BOOLEAN"),
    ("erased_at", pa.string(), "VARCHAR"),
)
_STATE_SCHEMA = pa.schema([pa.field(name, kind) for name, kind, _ in _STATE])
_PAIR_FIELDS: list[pa.Field[Any]] = [
    pa.field("n", pa.int64()),
    pa.field("step", pa.string()),
    pa.field("kind", pa.string()),
    *(pa.field(f"{side}_{name}", kind) for side in "sr" for name, kind, _ in _STATE),
]
_PAIR_SCHEMA = pa.schema(_PAIR_FIELDS)
_STATE_COLUMNS = ", ".join(f"{name} {kind}" for name, _, kind in _STATE)
_PAIR_COLUMNS = ", ".join(f"{side}.{name} AS {side}_{name}" for side in "sr" for name, _, _ in _STATE)

# Strings compare by code points here as they do in Python, so both see the same order.
_DIFFERING = f"""
CREATE TABLE difference AS
SELECT row_number() OVER () AS n, 'found' AS step, CAST(NULL AS VARCHAR) AS kind, {_PAIR_COLUMNS}
FROM source s FULL OUTER JOIN replica r ON s.campaign = r.campaign AND s.entry = r.entry
WHERE (s.campaign IS NULL AND r.live)
   OR (s.campaign IS NOT NULL
       AND (r.campaign IS NULL OR s.invalid OR NOT r.live OR r.erased_at IS NOT NULL
            OR (s.created_at, s.version, s.updated_at, s.content)
               IS DISTINCT FROM (r.created_at, r.version, r.updated_at, r.content)))
"""
_TOTALS = """
SELECT count(s_campaign), count(*) FILTER (WHERE r_live), count(*) FILTER (WHERE NOT r_live),
       count(s_campaign) FILTER (WHERE kind IS NULL), count(*) FILTER (WHERE s_campaign IS NULL AND r_live)
FROM difference
"""


class PairProgress(StrEnum):
    """How far a pair has been examined."""

    FOUND = "found"
    # To be read again after the lag objective.
    OPEN = "open"
    SETTLED = "settled"
    # Its key was queued by the repair.
    SENT = "sent"


@dataclass(frozen=True, slots=True)
class Difference:
    """A pair that differed when it was first read; `kind` is None when both sides agree by now."""

    n: int
    key: EntryKey
    pair: Pair
    step: PairProgress
    kind: Kind | None


class Totals(NamedTuple):
    """Entries by side; `matched` are those on which both agree, `only_in_replica` live without a source."""

    source: int
    replica: int
    tombstones: int
    matched: int
    only_in_replica: int


class Orphans(NamedTuple):
    """Orphaned entries of a campaign, and whether the source holds any entry of it at all."""

    campaign_id: str
    entries: int
    has_source: bool


class Comparison:
    """Load both sides, `compare`, then page through the differences and `put` back what was found."""

    def __init__(self, memory_mib: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="regworkers-reconcile-")
        folder = Path(self._folder.name)
        self._database = duckdb.connect(str(folder / "compare.duckdb"), config=spilling(folder, memory_mib))
        self._lock = scheduling.lock()
        self._loading: dict[str, list[Sequence[Any]]] = {"source": [], "replica": []}
        self._base = Totals(0, 0, 0, 0, 0)
        for side in self._loading:
            self._database.execute(f"CREATE TABLE {side} ({_STATE_COLUMNS})")

    def add(self, side: Literal["source", "replica"], states: Sequence[EntrySide]) -> None:
        """Load some states, each key once a side; from any thread."""
        rows = [_state_row(state) for state in states]
        with self._lock:
            waiting = self._loading[side]
            waiting.extend(rows)
            if len(waiting) >= _LOAD_ROWS:
                self._insert(side, waiting, _STATE_SCHEMA)
                waiting.clear()

    def compare(self) -> int:
        """Join both sides; the number of pairs that differ. Afterwards nothing can be added."""
        for side, rows in self._loading.items():
            self._insert(side, rows, _STATE_SCHEMA)
        self._loading.clear()
        self._database.execute(_DIFFERING)
        source, replica, tombstones = (
            self._number(f"SELECT count(*) FROM {table}")
            for table in ("source", "replica WHERE live", "replica WHERE NOT live")
        )
        differing = Totals(*self._row(_TOTALS))
        self._base = Totals(
            source - differing.source,
            replica - differing.replica,
            tombstones - differing.tombstones,
            source - differing.source,
            0,
        )
        self._database.execute(
            "CREATE TABLE populated AS SELECT campaign, count(*) AS entries FROM source GROUP BY campaign"
        )
        self._database.execute("DROP TABLE source")
        self._database.execute("DROP TABLE replica")
        return self._number("SELECT count(*) FROM difference")

    def pages(self, step: PairProgress, kinds: Sequence[Kind] = ()) -> Iterator[list[Difference]]:
        """The differences at this step (of these kinds, if given). One that is put back while paging does not come
        again.
        """
        marks = ", ".join("?" * len(kinds))
        condition = f"n > ? AND step = ?{f' AND kind IN ({marks})' if kinds else ''}"
        last = 0
        while True:
            rows = self._database.execute(
                f"SELECT * FROM difference WHERE {condition} ORDER BY n LIMIT {PAGE}", [last, step, *kinds]
            ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [_difference(row) for row in rows]

    def put(self, differences: Sequence[Difference]) -> None:
        """Store these under their numbers. One that is on neither side any more is removed."""
        if not differences:
            return
        numbers = [difference.n for difference in differences]
        self._database.execute("BEGIN")
        self._database.execute(
            "DELETE FROM difference WHERE n BETWEEN ? AND ? AND n IN (SELECT unnest(?))",
            [min(numbers), max(numbers), numbers],
        )
        left = [difference for difference in differences if difference.pair != Pair(None, None)]
        self._insert("difference", [_difference_row(difference) for difference in left], _PAIR_SCHEMA)
        self._database.execute("COMMIT")

    def settle_open(self, kind: Kind) -> None:
        """Settle all that is still open as `kind`."""
        self._database.execute(
            "UPDATE difference SET step = ?, kind = ? WHERE step = ?",
            [PairProgress.SETTLED, kind, PairProgress.OPEN],
        )

    def count(self, step: PairProgress) -> int:
        return self._number("SELECT count(*) FROM difference WHERE step = ?", [step])

    def counts(self) -> dict[Kind, int]:
        """Differences by kind, zeros included."""
        found = dict(
            self._database.execute(
                "SELECT kind, count(*) FROM difference WHERE kind IS NOT NULL GROUP BY kind"
            ).fetchall()
        )
        return {kind: found.get(kind.value, 0) for kind in Kind}

    def orphans(self) -> list[Orphans]:
        """By campaign, those with the most first."""
        rows = self._database.execute(
            "SELECT r_campaign, count(*) AS entries, r_campaign IN (SELECT campaign FROM populated) FROM difference"
            " WHERE kind = ? GROUP BY r_campaign ORDER BY entries DESC, r_campaign",
            [Kind.ORPHANED],
        ).fetchall()
        return [Orphans(*row) for row in rows]

    def source_entries(self, campaign_id: str) -> int:
        """Entries that the source has of a campaign."""
        return self._number(
            "SELECT coalesce(sum(entries), 0) FROM populated WHERE campaign = ?", [campaign_id]
        )

    def samples(self, kind: Kind, limit: int) -> tuple[str, ...]:
        """The first ids (`campaignId:entryId`) of a kind, as they may be shown."""
        rows = self._database.execute(
            "SELECT coalesce(s_campaign, r_campaign), coalesce(s_entry, r_entry) FROM difference"
            " WHERE kind = ? ORDER BY 1, 2 LIMIT ?",
            [kind, limit],
        ).fetchall()
        return tuple(EntryKey(campaign, entry).shown for campaign, entry in rows)

    def totals(self) -> Totals:
        """As last read: `source + only_in_replica` is `matched` and the sum of all kinds."""
        differing = Totals(*self._row(_TOTALS))
        return Totals(*(base + more for base, more in zip(self._base, differing, strict=True)))

    def close(self) -> None:
        self._database.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _insert(self, table: str, rows: Sequence[Sequence[Any]], schema: pa.Schema) -> None:
        if rows:
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            self._database.register("chunk", pa.table(columns, schema=schema))
            self._database.execute(f"INSERT INTO {table} SELECT * FROM chunk")
            self._database.unregister("chunk")

    def _row(self, statement: str, values: Sequence[Any] = ()) -> tuple[Any, ...]:
        row = self._database.execute(statement, list(values)).fetchone()
        if row is None:
            raise ValueError("an aggregate without a row")
        return row

    def _number(self, statement: str, values: Sequence[Any] = ()) -> int:
        return int(self._row(statement, values)[0])


def _state_row(state: EntrySide | None) -> tuple[Any, ...]:
    if state is None:
        return (None,) * len(_STATE)
    return (*state.key, *state.order, state.live, state.content, state.invalid, state.erased_at)


def _state(row: Sequence[Any]) -> EntrySide | None:
    if row[0] is None:
        return None
    campaign, entry, *order, live, content, invalid, erased_at = row
    return EntrySide(EntryKey(campaign, entry), Order(*order), live, content, invalid, erased_at)


def _difference_row(difference: Difference) -> tuple[Any, ...]:
    source, replica = difference.pair
    return (
        difference.n,
        difference.step.value,
        difference.kind and difference.kind.value,
        *_state_row(source),
        *_state_row(replica),
    )


def _difference(row: Sequence[Any]) -> Difference:
    n, step, kind = row[:3]
    middle = 3 + len(_STATE)
    pair = Pair(_state(row[3:middle]), _state(row[middle:]))
    key = EntryKey(row[3] or row[middle], row[4] or row[middle + 1])
    return Difference(n, key, pair, PairProgress(step), None if kind is None else Kind(kind))


Tick = Callable[[int], None]
_REFUSABLE = (Kind.MISSING, Kind.STALE, Kind.RESURRECTED)


class Recheck:
    """`clock` in epoch seconds, as `updatedAt` is."""

    def __init__(
        self,
        comparison: Comparison,
        sides: Sides,
        *,
        lag_objective_seconds: float,
        clock: Callable[[], float],
        sleep: Callable[[float], object],
        tick: Tick,
    ) -> None:
        self._comparison, self._sides = comparison, sides
        self._objective = lag_objective_seconds
        self._clock, self._sleep, self._tick = clock, sleep, tick

    def settle_certain(self, replica_read_at: float) -> None:
        """Settle what cannot be lag; the rest stays open. The replica was read after `replica_read_at`."""
        for page in self._comparison.pages(PairProgress.FOUND):
            read = []
            for difference in page:
                open_ = could_be_lag(
                    *difference.pair,
                    replica_read_at=replica_read_at,
                    lag_objective_seconds=self._objective,
                )
                step = PairProgress.OPEN if open_ else PairProgress.SETTLED
                read.append(replace(difference, step=step, kind=classify(*difference.pair)))
            self._comparison.put(self.with_rejected(read))

    def run(self, source_read_at: float, generations: int) -> int:
        """Settle what is open; the whole source was read by `source_read_at`. What changes in all `generations` becomes
        NOT_YET. Blocks for one lag objective per generation. Returns the number of generations. Raises
        TransientFailure.
        """
        for generation in range(generations):
            if not self._comparison.count(PairProgress.OPEN):
                return generation
            if (wait := source_read_at + self._objective - self._clock()) > 0:
                self._sleep(wait)
            for page in self._comparison.pages(PairProgress.OPEN):
                self._comparison.put(self.with_rejected(self._read_again(page, source_read_at)))
                self._tick(len(page))
            source_read_at = self._clock()
        self._comparison.settle_open(Kind.NOT_YET)
        return generations

    def _read_again(self, page: list[Difference], source_read_at: float) -> list[Difference]:
        fresh = self._sides.read([difference.key for difference in page])
        now = self._clock()
        read = []
        for before in page:
            pair = fresh[before.key]
            kind = classify(*pair)
            certain = kind is None or is_confirmed(
                before.pair.source, *pair, source_read_at=source_read_at, now=now
            )
            step = PairProgress.SETTLED if certain else PairProgress.OPEN
            read.append(replace(before, pair=pair, kind=kind, step=step))
        return read

    def with_rejected(self, read: Iterable[Difference]) -> list[Difference]:
        """The same, REJECTED where exactly this state of the source has an open dead letter."""
        differences = list(read)
        refused = self._sides.refused(
            difference.pair.source
            for difference in differences
            if difference.step is PairProgress.SETTLED and difference.kind in _REFUSABLE
        )
        return [
            replace(difference, kind=Kind.REJECTED) if difference.key in refused else difference
            for difference in differences
        ]
