"""DuckDB set up for a draw: few threads, a memory limit, and a folder to spill into."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from regworkers_core.adapters.files.spilling import spilling


@dataclass(frozen=True, slots=True)
class Engine:
    """`memory_mib` bounds the whole process roughly: half of it is DuckDB's, the rest is for what runs beside.

    `scratch` takes the spilled data and temporary files; it is created when missing. Results do not depend on
    `threads` nor on `batch_rows`.
    """

    scratch: Path
    threads: int = 2
    memory_mib: int = 700
    # Rows that are held in Python at a time.
    batch_rows: int = 100_000

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own; what it spilled goes with it."""
        with self.folder() as folder:
            connection = duckdb.connect(config=spilling(folder, max(self.memory_mib // 2, 64), self.threads))
            try:
                yield connection
            finally:
                connection.close()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A temporary folder under `scratch`."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="draw-", dir=self.scratch) as folder:
            yield Path(folder)
