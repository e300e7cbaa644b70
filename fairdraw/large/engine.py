"""DuckDB and Arrow as a draw uses them: few threads, a memory limit, and a folder to spill into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from fairdraw.maths.files import scratch_folder

# Threads share the memory limit, and a join that spills needs some for each.
THREADS = 2


def spilling(folder: Path, memory_mib: int, threads: int = THREADS) -> dict[str, Any]:
    """A connection's configuration that spills to `folder/spill` beyond `memory_mib`. Rows come in any order unless a
    query has an ORDER BY.
    """
    return {
        "memory_limit": f"{memory_mib}MiB",
        "temp_directory": str(folder / "spill"),
        "threads": threads,
        "preserve_insertion_order": False,
    }


@dataclass(frozen=True, slots=True)
class Engine:
    """DuckDB's settings for a draw. Results depend on none of them."""

    # It takes spilled data and temporary files, and is created when missing.
    scratch: Path
    # How many DuckDB takes.
    threads: int = 2
    # An approximate bound for the whole process: DuckDB gets half of it.
    memory_mib: int = 700
    # Rows held in Python at a time.
    batch_rows: int = 100_000

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a new connection; its spilled data is deleted at the end."""
        with scratch_folder(self.scratch) as folder:
            connection = duckdb.connect(config=spilling(folder, max(self.memory_mib // 2, 64), self.threads))
            try:
                yield connection
            finally:
                connection.close()
