"""The pairs in which both sides differ, in bounded memory, and the second look at what may be lag.

They lie in a temporary SQLite file that nothing else opens; Python only holds a page of them. What could be lag is read
again after the lag objective. It is a difference only if the source has not changed for that long and the replica still
does not agree. What agrees by then is dropped, what changed again gets another generation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple, Self

import orjson

from fairdraw import scheduling
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.replication.reconcile.classify import (
    PARKABLE,
    EntrySide,
    Kind,
    Pair,
    Sides,
    classify,
    could_be_lag,
    is_confirmed,
)

PAGE = 1000
# `live` is that of the replica, NULL where it has nothing. Texts compare by their bytes in UTF-8, as on both sides.
_TABLE = """
CREATE TABLE pair (
    n INTEGER PRIMARY KEY, campaign TEXT, entry TEXT, step TEXT, kind TEXT, source BLOB, replica BLOB, live INTEGER,
    UNIQUE (campaign, entry)
)
"""
_PUT = "INSERT OR REPLACE INTO pair VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_ALL = "SELECT n, campaign, entry, step, kind, source, replica FROM pair"
_TOTALS = """
SELECT count(source), count(*) FILTER (WHERE live), count(*) FILTER (WHERE NOT live),
       count(source) FILTER (WHERE kind IS NULL), count(*) FILTER (WHERE source IS NULL AND live)
FROM pair WHERE
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

    n: int  # its row in the comparison
    key: EntryKey
    pair: Pair
    step: PairProgress  # how far the pair is in being looked at again
    kind: Kind | None


class Totals(NamedTuple):
    """Entries by side."""

    source: int  # live
    replica: int  # live
    tombstones: int  # of the replica
    matched: int  # those on which both agree
    only_in_replica: int  # live ones without a source

    def plus(self, other: Totals) -> Totals:
        return Totals(*map(sum, zip(self, other, strict=True)))


class Range(NamedTuple):
    """The entries of a campaign from the id `first` on and before `end` (None: all the rest)."""

    campaign_id: str
    first: str
    end: str | None


class Orphans(NamedTuple):
    """Orphaned entries of a campaign, and whether the source holds any entry of it at all."""

    campaign_id: str
    entries: int
    has_source: bool


class Comparison:
    """`add` the pairs of both sides, then page through those that differ and `put` back what was found. `memory_mib`
    is how much of them stays in memory.
    """

    def __init__(self, memory_mib: int) -> None:
        # Imported late: it takes time at the start of each run.
        import sqlite3

        # Without a name: on disk where it does not fit, and gone with the connection.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for statement in ("PRAGMA journal_mode = OFF", f"PRAGMA cache_size = -{memory_mib * 1024}", _TABLE):
            self._database.execute(statement)
        self._lock = scheduling.lock()
        self._agreed = Totals(0, 0, 0, 0, 0)
        self._populated: Counter[str] = Counter()

    def add(self, pairs: Sequence[Pair]) -> Totals:
        """Keep what differs, and return the totals of the rest; each key comes once. From any thread."""
        differing = [pair for pair in pairs if classify(*pair) is not None]
        sources = Counter(pair.source.key.campaign_id for pair in pairs if pair.source is not None)
        matched = sources.total() - sum(pair.source is not None for pair in differing)
        tombstones = len(pairs) - len(differing) - matched
        rows = [_row(Difference(0, pair.key, pair, PairProgress.FOUND, None)) for pair in differing]
        agreed = Totals(matched, matched, tombstones, matched, 0)
        with self._lock:
            self._populated.update(sources)
            self._agreed = self._agreed.plus(agreed)
            self._write(rows)
        return agreed

    def expect(self, sources: Sequence[EntrySide]) -> None:
        """Keep states of the source, in any order, until `meet` gets those of the replica. From any thread."""
        rows = [_row(Difference(0, each.key, Pair(each, None), PairProgress.FOUND, None)) for each in sources]
        with self._lock:
            self._write(rows)

    def meet(self, replicas: Sequence[EntrySide]) -> None:
        """Drop the states of the source that agree with these, and keep the pairs that differ."""
        changed, agreed = [], []
        for replica in replicas:
            found = self._database.execute(f"{_ALL} WHERE campaign = ? AND entry = ?", replica.key).fetchone()
            before = _difference(found) if found else None
            pair = Pair(before.pair.source if before else None, replica)
            if classify(*pair) is not None:
                n = before.n if before else 0
                changed.append(_row(Difference(n, replica.key, pair, PairProgress.FOUND, None)))
            elif before is not None:
                agreed.append((before.n,))
        self._write(changed, agreed)

    def pages(self, step: PairProgress, kinds: Sequence[Kind] = ()) -> Iterator[list[Difference]]:
        """The differences at this step (of these kinds, if given). One that is put back while paging does not come
        again.
        """
        marks = ", ".join("?" * len(kinds))
        condition = f"n > ? AND step = ?{f' AND kind IN ({marks})' if kinds else ''}"
        last = 0
        while True:
            rows = self._database.execute(
                f"{_ALL} WHERE {condition} ORDER BY n LIMIT {PAGE}", [last, step, *kinds]
            ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [_difference(row) for row in rows]

    def put(self, differences: Sequence[Difference]) -> None:
        """Store these under their numbers. One that is on neither side any more is removed."""
        gone = [each for each in differences if each.pair == Pair(None, None)]
        left = [each for each in differences if each.pair != Pair(None, None)]
        self._write([_row(each) for each in left], [(each.n,) for each in gone])

    def settle_open(self, kind: Kind) -> None:
        self._database.execute(
            "UPDATE pair SET step = ?, kind = ? WHERE step = ?",
            [PairProgress.SETTLED, kind, PairProgress.OPEN],
        )

    def park(self, campaign_id: str, entries: Sequence[str]) -> None:
        """The keys of these entries wait: what is settled of them is PARKED, where that explains it."""
        marks = ", ".join("?" * len(PARKABLE))
        self._database.execute("BEGIN")
        self._database.executemany(
            f"UPDATE pair SET kind = ? WHERE campaign = ? AND entry = ? AND step = ? AND kind IN ({marks})",
            [(Kind.PARKED, campaign_id, each, PairProgress.SETTLED, *PARKABLE) for each in entries],
        )
        self._database.execute("COMMIT")

    def count(self, step: PairProgress) -> int:
        return self._number("SELECT count(*) FROM pair WHERE step = ?", [step])

    def counts(self, of: Range | None = None) -> dict[Kind, int]:
        """Differences by kind, zeros included; of all, or of a range of ids."""
        condition, values = _condition(of)
        found = dict(
            self._database.execute(
                f"SELECT kind, count(*) FROM pair WHERE {condition} AND kind IS NOT NULL GROUP BY kind",
                values,
            ).fetchall()
        )
        return {kind: found.get(kind.value, 0) for kind in Kind}

    def orphans(self) -> list[Orphans]:
        """Orphans of each campaign, those with the most first."""
        rows = self._database.execute(
            "SELECT campaign, count(*) AS entries FROM pair WHERE kind = ? GROUP BY campaign"
            " ORDER BY entries DESC, campaign",
            [Kind.ORPHANED],
        ).fetchall()
        return [Orphans(campaign, entries, campaign in self._populated) for campaign, entries in rows]

    def source_entries(self, campaign_id: str) -> int:
        return self._populated[campaign_id]

    def samples(self, kind: Kind, limit: int) -> tuple[str, ...]:
        """The first ids (`campaignId:entryId`) of a kind, as they may be shown."""
        rows = self._database.execute(
            "SELECT campaign, entry FROM pair WHERE kind = ? ORDER BY 1, 2 LIMIT ?", [kind, limit]
        ).fetchall()
        return tuple(EntryKey(campaign, entry).shown for campaign, entry in rows)

    def totals(self) -> Totals:
        """The totals as last read: `source + only_in_replica` is `matched` and the sum of all kinds."""
        return self._agreed.plus(self.differing(None))

    def differing(self, of: Range | None) -> Totals:
        """The totals without what agreed at once; of all, or of a range of ids."""
        condition, values = _condition(of)
        return Totals(*self._database.execute(_TOTALS + condition, values).fetchone())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def _write(self, rows: Sequence[Sequence[Any]], gone: Sequence[tuple[int]] = ()) -> None:
        if rows or gone:
            self._database.execute("BEGIN")
            self._database.executemany("DELETE FROM pair WHERE n = ?", gone)
            self._database.executemany(_PUT, rows)
            self._database.execute("COMMIT")

    def _number(self, statement: str, values: Sequence[Any]) -> int:
        return int(self._database.execute(statement, values).fetchone()[0])


class _Condition(NamedTuple):
    text: str
    values: list[str]


def _condition(of: Range | None) -> _Condition:
    if of is None:
        return _Condition("TRUE", [])
    campaign_id, first, end = of
    behind = "campaign = ? AND entry >= ?"
    if end is None:
        return _Condition(behind, [campaign_id, first])
    return _Condition(f"{behind} AND entry < ?", [campaign_id, first, end])


def _stored(state: EntrySide | None) -> bytes | None:
    if state is None:
        return None
    return orjson.dumps((*state.order, state.live, state.content.hex(), state.invalid, state.erased_at))


def _state(key: EntryKey, stored: bytes | None) -> EntrySide | None:
    if stored is None:
        return None
    *order, live, content, invalid, erased_at = orjson.loads(stored)
    return EntrySide(key, Order(*order), live, bytes.fromhex(content), invalid, erased_at)


def _row(difference: Difference) -> tuple[Any, ...]:
    source, replica = difference.pair
    return (
        # SQLite gives a new row the next number.
        difference.n or None,
        *difference.key,
        difference.step,
        difference.kind,
        _stored(source),
        _stored(replica),
        None if replica is None else replica.live,
    )


def _difference(row: Sequence[Any]) -> Difference:
    n, campaign, entry, step, kind, source, replica = row
    key = EntryKey(campaign, entry)
    pair = Pair(_state(key, source), _state(key, replica))
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

    def settle_certain(self) -> float:
        """Read what differs once more, consistently, and settle what agrees by now or cannot be lag; the rest stays
        open. Returns when the source had been read (epoch seconds). Raises TransientFailure.
        """
        for page in self._comparison.pages(PairProgress.FOUND):
            read_at = self._clock()
            fresh = self._sides.read([difference.key for difference in page])
            read = []
            for difference in page:
                pair = fresh[difference.key]
                kind = classify(*pair)
                open_ = kind is not None and could_be_lag(
                    *pair, replica_read_at=read_at, lag_objective_seconds=self._objective
                )
                step = PairProgress.OPEN if open_ else PairProgress.SETTLED
                read.append(replace(difference, pair=pair, step=step, kind=kind))
            self._comparison.put(self.with_rejected(read))
            self._tick(len(page))
        return self._clock()

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
