"""DuckDB for work that is larger than memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# The memory limit is shared by threads, and a join that spills needs some for each of them.
THREADS = 2


def spilling(folder: Path, memory_mib: int, threads: int = THREADS) -> dict[str, Any]:
    """The configuration of a connection that spills to `folder/spill` beyond `memory_mib`. Rows may come in any
    order: every query that needs one says so.
    """
    return {
        "memory_limit": f"{memory_mib}MiB",
        "temp_directory": str(folder / "spill"),
        "threads": threads,
        "preserve_insertion_order": False,
    }
