"""Many small files of a day and type become one; files that nothing needs any more go.

New files are written first, the manifest then names them in place of the old ones in one write, and the old ones stay
for a while for those who read them. A crash at any point leaves files that no manifest names, which the next run
sweeps away; a compaction that is repeated finds nothing to do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.analytics.archive.files import (
    DAMAGED,
    FOLDERS,
    IDS,
    batch_name,
    concatenate,
    data_key,
)
from regworkers_core.analytics.archive.ids import IDS_SCHEMA
from regworkers_core.analytics.archive.manifest import DataFile, Ledger, Manifest, Replaced, SideFile
from regworkers_core.analytics.archive.rows import DAMAGED_SCHEMA, Place
from regworkers_core.engine.stop import OnStep

# A file of digests (32 MB) or damaged records that is no longer small.
_LARGE_ROWS = 2_000_000
# Of two rows of one id the one that Kafka had first. The order is that in which people look.
_MERGE = """COPY (
    SELECT * FROM read_parquet({files}, hive_partitioning = false)
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY kafkaTopic, kafkaPartition, kafkaOffset) = 1
    ORDER BY time, id
) TO {out} (FORMAT parquet, COMPRESSION zstd)"""


@dataclass(frozen=True, slots=True)
class Compacted:
    """Files before and after, and repeated ids that were dropped."""

    before: int
    after: int
    repeats: int


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a run compacts with. `folder` takes copies, which go with it."""

    objects: ObjectStore
    folder: Path
    files: int
    large_bytes: int
    memory_mib: int
    on_step: OnStep

    def due(self, manifest: Manifest) -> list[Place]:
        """Days and types with so many small files, those with the most of them first."""
        small = self._small(manifest)
        found = [place for place, files in small.items() if len(files) >= self.files]
        return sorted(found, key=lambda place: (-len(small[place]), place))

    def sides_due(self, manifest: Manifest) -> bool:
        """Whether there are as many small files of digests, or of damaged records."""
        return any(len(_small(files)) >= self.files for files in (manifest.ids, manifest.damaged))

    def merge(self, ledger: Ledger, place: Place, at: str, now: float) -> Compacted:
        """One day and type. Raises Superseded when another run moved the archive on."""
        old = self._small(ledger.manifest)[place]
        paths = [self._local(file.key) for file in old]
        out = self.folder / "merged.parquet"
        files = "[" + ", ".join(map(_quoted, paths)) + "]"
        with duckdb.connect(config=self._duckdb()) as database:
            database.execute(_MERGE.format(files=files, out=_quoted(out)))
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
            replaced=(*manifest.replaced, *(Replaced(file.key, now) for file in old)),
            repeats=manifest.repeats + repeats,
        )
        self.on_step("archive.compaction_committed")
        self._forget([*paths, out])
        return Compacted(len(old), 1, repeats)

    def merge_sides(self, ledger: Ledger, at: str, now: float) -> None:
        """Digests and damaged records: as they are, in fewer files."""
        manifest, name, gone = ledger.manifest, self._name(ledger), list[str]()
        kept: dict[str, tuple[SideFile, ...]] = {}
        for field, files, folder, schema in (
            ("ids", manifest.ids, IDS, IDS_SCHEMA),
            ("damaged", manifest.damaged, DAMAGED, DAMAGED_SCHEMA),
        ):
            small = _small(files)
            if len(small) < self.files:
                continue
            paths, out = [self._local(file.key) for file in small], self.folder / "merged.parquet"
            new = SideFile(f"{folder}{name}.parquet", concatenate(paths, schema, out))
            self.objects.put_file(new.key, out)
            self._forget([*paths, out])
            kept[field] = (*(file for file in files if file not in small), new)
            gone += [file.key for file in small]
        self.on_step("archive.sides_compacted")
        ledger.commit(at, **kept, replaced=(*manifest.replaced, *(Replaced(key, now) for key in gone)))

    def _small(self, manifest: Manifest) -> dict[Place, list[DataFile]]:
        found: dict[Place, list[DataFile]] = defaultdict(list)
        for file in manifest.files:
            if file.bytes < self.large_bytes:
                found[Place(file.date, file.type)].append(file)
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
        return {"memory_limit": f"{self.memory_mib}MiB", "threads": 2, "temp_directory": spill}


def let_go(objects: ObjectStore, manifest: Manifest, before: float) -> tuple[Replaced, ...]:
    """Delete the files that were replaced until then; returns those that stay. What is deleted and still named as
    replaced is deleted again by the next run.
    """
    for each in manifest.replaced:
        if each.at <= before:
            objects.delete(each.key)
    return tuple(each for each in manifest.replaced if each.at > before)


def sweep(objects: ObjectStore, manifest: Manifest) -> int:
    """Delete the files of runs that died before they could commit them; returns how many. Only after a commit of the
    caller's own: from then on nobody else can commit what is deleted here.
    """
    orphans = [key for folder in FOLDERS for key in objects.list(folder) if key not in manifest.keys]
    for key in orphans:
        objects.delete(key)
    return len(orphans)


def _small(files: Sequence[SideFile]) -> list[SideFile]:
    return [file for file in files if file.rows < _LARGE_ROWS]


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
