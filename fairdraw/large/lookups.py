"""Lookups in the sorted text artefacts of a draw, so that a receipt does not read ten million lines.

`SortedFile` finds the line of a ref by binary search. The unit index finds the leaves of a household: a file beside
the index of the Merkle tree that can be rebuilt from leaves.txt at any time. For every leaf whose unit has more than
one leaf it holds the first 8 bytes of SHA-256(unit), sorted, and then, in the same order, the byte offset of the leaf.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fairdraw.large.columns import read_leaves
from fairdraw.large.engine import Engine
from fairdraw.maths.leaves import LEAF_COLUMNS


class Line(NamedTuple):
    """`text` without its LF; `start` and `end` (past the LF) are byte offsets."""

    start: int
    end: int
    text: str

    @property
    def ref(self) -> str:
        return self.text.partition("|")[0]


class Neighbours(NamedTuple):
    before: Line | None
    after: Line | None


class SortedFile:
    """`ref|...` lines in strictly increasing byte order of ref. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._size = path.stat().st_size
        # An empty file cannot be mapped.
        self._map: mmap.mmap | bytes = b""
        if self._size:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> SortedFile:
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._map, mmap.mmap):
            self._map.close()
        self._file.close()

    def find(self, ref: str) -> Line | None:
        line = self._first_from(ref)
        return line if line is not None and line.ref == ref else None

    def around(self, ref: str) -> Neighbours:
        """The last line before `ref` and the first one at or after it."""
        after = self._first_from(ref)
        end = self._size if after is None else after.start
        return Neighbours(None if end == 0 else self._line(self._start_before(end - 1)), after)

    def at(self, start: int) -> Line:
        """The line that starts at this byte."""
        return self._line(start)

    def holding(self, part: str) -> list[Line]:
        """Every line that contains `part`, found by one scan of the file."""
        found: list[Line] = []
        sought, position = part.encode("ascii"), 0
        while (position := self._map.find(sought, position)) >= 0:
            line = self._line(self._start_before(position))
            found.append(line)
            position = line.end
        return found

    def _first_from(self, ref: str) -> Line | None:
        low, high = 0, self._size
        # `low` and `high` are starts of lines (or the end). All lines before `low` are smaller than `ref`.
        while low < high:
            line = self._line(self._start_before((low + high) // 2))
            if line.ref < ref:
                low = line.end
            else:
                high = line.start
        return None if low >= self._size else self._line(low)

    def _start_before(self, position: int) -> int:
        """The start of the line that contains the byte at `position`."""
        return self._map.rfind(b"\n", 0, position) + 1

    def _line(self, start: int) -> Line:
        end = self._map.find(b"\n", start)
        stop = self._size if end < 0 else end
        return Line(start, min(stop + 1, self._size), self._map[start:stop].decode("ascii", "replace"))


_TYPES: dict[str, pa.DataType] = {"unit": pa.string(), "start": pa.int64()}
_SCHEMA = pa.schema(_TYPES)
_SHARED = """
SELECT head, start FROM (SELECT ('0x' || left(sha256(unit), 16))::UBIGINT AS head, start FROM leaves)
QUALIFY count(*) OVER (PARTITION BY head) > 1 ORDER BY head, start
"""
_NUMBER = np.dtype("<u8")


def write_unit_index(leaves: Path, index: Path) -> None:
    """Write the unit index, in about 20 s for ten million leaves. Raises DrawError for a malformed leaves.txt."""
    engine = Engine(index.parent / f"{index.name}-{os.getpid()}", memory_mib=500)
    made = index.with_name(f"{index.name}-{os.getpid()}.part")
    try:
        with engine.connection() as connection:
            connection.register("leaves", pa.RecordBatchReader.from_batches(_SCHEMA, _starts(leaves)))
            found = connection.sql(_SHARED).to_arrow_table()
        with made.open("wb") as file:
            for name in ("head", "start"):
                file.write(found[name].to_numpy().astype(_NUMBER).tobytes())
        made.replace(index)
    finally:
        made.unlink(missing_ok=True)
        if engine.scratch.is_dir():
            engine.scratch.rmdir()


def starts_of(unit: str, index: Path) -> list[int]:
    """Byte offsets of the leaves of a unit; empty if it has one leaf. One in 2^64 offsets may be of another unit."""
    if index.stat().st_size == 0:
        return []
    numbers = np.memmap(index, _NUMBER, "r")
    heads, starts = np.split(numbers, 2)
    head = np.uint64(int.from_bytes(hashlib.sha256(unit.encode()).digest()[:8], "big"))
    low, high = np.searchsorted(heads, head, "left"), np.searchsorted(heads, head, "right")
    return [int(start) for start in starts[low:high]]


def _starts(leaves: Path) -> Iterator[pa.RecordBatch]:
    done = 0
    for batch in read_leaves(leaves):
        # Four bars and the line feed; a weight is one digit or two.
        lengths = np.full(batch.num_rows, 6, np.int64) + (batch["weight"].to_numpy() > 9)
        for name in LEAF_COLUMNS:
            if name != "weight":
                lengths += pc.binary_length(batch[name]).to_numpy()
        ends = done + np.cumsum(lengths)
        yield pa.RecordBatch.from_arrays([batch["unit"], pa.array(ends - lengths)], schema=_SCHEMA)
        done = int(ends[-1]) if len(ends) else done
