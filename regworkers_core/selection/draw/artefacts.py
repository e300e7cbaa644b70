"""The artefacts of a draw in S3, and a temporary folder to work on them.

No file stays on a machine between two steps: each fetches its inputs and stores its results. The `draws` document has
the SHA-256 of every file that a step reads; a file with another hash stops the draw, so that write access to the bucket
does not decide who wins.

outcomes.parquet is known by two hashes, which a rewritten file with the same rows shares: `result_hash`, to which the
draw commits, and `entries_hash` over what result.txt lacks: the entry ids, which say who gets a code, and the outcomes
of the phase before, which say who gets a message.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fairdraw.errors import DrawError
from fairdraw.maths.files import file_hash, sha256_hex
from regworkers_core.adapters.aws.objects import MissingObject, ObjectStore
from regworkers_core.adapters.mongo.draws import PhaseRecord
from regworkers_core.domain.reasons import PermanentFailure, Reason
from regworkers_core.domain.selection import public_key

if TYPE_CHECKING:
    import duckdb


class InputDiffers(DrawError):
    """A file in the store is not the one that the draw wrote. `expected` and `found` are SHA-256 in hex, empty if the
    draw recorded none or there is no file.
    """

    def __init__(self, key: str, expected: str, found: str) -> None:
        what = f"{key} has SHA-256 {found}" if found else f"{key} is missing"
        rule = (
            f"the draw wrote {expected or 'none'}: find out who changed it, restore the version that the draw wrote,"
            " then run the draw again"
        )
        super().__init__(key.rpartition("/")[2], f"{what}, {rule}")
        self.key, self.expected, self.found = key, expected, found


class ResultDiffers(PermanentFailure):
    """The result of one draw is not what was committed to: a worker on many draws continues with the others."""

    def __init__(self, key: str, expected: str, found: str) -> None:
        what = f"{key} has rows of SHA-256 {found[:12]}" if found else f"{key} is missing, or cannot be read"
        rule = f"but {expected[:12] or 'none'} was committed to: restore the file that the draw wrote"
        super().__init__(Reason.RESULT_MISMATCH, f"{what}, {rule}")
        self.key, self.expected, self.found = key, expected, found


def own_prefix(name: str, token: int) -> str:
    """Return a unique folder for the files of one attempt. The random part is for a new lease table, whose tokens start
    from 1 again; the `draws` document says which attempt counts.
    """
    return f"{name}-{token}-{secrets.token_hex(4)}"


class Workbench:
    """A temporary folder with a subfolder `phase-<n>` per phase, filled from the store on demand."""

    def __init__(self, objects: ObjectStore, campaign_id: str, root: Path) -> None:
        self._objects, self._campaign_id, self.root = objects, campaign_id, root
        self.scratch = root / "scratch"
        self.scratch.mkdir()

    def phase(self, number: int) -> Path:
        """Return the folder of a phase, laid out as by `draw export`."""
        folder = self.root / f"phase-{number}"
        folder.mkdir(exist_ok=True)
        return folder

    def fetch(self, key: str, path: Path, expected: str) -> Path:
        """Download one object, whose SHA-256 is `expected` (hex). Raises InputDiffers, TransientFailure."""
        try:
            self._objects.get_file(key, path)
        except MissingObject:
            raise InputDiffers(key, expected, "") from None
        if (found := file_hash(path)) != expected:
            raise InputDiffers(key, expected, found)
        return path

    def put(self, key: str, path: Path) -> str:
        """Store one file under a new key and return its SHA-256. Raises InputDiffers if the key has other bytes."""
        ours = file_hash(path)
        if not self._objects.put_file_once(key, path):
            stored = self.scratch / "stored"
            self.fetch(key, stored, ours)
            stored.unlink()
        return ours

    def fetch_public(self, phase: PhaseRecord, *names: str) -> Path:
        """Download artefacts of a phase into its folder and return that. Raises InputDiffers."""
        folder = self.phase(phase.phase)
        for name in names:
            key = public_key(self._campaign_id, phase.phase, name)
            self.fetch(key, folder / name, phase.hashes.get(name, ""))
        return folder

    def put_public(self, number: int, *names: str) -> dict[str, str]:
        """Publish artefacts of a phase and return their SHA-256 by name. A repeat makes the same bytes. Raises
        InputDiffers if the store has others.
        """
        folder = self.phase(number)
        return {name: self.put(public_key(self._campaign_id, number, name), folder / name) for name in names}


def publish_once(objects: ObjectStore, key: str, data: bytes) -> None:
    """Store `data` under a new key. Raises InputDiffers if the key has other bytes."""
    if (stored := objects.put_once(key, data)) != data:
        raise InputDiffers(key, sha256_hex(data), sha256_hex(stored))


@contextmanager
def workbench(objects: ObjectStore, campaign_id: str) -> Iterator[Workbench]:
    """Yield a workbench and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="regworkers-draw-") as folder:
        yield Workbench(objects, campaign_id, Path(folder))


# The lines of result.txt.
_RESULT = "ref || '|' || market || '|' || CASE rank WHEN 0 THEN '' ELSE rank::VARCHAR END || '|' || outcome"
# Only the entry id may contain a bar, so no two different rows make the same line.
_ENTRIES = "ref || '|' || entry_id || '|' || previous || '|' || previous_market"


def result_hash(connection: duckdb.DuckDBPyConnection, table: str, scratch: Path) -> str:
    """Return the SHA-256 in hex of `table` in the form of result.txt, by way of a file in `scratch`."""
    return _hash(connection, _RESULT, table, scratch)


def entries_hash(connection: duckdb.DuckDBPyConnection, table: str, scratch: Path) -> str:
    """Return the SHA-256 in hex of the lines `ref|entryId|outcome before|market before`, by ref."""
    return _hash(connection, _ENTRIES, table, scratch)


def _hash(connection: duckdb.DuckDBPyConnection, line: str, table: str, scratch: Path) -> str:
    text = scratch / "lines.txt"
    connection.execute(
        f"COPY (SELECT {line} FROM {table} ORDER BY ref) TO $text (FORMAT csv, HEADER false)",
        {"text": str(text)},
    )
    found = file_hash(text)
    text.unlink()
    return found
