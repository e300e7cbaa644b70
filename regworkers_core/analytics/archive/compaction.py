"""Merges the small files of a day and type, deletes files that are no longer needed, and expires old days.

New files are written first, then one write of the manifest replaces the old ones, which remain for a while for their
readers. A crash at any point leaves files that no manifest names, which the next run deletes; repeating a compaction
does nothing.

Expiry is off by default, because the archive is the record. Digests of expired ids stay: an event that Kafka shows
again must not come back as a new one.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow.parquet as pq

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.analytics.archive.files import (
    DAMAGED,
    FOLDERS,
    IDS,
    IDS_SCHEMA,
    batch_name,
    concatenate,
    data_key,
)
from regworkers_core.analytics.archive.manifest import (
    LEASE,
    ArchiveManifest,
    DataFile,
    Ledger,
    ReplacedFile,
    SideFile,
    read_manifest,
)
from regworkers_core.analytics.archive.rows import DAMAGED_SCHEMA, ArchivePartition
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import held_lease
from regworkers_core.engine.stop import OnStep
from regworkers_core.runtime import Runtime
from regworkers_core.settings import ArchiveSettings

# From this size on, a file of digests (32 MB) or damaged records is not small.
_LARGE_ROWS = 2_000_000
# The one of two rows with one id stays that Kafka had first. Rows are ordered as readers query them.
_MERGE = """COPY (
    SELECT * FROM read_parquet($files, hive_partitioning = false)
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY kafkaTopic, kafkaPartition, kafkaOffset) = 1
    ORDER BY time, id
) TO $out (FORMAT parquet, COMPRESSION zstd)"""


@dataclass(frozen=True, slots=True)
class Compaction:
    """Merges small files. `folder` holds local copies and is deleted by the caller."""

    objects: ObjectStore
    folder: Path
    settings: ArchiveSettings
    on_step: OnStep

    def due(self, manifest: ArchiveManifest) -> list[ArchivePartition]:
        """Return the days and types with at least `compactFiles` small files, those with the most of them first."""
        small = self._small(manifest)
        found = [place for place, files in small.items() if len(files) >= self.settings.compact_files]
        return sorted(found, key=lambda place: (-len(small[place]), place))

    def sides_due(self, manifest: ArchiveManifest) -> bool:
        """Return whether there are at least `compactFiles` small files of digests, or of damaged records."""
        return any(
            len(_small(files)) >= self.settings.compact_files for files in (manifest.ids, manifest.damaged)
        )

    def merge(self, ledger: Ledger, place: ArchivePartition, at: str, now: float) -> int:
        """Merge one day and type; return how many files became one. Raises Superseded if another run has written."""
        old = self._small(ledger.manifest)[place]
        paths = [self._local(file.key) for file in old]
        out = self.folder / "merged.parquet"
        with duckdb.connect(config=self._duckdb()) as database:
            database.execute(_MERGE, {"files": [str(path) for path in paths], "out": str(out)})
        with pq.ParquetFile(out) as merged:
            rows = merged.metadata.num_rows
        key = data_key(place, self._name(ledger))
        new = DataFile(key, *place, rows, out.stat().st_size)
        self.objects.put_file(key, out)
        self.on_step("archive.compacted")
        repeats = sum(file.rows for file in old) - rows
        gone = set(old)
        manifest = ledger.manifest
        ledger.commit(
            at,
            files=(*(file for file in manifest.files if file not in gone), new),
            replaced=(*manifest.replaced, *(ReplacedFile(file.key, now) for file in old)),
            repeats=manifest.repeats + repeats,
        )
        self.on_step("archive.compaction_committed")
        self._forget([*paths, out])
        return len(old)

    def merge_sides(self, ledger: Ledger, at: str, now: float) -> None:
        """Merge the files of digests and of damaged records."""
        manifest, name, gone = ledger.manifest, self._name(ledger), list[str]()
        kept: dict[str, tuple[SideFile, ...]] = {}
        for field, files, folder, schema in (
            ("ids", manifest.ids, IDS, IDS_SCHEMA),
            ("damaged", manifest.damaged, DAMAGED, DAMAGED_SCHEMA),
        ):
            small = _small(files)
            if len(small) < self.settings.compact_files:
                continue
            paths, out = [self._local(file.key) for file in small], self.folder / "merged.parquet"
            new = SideFile(f"{folder}{name}.parquet", concatenate(paths, schema, out))
            self.objects.put_file(new.key, out)
            self._forget([*paths, out])
            kept[field] = (*(file for file in files if file not in small), new)
            gone += [file.key for file in small]
        self.on_step("archive.sides_compacted")
        ledger.commit(at, **kept, replaced=(*manifest.replaced, *(ReplacedFile(key, now) for key in gone)))

    def _small(self, manifest: ArchiveManifest) -> dict[ArchivePartition, list[DataFile]]:
        found: dict[ArchivePartition, list[DataFile]] = defaultdict(list)
        for file in manifest.files:
            if file.bytes < self.settings.compact_mib * 1024 * 1024:
                found[ArchivePartition(file.date, file.type)].append(file)
        return found

    def _name(self, ledger: Ledger) -> str:
        manifest = ledger.manifest
        return batch_name(manifest.generation + 1, manifest.token) + "-merged"

    def _local(self, key: str) -> Path:
        path = self.folder / key.replace("/", "_")
        self.objects.get_file(key, path)
        return path

    def _forget(self, paths: Sequence[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    def _duckdb(self) -> dict[str, Any]:
        spill = str(self.folder / "spill")
        return {"memory_limit": f"{self.settings.memory_mib}MiB", "threads": 2, "temp_directory": spill}


def delete_replaced(
    objects: ObjectStore, manifest: ArchiveManifest, before: float
) -> tuple[ReplacedFile, ...]:
    """Delete the files that were replaced up to `before`; return the others. A file that is deleted but still listed is
    deleted again by the next run.
    """
    for each in manifest.replaced:
        if each.at <= before:
            objects.delete(each.key)
    return tuple(each for each in manifest.replaced if each.at > before)


def sweep(objects: ObjectStore, manifest: ArchiveManifest) -> int:
    """Delete the files of runs that died before their commit; return their number. Call it after a commit: from then
    on no other run can commit what is deleted here.
    """
    orphans = [key for folder in FOLDERS for key in objects.list(folder) if key not in manifest.keys]
    for key in orphans:
        objects.delete(key)
    return len(orphans)


def _small(files: Sequence[SideFile]) -> list[SideFile]:
    return [file for file in files if file.rows < _LARGE_ROWS]


@dataclass(frozen=True, slots=True)
class Expired:
    """Files and rows of days that are no longer kept."""

    first_day: str  # the first that is kept
    files: int
    rows: int
    bytes: int  # of those files
    left_files: int
    left_bytes: int  # of the files that remain


def expire(
    runtime: Runtime, *, first_day: str, dry_run: bool, patience_seconds: float | None = None
) -> Expired:
    """Remove every day before `first_day` (`2026-11-25`) from the archive. A repeat does nothing.

    Raises LeaseBusy if a run of the archive held the lease during the whole wait (default: until a dead run's lease has
    expired), Superseded if another run has written meanwhile, TransientFailure.
    """
    manifest, _ = read_manifest(runtime.objects)
    gone, found = _split(manifest, first_day)
    if dry_run or not gone:
        return found
    with held_lease(
        runtime.leases,
        LEASE,
        f"expire-{uuid.uuid4().hex[:12]}",
        lease_seconds=runtime.settings.archive.lease_seconds,
        patience_seconds=patience_seconds,
    ) as lease:
        ledger = Ledger(runtime.objects, lease.token)
        return expire_days(ledger, first_day, runtime.clock())


def expire_days(ledger: Ledger, first_day: str, now: float) -> Expired:
    """Remove the days as the holder of the lease. Raises Superseded."""
    manifest = ledger.manifest
    gone, found = _split(manifest, first_day)
    if gone:
        ledger.commit(
            iso(now),
            files=tuple(file for file in manifest.files if file.date >= first_day),
            replaced=(*manifest.replaced, *(ReplacedFile(file.key, now) for file in gone)),
            expired=manifest.expired + found.rows,
        )
    return found


class _Split(NamedTuple):
    gone: list[DataFile]
    expired: Expired


def _split(manifest: ArchiveManifest, first_day: str) -> _Split:
    gone = [file for file in manifest.files if file.date < first_day]
    left = [file for file in manifest.files if file.date >= first_day]
    sizes = (sum(file.rows for file in gone), sum(file.bytes for file in gone))
    return _Split(gone, Expired(first_day, len(gone), *sizes, len(left), sum(file.bytes for file in left)))
