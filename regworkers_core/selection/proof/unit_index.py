"""Where the entries of a household stand among the leaves, so that a receipt need not read them all.

A file beside the index of the Merkle tree, rebuildable from leaves.txt at any time: of every leaf whose unit has
more than one, the first 8 bytes of SHA-256(unit), sorted, then in the same order the leaf's byte offset.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regworkers_core.selection.maths.columns import LEAF_COLUMNS, read_leaves
from regworkers_core.selection.maths.engine import Engine

_TYPES: dict[str, pa.DataType] = {"unit": pa.string(), "start": pa.int64()}
_SCHEMA = pa.schema(_TYPES)
_SHARED = """
SELECT head, start FROM (SELECT ('0x' || left(sha256(unit), 16))::UBIGINT AS head, start FROM leaves)
QUALIFY count(*) OVER (PARTITION BY head) > 1 ORDER BY head, start
"""
_NUMBER = np.dtype("<u8")


def write_unit_index(leaves: Path, index: Path) -> None:
    """Takes some 20 s for ten million leaves. DrawError when leaves.txt is malformed."""
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
    """Byte offsets of the leaves that may be of the unit (of another one once in 2^64); empty when it has one."""
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
