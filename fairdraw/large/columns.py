"""leaves.txt, written from the pool; and read, like result.txt, as batches of columns that are strictly checked."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from fairdraw import scheduling
from fairdraw.errors import DrawError
from fairdraw.large.engine import Engine
from fairdraw.maths.files import LEAVES, RESULT
from fairdraw.maths.leaves import (
    LEAF_COLUMNS,
    RESULT_COLUMNS,
    SHAPE,
    UNIT,
    UNIT_LIKE,
    parse_leaf,
    require_unit,
)
from fairdraw.maths.rules import MAX_WEIGHT

# The type stubs of Arrow cover only a part of what these functions and columns take.
compute: Any = pyarrow.compute
Column = Any
Batch = Any


def terminated(lines: Column) -> memoryview:
    """Return the strings of an array, each with a line feed, as one block of memory."""
    joined = compute.binary_join_element_wise(lines, "", "\n")
    return memoryview(text_bytes(joined))


def text_bytes(strings: Column) -> Any:
    """Return the concatenated strings of an array as a numpy array of bytes."""
    _, offsets, data = strings.buffers()
    if data is None or not len(strings):
        return np.zeros(0, np.uint8)
    bounds = np.frombuffer(offsets, np.int32)
    start, end = bounds[strings.offset], bounds[strings.offset + len(strings)]
    return np.frombuffer(data, np.uint8)[start:end]


# A unit's weight is the largest among its leaves; most weigh 1, and only the others are joined. A missing list of
# segments counts as empty; any other missing value makes a malformed line.
_LEAVES = f"""
SELECT ref, line, weight,
       line IS NULL OR NOT regexp_full_match(line, '{SHAPE}') OR repeated OR own_weight < 1
           OR (ref <> unit AND NOT regexp_full_match(unit, '{UNIT.pattern}'))
           OR (starts_with(ref, 'u-') AND regexp_full_match(ref, '{UNIT_LIKE.pattern}')) AS wrong
FROM (
    SELECT p.ref, p.unit, p.weight AS own_weight, coalesce(heavy.weight, p.weight) AS weight,
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
class LeafCounts:
    """The number of leaves written, and of those with a weight above 1."""

    leaves: int
    weighted: int


def write_leaves(pool: Path, leaves: Path, *, engine: Engine) -> LeafCounts:
    """Write leaves.txt from pool.parquet (`ref, unit, weight, segments, preferences` in any order; other columns are
    ignored). Segments are sorted and made unique; nothing else is corrected.

    Raises DrawError for a duplicate ref and for a row that makes no well-formed leaf; then nothing is written.
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
    """Raise DrawError for the first row that is malformed or repeats a ref; return the batch's last ref."""
    if not batch.num_rows:
        return before
    wrong = compute.fill_null(batch["wrong"], True)
    if compute.any(wrong).as_py():
        line = batch["line"][compute.index(wrong, True).as_py()].as_py() or ""
        parse_leaf(line)
        raise DrawError(LEAVES, f"malformed leaf: {line!r}")
    refs = batch["ref"]
    same = compute.equal(refs.slice(1), refs.slice(0, len(refs) - 1))
    at = -1 if refs[0].as_py() != before else 0
    if at < 0 and (found := compute.index(same, True).as_py()) >= 0:
        at = found
    if at >= 0:
        raise DrawError(LEAVES, f"duplicate ref {refs[at].as_py()}: no two entries may share one")
    last: str = refs[len(refs) - 1].as_py()
    return last


_BLOCK_BYTES = 4 << 20
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-,|\n"
_LONGEST_ID = 64
_UNIT_CHARS = 45


class _Guarded(io.RawIOBase):
    """A text artefact whose bytes are checked as they are read: the alphabet, and the last line feed."""

    def __init__(self, path: Path, artefact: str) -> None:
        self._file, self._artefact = path.open("rb", buffering=0), artefact
        self._offset, self._last = 0, b"\n"

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if not data:
            if self._last != b"\n":
                raise DrawError(self._artefact, "the last line has no line feed")
            return b""
        strange = data.translate(None, _ALPHABET)
        if strange:
            at = self._offset + data.index(strange[:1])
            raise DrawError(
                self._artefact,
                f"byte {at}: {strange[:1]!r} is not one of A-Z a-z 0-9 _ - , | and line feed",
            )
        self._offset += len(data)
        self._last = data[-1:]
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


def read_columns(path: Path, artefact: str, columns: Sequence[str], wanted: Sequence[str]) -> Iterator[Batch]:
    """Yield batches of the `wanted` columns, all strings, in the order of the file. Raises DrawError for a line with
    the wrong number of fields, a byte outside the alphabet, or no line feed.
    """
    if path.stat().st_size == 0:
        return
    try:
        with _Guarded(path, artefact) as file:
            reader = pyarrow.csv.open_csv(
                cast(IO[bytes], file),
                read_options=pyarrow.csv.ReadOptions(column_names=list(columns), block_size=_BLOCK_BYTES),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter="|", quote_char=False, escape_char=False, ignore_empty_lines=False
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(columns, pa.string()),
                    include_columns=list(wanted),
                    strings_can_be_null=False,
                    check_utf8=False,
                ),
            )
            yield from reader
    except pa.ArrowInvalid as error:
        raise DrawError(artefact, f"{len(columns)} fields per line are needed: {error}") from None


def read_leaves(path: Path, wanted: Sequence[str] = LEAF_COLUMNS) -> Iterator[Batch]:
    """Yield batches of leaves.txt with the `wanted` columns; `weight` as UINT8. Wanted refs, units (together with the
    refs) and weights are checked, and that refs increase strictly; the caller checks segments and preferences. Raises
    DrawError.
    """
    before: str | None = None
    for batch in read_columns(path, LEAVES, LEAF_COLUMNS, wanted):
        if "ref" in wanted:
            _check_refs(batch["ref"])
        if "unit" in wanted:
            _check_units(batch["ref"], batch["unit"])
        if "ref" in wanted:
            before = _check_order(batch["ref"], before)
        if "weight" in wanted:
            batch = batch.set_column(batch.schema.get_field_index("weight"), "weight", _weights(batch))
        yield batch


def read_result(path: Path) -> Iterator[Batch]:
    """Yield batches of result.txt, all columns strings."""
    yield from read_columns(path, RESULT, RESULT_COLUMNS, RESULT_COLUMNS)


def ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the same batches, making one ahead in a thread: Arrow releases the interpreter lock."""
    with scheduling.pool(1, "leaves") as reader:
        following = reader.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = reader.submit(next, batches, None)
            yield batch


def _check_refs(refs: Column) -> None:
    lengths = compute.binary_length(refs)
    bounds = compute.min_max(lengths).as_py()
    if bounds["min"] < 1 or bounds["max"] > _LONGEST_ID or (text_bytes(refs) == ord(",")).any():
        for text in refs.to_pylist():
            if not 1 <= len(text) <= _LONGEST_ID or "," in text:
                raise DrawError(LEAVES, f"ref: 1 to {_LONGEST_ID} of A-Z a-z 0-9 _ -, found {text!r}")
    if bounds["max"] >= _UNIT_CHARS:
        for ref in refs.filter(compute.equal(lengths, _UNIT_CHARS)).to_pylist():
            if UNIT_LIKE.fullmatch(ref):
                raise DrawError(LEAVES, f"{ref}: a ref may not look like a unit")


def _check_units(refs: Column, units: Column) -> None:
    # Most units are one entry and have its ref.
    others = compute.not_equal(refs, units)
    named = units.filter(others)
    if not compute.all(compute.match_substring_regex(named, f"^{UNIT.pattern}$"), min_count=0).as_py():
        for ref, unit in zip(refs.filter(others).to_pylist(), named.to_pylist(), strict=True):
            require_unit(ref, unit)


def _check_order(refs: Column, before: str | None) -> str:
    if before is not None:
        _refuse_unordered(before, refs[0].as_py())
    ordered = compute.less(refs.slice(0, len(refs) - 1), refs.slice(1))
    if not compute.all(ordered, min_count=0).as_py():
        at = compute.index(ordered, False).as_py()
        _refuse_unordered(refs[at].as_py(), refs[at + 1].as_py())
    last: str = refs[len(refs) - 1].as_py()
    return last


def _refuse_unordered(before: str, ref: str) -> None:
    if before == ref:
        raise DrawError(LEAVES, f"duplicate ref {ref}")
    if before > ref:
        raise DrawError(LEAVES, f"refs must increase strictly, {ref} follows {before}")


@cache
def _weight_texts() -> Column:
    # Not at import: Arrow imports pandas for its first array, which takes a quarter of a second.
    return pa.array([str(weight) for weight in range(1, MAX_WEIGHT + 1)])


def _weights(batch: Batch) -> Column:
    numbers = compute.index_in(batch["weight"], _weight_texts())
    if numbers.null_count:
        found = batch["weight"].filter(compute.is_null(numbers))[0].as_py()
        raise DrawError(LEAVES, f"a weight is 1 to {MAX_WEIGHT} without leading zero, found {found!r}")
    return compute.add(numbers, 1).cast(pa.uint8())


def refuse_leaf(batch: Batch, row: int, why: str) -> None:
    """Raise DrawError for the leaf in this row of a batch with all columns."""
    line = "|".join(str(batch[name][row].as_py()) for name in LEAF_COLUMNS)
    parse_leaf(line)
    raise DrawError(LEAVES, f"{line!r}: {why}")
