"""The leaves: one line per eligible entry, `ref|unit|weight|segments|preferences`, in ref order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from regworkers_core.domain.keys import SELECTION_ID
from regworkers_core.selection.maths.arrow import Batch, compute, terminated
from regworkers_core.selection.maths.engine import Engine
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.files import LEAVES
from regworkers_core.selection.maths.rules import MAX_WEIGHT

_ID = SELECTION_ID.pattern
_WEIGHT = "[1-9]|[1-5][0-9]|6[0-4]"
_LINE = re.compile(rf"({_ID})\|({_ID})\|({_WEIGHT})\|((?:{_ID}(?:,{_ID})*)?)\|({_ID}(?:,{_ID})*)", re.ASCII)
# The same for DuckDB, which has no groups to give.
_SHAPE = rf"{_ID}\|{_ID}\|(?:{_WEIGHT})\|(?:{_ID}(?:,{_ID})*)?\|{_ID}(?:,{_ID})*"
# A unit's weight is the largest among its leaves; most weigh 1, and only the others are joined. A missing list of
# segments is an empty one; any other missing value makes a malformed line.
_LEAVES = f"""
SELECT ref, line, weight,
       line IS NULL OR NOT regexp_full_match(line, '{_SHAPE}') OR repeated OR own_weight < 1 AS wrong
FROM (
    SELECT p.ref, p.weight AS own_weight, coalesce(heavy.weight, p.weight) AS weight,
           p.ref || '|' || p.unit || '|' || coalesce(heavy.weight, p.weight) || '|'
               || array_to_string(list_sort(list_distinct(coalesce(p.segments, []))), ',') || '|'
               || array_to_string(p.preferences, ',') AS line,
           len(p.preferences) <> len(list_distinct(p.preferences)) AS repeated
    FROM read_parquet($pool) p
    LEFT JOIN (
        SELECT unit, max(weight) AS weight FROM read_parquet($pool) WHERE weight > 1 GROUP BY unit
    ) heavy ON heavy.unit = p.unit
)
ORDER BY ref
"""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry as it takes part. `weight` is its unit's; `segments` sorted; `preferences` in the fan's order."""

    ref: str
    unit: str
    weight: int
    segments: tuple[str, ...]
    preferences: tuple[str, ...]

    @property
    def line(self) -> str:
        """Without the line feed, which is not part of the leaf."""
        lists = f"{','.join(self.segments)}|{','.join(self.preferences)}"
        return f"{self.ref}|{self.unit}|{self.weight}|{lists}"


def parse_leaf(line: str) -> Leaf:
    """The leaf in a line without its line feed. DrawError says what is wrong with it."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise DrawError(LEAVES, f"ref|unit|weight|segments|preferences is needed, found {line!r}{_why(line)}")
    ref, unit, weight, segments, preferences = found.groups()
    leaf = Leaf(
        ref,
        unit,
        int(weight),
        tuple(segments.split(",")) if segments else (),
        tuple(preferences.split(",")),
    )
    if any(before >= after for before, after in pairwise(leaf.segments)):
        raise DrawError(LEAVES, f"{ref}: segments must be sorted, each once, found {segments}")
    if len(set(leaf.preferences)) < len(leaf.preferences):
        raise DrawError(LEAVES, f"{ref}: a preference stands twice in {preferences}")
    return leaf


def _why(line: str) -> str:
    fields = line.split("|")
    if len(fields) == 5 and not re.fullmatch(_WEIGHT, fields[2]):
        return f": a weight is 1 to {MAX_WEIGHT} without leading zero, found {fields[2]!r}"
    if len(fields) == 5 and not fields[4]:
        return ": at least one preference is needed"
    return f": {len(fields)} fields" if len(fields) != 5 else ": ids are 1 to 64 of A-Z a-z 0-9 _ -"


@dataclass(frozen=True, slots=True)
class LeafCounts:
    """`leaves` written, and how many of them have a weight above 1."""

    leaves: int
    weighted: int


def write_leaves(pool: Path, leaves: Path, *, engine: Engine) -> LeafCounts:
    """Write leaves.txt from pool.parquet (`ref, unit, weight, segments, preferences`, any order, more columns are
    ignored). Segments are sorted and made unique here; nothing else is mended.

    DrawError for a repeated ref and for a row that makes no well-formed leaf; then nothing is written.
    """
    count, weighted, before = 0, 0, ""
    made = leaves.with_name(leaves.name + ".part")
    try:
        with made.open("wb") as file:
            for batch in _sorted_lines(pool, engine):
                before = _check(batch, before)
                file.write(terminated(batch["line"]))
                count += batch.num_rows
                weighted += compute.sum(compute.greater(batch["weight"], 1)).as_py() or 0
        made.replace(leaves)
    finally:
        made.unlink(missing_ok=True)
    return LeafCounts(count, weighted)


def _sorted_lines(pool: Path, engine: Engine) -> Iterator[Batch]:
    with engine.connection() as connection:
        found: Any = connection.sql(_LEAVES, params={"pool": str(pool)})
        yield from found.to_arrow_reader(engine.batch_rows)


def _check(batch: Batch, before: str) -> str:
    """DrawError for the first row that is wrong or repeats a ref; returns the batch's last ref."""
    if not batch.num_rows:
        return before
    wrong = compute.fill_null(batch["wrong"], True)
    if compute.any(wrong).as_py():
        line = batch["line"][compute.index(wrong, True).as_py()].as_py() or ""
        parse_leaf(line)
        raise DrawError(LEAVES, f"no well-formed leaf: {line!r}")
    refs = batch["ref"]
    same = compute.equal(refs.slice(1), refs.slice(0, len(refs) - 1))
    at = -1 if refs[0].as_py() != before else 0
    if at < 0 and (found := compute.index(same, True).as_py()) >= 0:
        at = found
    if at >= 0:
        raise DrawError(LEAVES, f"ref {refs[at].as_py()} stands twice: no two entries may share one")
    last: str = refs[len(refs) - 1].as_py()
    return last
