"""By which hashes `outcomes.parquet` is known again: the one that the draw commits to, and one over the rest of it.

`result.txt` has no entry ids and no outcomes before. Yet the file's entry ids say who is given a code, and its
outcomes before say who is told anything: what was written is kept as a second hash beside the first.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import duckdb

# The lines of result.txt.
_RESULT = "ref || '|' || market || '|' || CASE rank WHEN 0 THEN '' ELSE rank::VARCHAR END || '|' || outcome"
# An entry id may hold anything, and none of the others a bar: so no two rows have the same line.
_ENTRIES = "ref || '|' || entry_id || '|' || previous || '|' || previous_market"


def result_hash(connection: duckdb.DuckDBPyConnection, table: str, scratch: Path) -> str:
    """SHA-256 in hex of `table` written as result.txt is; it passes through a file in `scratch`."""
    return _hash(connection, _RESULT, table, scratch)


def entries_hash(connection: duckdb.DuckDBPyConnection, table: str, scratch: Path) -> str:
    """SHA-256 in hex of `ref|entryId|outcome before|market before`, a line each, by ref."""
    return _hash(connection, _ENTRIES, table, scratch)


def _hash(connection: duckdb.DuckDBPyConnection, line: str, table: str, scratch: Path) -> str:
    text = scratch / "lines.txt"
    connection.execute(
        f"COPY (SELECT {line} FROM {table} ORDER BY ref) TO '{text}' (FORMAT csv, HEADER false)"
    )
    with text.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    text.unlink()
    return found
