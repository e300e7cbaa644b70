"""The files of one batch: rows by day and type, digests of their ids, damaged records. Written once, never changed."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.analytics.archive.ids import IDS_SCHEMA
from regworkers_core.analytics.archive.manifest import ROOT, DataFile, SideFile
from regworkers_core.analytics.archive.rows import DAMAGED_SCHEMA, SCHEMA, Damaged, Place, Row

IDS, DAMAGED = ROOT + "ids/", ROOT + "damaged/"
# Where the archive's own objects lie: what else is under its root is somebody's.
FOLDERS = (ROOT + "date=", IDS, DAMAGED)


def batch_name(generation: int, token: int) -> str:
    """Of the files that the manifest of this generation adds. With the token, no two runs share a name."""
    return f"{generation:010d}-t{token}"


def data_key(place: Place, name: str) -> str:
    return f"{ROOT}date={place.date}/type={place.type}/{name}.parquet"


def write_rows(objects: ObjectStore, rows: Iterable[Row], name: str) -> list[DataFile]:
    """A file for each day and type, rows in the order in which Kafka had them."""
    by_place: dict[Place, list[Row]] = {}
    for row in rows:
        by_place.setdefault(row.place, []).append(row)
    written = []
    for place, found in sorted(by_place.items()):
        key, data = data_key(place, name), _parquet(SCHEMA, [row.values for row in found])
        objects.put_bytes(key, data)
        written.append(DataFile(key, place.date, place.type, len(found), len(data)))
    return written


def write_ids(objects: ObjectStore, rows: Sequence[Row], name: str) -> list[SideFile]:
    if not rows:
        return []
    key = f"{IDS}{name}.parquet"
    # Random bytes: neither a dictionary nor compression makes them smaller.
    options = {"compression": "none", "use_dictionary": False}
    objects.put_bytes(key, _parquet(IDS_SCHEMA, [(row.digest,) for row in rows], options))
    return [SideFile(key, len(rows))]


def write_damaged(objects: ObjectStore, damaged: Sequence[Damaged], name: str) -> list[SideFile]:
    """With the bytes as they came, for whoever has to find out where they came from."""
    if not damaged:
        return []
    key = f"{DAMAGED}{name}.parquet"
    objects.put_bytes(key, _parquet(DAMAGED_SCHEMA, [each.values for each in damaged]))
    return [SideFile(key, len(damaged))]


def concatenate(paths: Iterable[Path], schema: Any, out: Path) -> int:
    """Write the rows of all files into one, at constant memory; returns how many."""
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
