"""The archive for those who read it: the files that the manifest names, copied or as a view in DuckDB.

A list of all objects under `archive/` is not the archive: it also shows what is about to be replaced or was left by a
run that died. On S3 itself DuckDB goes by the manifest, too; docs/archive.md has the line.
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
from regworkers_core.adapters.files.private_files import private_folder
from regworkers_core.analytics.archive.manifest import ROOT, DataFile, read_manifest
from regworkers_core.analytics.archive.rows import SCHEMA

# How often a file may have been let go between the look at the manifest and the copy.
_LOOKS = 3
_TYPES = {"string": "VARCHAR", "timestamp[us]": "TIMESTAMP", "int32": "INTEGER", "int64": "BIGINT"}


@dataclass(frozen=True, slots=True)
class Wanted:
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
    wanted: Wanted | None = None,
    tell: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Path]:
    """Make `folder` a copy of what is wanted, in `date=.../type=...` as on S3, and return its files. Those that it has
    are not fetched again, those that the archive replaced are removed. Raises TransientFailure.
    """
    for look in range(_LOOKS):
        manifest, _ = read_manifest(objects)
        files = [file for file in manifest.files if (wanted or Wanted()).holds(file)]
        paths = [folder / file.key.removeprefix(ROOT) for file in files]
        try:
            for number, (file, path) in enumerate(zip(files, paths, strict=True), 1):
                if not path.exists():
                    private_folder(path.parent)
                    objects.get_file(file.key, path)
                tell(number, len(files))
        except MissingObject:
            if look == _LOOKS - 1:
                raise
            continue
        for path in set(folder.glob("date=*/type=*/*.parquet")) - set(paths):
            path.unlink()
        return paths
    raise AssertionError("a look either returns or raises")


@contextmanager
def opened(objects: ObjectStore, wanted: Wanted | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection with the view `events`: a row an event, `date` and the columns of the archive."""
    with tempfile.TemporaryDirectory(prefix="regworkers-archive-") as name, duckdb.connect() as database:
        paths = fetch(objects, Path(name), wanted)
        database.execute(f"CREATE VIEW events AS {_select(paths)}")
        yield database


def frame(objects: ObjectStore, query: str, wanted: Wanted | None = None) -> pd.DataFrame:
    """What a query over `events` answers, as `SELECT date, type, count(*) FROM events GROUP BY ALL`."""
    with opened(objects, wanted) as database:
        found: pd.DataFrame = database.sql(query).df()
        return found


def _select(paths: Collection[Path]) -> str:
    if not paths:
        columns = ", ".join(f'NULL::{_TYPES[str(each.type)]} AS "{each.name}"' for each in SCHEMA)
        return f"SELECT NULL::DATE AS date, {columns} WHERE false"
    files = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    return f"SELECT time::DATE AS date, * FROM read_parquet([{files}], hive_partitioning = false)"
