"""The files of one batch: rows by day and type, digests of their ids, damaged records. Written once, never changed.

The digests (16 bytes of each id, 8 of what its event says) are in separate files, which `KnownIds` scans to find
repeats, and other bodies under a known id.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.analytics.archive.manifest import ROOT, DataFile, SideFile
from regworkers_core.analytics.archive.rows import (
    CONTENT_BYTES,
    DAMAGED_SCHEMA,
    DIGEST_BYTES,
    SCHEMA,
    ArchivePartition,
    Damaged,
    EventRow,
)

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
