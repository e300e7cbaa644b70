"""Reads the archive: the files that the manifest names, copied or as a view in DuckDB.

A list of all objects under `archive/` is not the archive: it includes replaced files and those that a dead run left. To
query S3 directly, DuckDB can use the manifest, too; docs/archive.md has the statement.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from regworkers_core.adapters.aws.objects import MissingObject, ObjectStore
from regworkers_core.adapters.files import private_folder
from regworkers_core.analytics.archive.manifest import ROOT, DataFile, read_manifest
from regworkers_core.analytics.archive.rows import SCHEMA

# Attempts: a file may be deleted between the read of the manifest and the copy.
_ATTEMPTS = 3
_TYPES = {"string": "VARCHAR", "timestamp[us]": "TIMESTAMP", "int32": "INTEGER", "int64": "BIGINT"}


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Days from `since` to `until`, both included (`2026-11-25`; empty: no limit), and types (empty: all)."""

    since: str = ""
    until: str = ""
    types: Collection[str] = ()

    def holds(self, file: DataFile) -> bool:
        in_time = self.since <= file.date and (not self.until or file.date <= self.until)
        return in_time and (not self.types or file.type in self.types)


def fetch(
    objects: ObjectStore,
    folder: Path,
    wanted: EventFilter | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Path]:
    """Copy the wanted files into `folder`, in `date=.../type=...` as on S3, and return their paths. Files that exist
    are not copied again; files that the archive replaced are deleted. Raises TransientFailure.
    """
    for attempt in range(_ATTEMPTS):
        manifest, _ = read_manifest(objects)
        files = [file for file in manifest.files if (wanted or EventFilter()).holds(file)]
        paths = [folder / file.key.removeprefix(ROOT) for file in files]
        try:
            for number, (file, path) in enumerate(zip(files, paths, strict=True), 1):
                if not path.exists():
                    private_folder(path.parent)
                    objects.get_file(file.key, path)
                on_progress(number, len(files))
        except MissingObject:
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        for path in set(folder.glob("date=*/type=*/*.parquet")) - set(paths):
            path.unlink()
        return paths
    raise AssertionError("an attempt returns or raises")


@contextmanager
def opened(objects: ObjectStore, wanted: EventFilter | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB connection with the view `events`: one row per event, `date` and the columns of the archive."""
    with tempfile.TemporaryDirectory(prefix="regworkers-archive-") as name, duckdb.connect() as database:
        paths = fetch(objects, Path(name), wanted)
        _relation(database, paths).create_view("events")
        yield database


def frame(objects: ObjectStore, query: str, wanted: EventFilter | None = None) -> pd.DataFrame:
    """Return the result of a query over `events`, such as `SELECT date, type, count(*) FROM events GROUP BY ALL`."""
    with opened(objects, wanted) as database:
        found: pd.DataFrame = database.sql(query).df()
        return found


def _relation(database: duckdb.DuckDBPyConnection, paths: Collection[Path]) -> duckdb.DuckDBPyRelation:
    if not paths:
        columns = ", ".join(f'NULL::{_TYPES[str(each.type)]} AS "{each.name}"' for each in SCHEMA)
        return database.sql(f"SELECT NULL::DATE AS date, {columns} WHERE false")
    events = database.read_parquet([str(path) for path in paths], hive_partitioning=False)
    return events.project("time::DATE AS date, *")
