"""The files of the archive: those of one batch, which are never changed, and what becomes of them. Small files of a day
and type are merged, files that are no longer needed deleted, and old days expired.

The digests of a batch (16 bytes of each id, 8 of what its event says) are in separate files, which `KnownIds` scans to
find repeats, and other bodies under a known id.

A merge writes new files first, then one write of the manifest replaces the old ones, which remain for a while for their
readers. A crash at any point leaves files that no manifest names, which the next run deletes; repeating a compaction
does nothing.

Expiry is off by default, because the archive is the record. Digests of expired ids stay: an event that Kafka shows
again must not come back as a new one.
"""

from __future__ import annotations

import io
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.analytics.archive.manifest import (
    LEASE,
    ROOT,
    ArchiveManifest,
    DataFile,
    Ledger,
    ReplacedFile,
    SideFile,
    read_manifest,
)
from regworkers_core.analytics.archive.rows import (
    CONTENT_BYTES,
    DAMAGED_SCHEMA,
    DIGEST_BYTES,
    SCHEMA,
    ArchivePartition,
    Damaged,
    EventRow,
)
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import held_lease
from regworkers_core.engine.stop import OnStep
from regworkers_core.runtime import Runtime
from regworkers_core.settings import ArchiveSettings

IDS, DAMAGED = ROOT + "ids/", ROOT + "damaged/"
# The folders of the archive's own objects; other objects under its root are not touched.
FOLDERS = (ROOT + "date=", IDS, DAMAGED)


def batch_name(generation: int, token: int) -> str:
    """Return the name of the files that this generation adds; by the token, no two runs share a name."""
    return f"{generation:010d}-t{token}"


def data_key(place: ArchivePartition, name: str) -> str:
    return f"{ROOT}date={place.date}/type={place.type}/{name}.parquet"


def write_rows(objects: ObjectStore, rows: Iterable[EventRow], name: str) -> list[DataFile]:
    """Write a file for each day and type, with rows in Kafka's order."""
    by_place: dict[ArchivePartition, list[EventRow]] = {}
    for row in rows:
        by_place.setdefault(row.place, []).append(row)
    written = []
    for place, found in sorted(by_place.items()):
        key, data = data_key(place, name), _parquet(SCHEMA, [row.values for row in found])
        objects.put_bytes(key, data)
        written.append(DataFile(key, place.date, place.type, len(found), len(data)))
    return written


def write_ids(objects: ObjectStore, rows: Sequence[EventRow], name: str) -> list[SideFile]:
    if not rows:
        return []
    key = f"{IDS}{name}.parquet"
    # Random bytes: a dictionary or compression does not make them smaller.
    options = {"compression": "none", "use_dictionary": False}
    objects.put_bytes(key, _parquet(IDS_SCHEMA, [(row.digest, row.content) for row in rows], options))
    return [SideFile(key, len(rows))]


def write_damaged(objects: ObjectStore, damaged: Sequence[Damaged], name: str) -> list[SideFile]:
    """Write the damaged records with their original bytes, to find out where they came from."""
    if not damaged:
        return []
    key = f"{DAMAGED}{name}.parquet"
    objects.put_bytes(key, _parquet(DAMAGED_SCHEMA, [each.values for each in damaged]))
    return [SideFile(key, len(damaged))]


def concatenate(paths: Iterable[Path], schema: Any, out: Path) -> int:
    """Write the rows of all files into one, in constant memory; return their number."""
    rows = 0
    with pq.ParquetWriter(out, schema, compression="zstd", use_dictionary=False) as writer:
        for path in paths:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches():
                    writer.write_batch(batch)
                    rows += batch.num_rows
    return rows


def _parquet(schema: Any, rows: Sequence[Sequence[Any]], options: Mapping[str, Any] | None = None) -> bytes:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, each.type) for column, each in zip(columns, schema, strict=True)]
    out = io.BytesIO()
    settings: dict[str, Any] = {"compression": "zstd", **(options or {})}
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), out, **settings)
    return out.getvalue()


DIGEST: pa.DataType = pa.binary(DIGEST_BYTES)
IDS_SCHEMA = pa.schema({"digest": DIGEST, "content": pa.binary(CONTENT_BYTES)})
# Rows in memory at a time: 1 MiB.
_ROWS = 65_536
# The stubs do not cover all parameters of its functions.
_compute: Any = pyarrow.compute


class KnownIds:
    """The digests of all archived ids. Each file is copied to `folder` when it is first needed."""

    def __init__(self, objects: ObjectStore, folder: Path) -> None:
        self._objects, self._folder = objects, folder

    def among(self, digests: Collection[bytes], files: Sequence[SideFile]) -> dict[bytes, bytes]:
        """Return the `digests` that are in one of the files, with the content under each. Reads all files; memory is
        that of `digests`.
        """
        if not digests:
            return {}
        wanted = pa.array(list(digests), DIGEST)
        found: dict[bytes, bytes] = {}
        for file in files:
            for batch in self._batches(file):
                hits = batch.filter(_compute.is_in(batch.column(0), value_set=wanted))
                found.update(zip(*(column.to_pylist() for column in hits.columns), strict=True))
        return found

    def _batches(self, file: SideFile) -> Iterator[Any]:
        with pq.ParquetFile(self.local(file)) as parquet:
            yield from parquet.iter_batches(_ROWS)

    def local(self, file: SideFile) -> Path:
        """Return a local copy of the file, which never changes under its name."""
        path = self._folder / file.key.replace("/", "_")
        if not path.exists():
            self._objects.get_file(file.key, path)
        return path


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
