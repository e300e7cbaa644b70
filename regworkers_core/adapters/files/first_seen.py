"""Where each value of a stream was first, in constant memory."""

from __future__ import annotations

import hashlib
import sqlite3

_CACHE_KIB = 4096


class FirstSeen:
    """Values by their hash, in a private database that goes to disk beyond a few megabytes."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE seen (value BLOB PRIMARY KEY, line INT) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def first(self, value: str, line: int) -> int | None:
        """The line where the value was first, None when it is this one."""
        key = hashlib.blake2b(value.encode(), digest_size=16).digest()
        added = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, line)).rowcount
        if added:
            return None
        found = self._database.execute("SELECT line FROM seen WHERE value = ?", (key,)).fetchone()
        return int(found[0])

    def __enter__(self) -> FirstSeen:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
