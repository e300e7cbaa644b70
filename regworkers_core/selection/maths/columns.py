"""leaves.txt and result.txt as batches of columns, strictly checked on the way."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.csv

from regworkers_core.selection.maths.arrow import Batch, Column, compute, text_bytes
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.files import LEAVES, RESULT
from regworkers_core.selection.maths.leaves import parse_leaf
from regworkers_core.selection.maths.rules import MAX_WEIGHT

LEAF_COLUMNS = ("ref", "unit", "weight", "segments", "preferences")
RESULT_COLUMNS = ("ref", "market", "rank", "outcome")
# `a|a|1||m` and its line feed.
LEAST_LEAF_BYTES = 9
_BLOCK_BYTES = 4 << 20
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-,|\n"
_LONGEST_ID = 64


class _Guarded(io.RawIOBase):
    """A text artefact, each piece of which is looked at while it passes: the alphabet, and the last line feed."""

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
                f"byte {at}: {strange[:1]!r} is none of A-Z a-z 0-9 _ - , | and line feed",
            )
        self._offset += len(data)
        self._last = data[-1:]
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


def read_columns(path: Path, artefact: str, columns: Sequence[str], wanted: Sequence[str]) -> Iterator[Batch]:
    """Batches of the `wanted` columns, all strings, in the order of the file. DrawError for a line with another
    number of fields, another byte than the alphabet's, or without its line feed.
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
        raise DrawError(artefact, f"{len(columns)} fields a line are needed: {error}") from None


def read_leaves(path: Path, wanted: Sequence[str] = LEAF_COLUMNS) -> Iterator[Batch]:
    """Batches of leaves.txt with the `wanted` columns; `weight` as UINT8. Refs, units and weights are checked
    where they are wanted, and that refs increase strictly; lists are left to who needs them.
    """
    before: str | None = None
    for batch in read_columns(path, LEAVES, LEAF_COLUMNS, wanted):
        for name in ("ref", "unit"):
            if name in wanted:
                _check_ids(batch, name)
        if "ref" in wanted:
            before = _check_order(batch["ref"], before)
        if "weight" in wanted:
            batch = batch.set_column(batch.schema.get_field_index("weight"), "weight", _weights(batch))
        yield batch


def read_result(path: Path) -> Iterator[Batch]:
    """Batches of result.txt, all columns strings."""
    yield from read_columns(path, RESULT, RESULT_COLUMNS, RESULT_COLUMNS)


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, the next one being read while this one is worked on: Arrow leaves the interpreter free."""
    with ThreadPoolExecutor(1, "leaves") as reader:
        following = reader.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = reader.submit(next, batches, None)
            yield batch


def _check_ids(batch: Batch, name: str) -> None:
    column = batch[name]
    lengths = compute.min_max(compute.binary_length(column)).as_py()
    if lengths["min"] < 1 or lengths["max"] > _LONGEST_ID or (text_bytes(column) == ord(",")).any():
        for text in column.to_pylist():
            if not 1 <= len(text) <= _LONGEST_ID or "," in text:
                raise DrawError(LEAVES, f"{name}: 1 to {_LONGEST_ID} of A-Z a-z 0-9 _ -, found {text!r}")


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
        raise DrawError(LEAVES, f"ref {ref} stands twice")
    if before > ref:
        raise DrawError(LEAVES, f"refs must increase strictly, {ref} follows {before}")


@cache
def _weight_texts() -> Column:
    # Arrow imports pandas for its first array: a quarter of a second that who only imports this should not pay.
    return pa.array([str(weight) for weight in range(1, MAX_WEIGHT + 1)])


def _weights(batch: Batch) -> Column:
    numbers = compute.index_in(batch["weight"], _weight_texts())
    if numbers.null_count:
        found = batch["weight"].filter(compute.is_null(numbers))[0].as_py()
        raise DrawError(LEAVES, f"a weight is 1 to {MAX_WEIGHT} without leading zero, found {found!r}")
    return compute.add(numbers, 1).cast(pa.uint8())


def refuse_leaf(batch: Batch, row: int, why: str) -> None:
    """DrawError about the leaf in this row of a batch with all columns."""
    line = "|".join(str(batch[name][row].as_py()) for name in LEAF_COLUMNS)
    parse_leaf(line)
    raise DrawError(LEAVES, f"{line!r}: {why}")
