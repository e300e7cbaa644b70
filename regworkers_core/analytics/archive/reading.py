"""Reads the archive: what it holds and how far it is behind Kafka, whether its files have one row per event id, and the
events of an entry, copied or as a view in DuckDB.

A list of all objects under `archive/` is not the archive: it includes replaced files and those that a dead run left. To
query S3 directly, DuckDB can use the manifest, too; docs/archive.md has the statement.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.aws.objects import MissingObject, ObjectStore
from regworkers_core.adapters.files import private_folder
from regworkers_core.analytics.archive.manifest import (
    LEASE,
    ROOT,
    ArchiveManifest,
    DataFile,
    lag,
    plan_reading,
    read_manifest,
)
from regworkers_core.analytics.archive.rows import DIGEST_BYTES, SCHEMA
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.runtime import Runtime


def archive_status(runtime: Runtime) -> dict[str, Any]:
    """Return a JSON document. `lag` is by topic; it is None, and `unavailable` is "kafka", if Kafka does not answer.
    Raises TransientFailure if S3 or the lease table does not answer.
    """
    manifest, _ = read_manifest(runtime.objects)
    holder = runtime.leases.get(LeaseHolder.key_of(LEASE))
    types: Counter[str] = Counter()
    for file in manifest.files:
        types[file.type] += file.rows
    days = sorted({file.date for file in manifest.files})
    behind, unavailable, gone, restarted = None, None, None, 0
    missing: list[str] = []
    try:
        with runtime.kafka_log(LEASE) as source:
            found = source.partitions(runtime.names.topics)
            missing = sorted(set(runtime.names.topics) - set(found))
            bounds = source.bounds([each for numbers in found.values() for each in numbers])
        plan = plan_reading(manifest, bounds, iso(runtime.clock()))
        behind = lag(plan.spans, manifest)
        gone, restarted = sum(each.end - each.first for each in plan.losses), len(plan.restarted)
    except TransientFailure as failure:
        unavailable = failure.dependency
    indexed = sum(each.rows for each in manifest.ids)
    return {
        "at": manifest.at or None,
        "generation": manifest.generation,
        "running": bool(holder and holder.owner),
        "interrupted": manifest.open and not (holder and holder.owner),
        "rows": manifest.rows,
        "ids": indexed,
        "types": dict(sorted(types.items())),
        "firstDay": days[0] if days else None,
        "lastDay": days[-1] if days else None,
        "days": len(days),
        "files": len(manifest.files),
        "bytes": sum(file.bytes for file in manifest.files),
        "read": manifest.read,
        "repeats": manifest.repeats,
        "damaged": manifest.damaged_rows,
        "lost": manifest.lost,
        "losses": [
            {
                "topic": each.topic,
                "partition": each.partition,
                "from": each.first,
                "to": each.end,
                "at": each.at,
            }
            for each in manifest.losses[-5:]
        ],
        "lag": behind,
        "unavailable": unavailable,
        "lostSince": gone,
        "restarted": restarted,
        "missingTopics": missing,
        "expired": manifest.expired,
        "addsUp": manifest.rows + manifest.expired == indexed
        and manifest.read == manifest.rows + manifest.expired + manifest.repeats + manifest.damaged_rows,
    }


def is_finding(status: dict[str, Any]) -> bool:
    """Return whether an operator has to act: wrong numbers, missing topics or events, Kafka unavailable."""
    troubles = ("unavailable", "lostSince", "restarted", "missingTopics", "interrupted")
    return not status["addsUp"] or any(status[name] for name in troubles)


_STAGE = f"""INSERT INTO row
SELECT unhex(left(sha256(id), {2 * DIGEST_BYTES})), type = $type AND strftime(time, '%Y-%m-%d') = $date
FROM read_parquet($path, hive_partitioning = false)"""


@dataclass(frozen=True, slots=True)
class Verified:
    """What the files hold, compared with manifest and index."""

    rows: int  # in the files
    named: int  # rows in the manifest
    repeated: int  # ids with more than one row
    misplaced: int  # rows in a wrong partition
    unindexed: int  # ids with a row but not in the index
    rowless: int  # ids in the index without a row
    missing: int  # files
    expired: int = 0  # ids whose rows were removed with their days

    @property
    def holds(self) -> bool:
        wrong = self.repeated + self.misplaced + self.unindexed + self.missing
        return not wrong and self.rowless == self.expired and self.rows == self.named

    def as_dict(self) -> dict[str, Any]:
        return {
            "holds": self.holds,
            "rows": self.rows,
            "rowsByManifest": self.named,
            "repeatedIds": self.repeated,
            "misplacedRows": self.misplaced,
            "idsNotIndexed": self.unindexed,
            "idsWithoutRow": self.rowless,
            "idsOfExpiredDays": self.expired,
            "missingFiles": self.missing,
        }


def verify(
    objects: ObjectStore,
    *,
    memory_mib: int,
    on_progress: Progress = no_progress,
) -> Verified:
    """Read every file of the archive once, in constant memory; a temporary folder takes 17 bytes per event. Raises
    TransientFailure.
    """
    manifest, _ = read_manifest(objects)
    with tempfile.TemporaryDirectory(prefix="regworkers-verify-") as name:
        folder = Path(name)
        config: dict[str, Any] = {"memory_limit": f"{memory_mib}MiB", "threads": 2}
        with duckdb.connect(str(folder / "verify.duckdb"), config=config) as database:
            database.execute(
                "CREATE TABLE row (digest BLOB, placed BOOLEAN); CREATE TABLE known (digest BLOB)"
            )
            missing = _stage(objects, manifest, database, folder, on_progress)
            rows, repeated, misplaced = _numbers(
                database,
                "SELECT coalesce(sum(n), 0), count(*) FILTER (WHERE n > 1), coalesce(sum(wrong), 0) FROM"
                " (SELECT count(*) AS n, count(*) FILTER (WHERE NOT placed) AS wrong FROM row GROUP BY digest)",
            )
            (unindexed,) = _numbers(database, _LACKING.format(of="row", other="known"))
            (rowless,) = _numbers(database, _LACKING.format(of="known", other="row"))
    return Verified(rows, manifest.rows, repeated, misplaced, unindexed, rowless, missing, manifest.expired)


_LACKING = "SELECT count(*) FROM (SELECT DISTINCT digest FROM {of}) ANTI JOIN {other} USING (digest)"


def _stage(
    objects: ObjectStore,
    manifest: ArchiveManifest,
    database: duckdb.DuckDBPyConnection,
    folder: Path,
    on_progress: Progress,
) -> int:
    """Load one file after the other; return the number of missing files."""
    missing, path = 0, folder / "file.parquet"
    works: list[tuple[str, str, dict[str, str]]] = [
        (file.key, _STAGE, {"path": str(path), "type": file.type, "date": file.date})
        for file in manifest.files
    ]
    index = "INSERT INTO known SELECT digest FROM read_parquet($path)"
    works += [(file.key, index, {"path": str(path)}) for file in manifest.ids]
    for number, (key, statement, values) in enumerate(works, 1):
        try:
            objects.get_file(key, path)
        except MissingObject:
            missing += 1
            continue
        database.execute(statement, values)
        on_progress(number, len(works))
    return missing


def _numbers(database: duckdb.DuckDBPyConnection, statement: str) -> tuple[int, ...]:
    found = database.execute(statement).fetchone()
    return tuple(int(each) for each in found or ())


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
    on_progress: Progress = no_progress,
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
