"""DuckDB and Arrow as a draw uses them: few threads, a memory limit, and a folder to spill into."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.compute

from fairdraw.spilling import spilling


@dataclass(frozen=True, slots=True)
class Engine:
    """DuckDB's settings for a draw. Results depend neither on `threads` nor on `batch_rows`.

    `memory_mib` is an approximate bound for the whole process: DuckDB gets half of it. `scratch` takes spilled data and
    temporary files; it is created when missing.
    """

    scratch: Path
    threads: int = 2
    memory_mib: int = 700
    # Rows held in Python at a time.
    batch_rows: int = 100_000

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a new connection; its spilled data is deleted at the end."""
        with self.folder() as folder:
            connection = duckdb.connect(config=spilling(folder, max(self.memory_mib // 2, 64), self.threads))
            try:
                yield connection
            finally:
                connection.close()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Yield a temporary folder under `scratch`."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="draw-", dir=self.scratch) as folder:
            yield Path(folder)


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
