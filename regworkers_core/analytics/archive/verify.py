"""The promise, checked against the files themselves: one row per event id, nothing more, nothing less."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from regworkers_core.adapters.aws.objects import MissingObject, ObjectStore
from regworkers_core.analytics.archive.manifest import Manifest, read_manifest
from regworkers_core.analytics.archive.rows import DIGEST_BYTES

_STAGE = f"""INSERT INTO row
SELECT unhex(left(sha256(id), {2 * DIGEST_BYTES})), type = $type AND strftime(time, '%Y-%m-%d') = $date
FROM read_parquet($path, hive_partitioning = false)"""


@dataclass(frozen=True, slots=True)
class Verified:
    """`rows` of the files and as the manifest says (`named`), ids that have more than one row, rows in a partition
    that is not theirs, ids with a row that the index of ids lacks and the reverse, files that are missing. The rows of
    `expired` ids went with their days.
    """

    rows: int
    named: int
    repeated: int
    misplaced: int
    unindexed: int
    rowless: int
    missing: int
    expired: int = 0

    @property
    def holds(self) -> bool:
        wrong = self.repeated + self.misplaced + self.unindexed + self.missing
        return not wrong and self.rowless == self.expired and self.rows == self.named

    def as_dict(self) -> dict[str, Any]:
        """A JSON document."""
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
    objects: ObjectStore, *, memory_mib: int, tell: Callable[[int, int], None] = lambda _done, _all: None
) -> Verified:
    """Read every file of the archive once, at constant memory; 17 bytes an event go to a temporary folder. Raises
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
            missing = _stage(objects, manifest, database, folder, tell)
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
    manifest: Manifest,
    database: duckdb.DuckDBPyConnection,
    folder: Path,
    tell: Callable[[int, int], None],
) -> int:
    """Bring in one file after the other; returns how many there are not."""
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
        tell(number, len(works))
    return missing


def _numbers(database: duckdb.DuckDBPyConnection, statement: str) -> tuple[int, ...]:
    found = database.execute(statement).fetchone()
    return tuple(int(each) for each in found or ())
