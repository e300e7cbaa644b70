"""The configuration of DuckDB for work that is larger than memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
