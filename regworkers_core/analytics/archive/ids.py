"""Which event ids are archived: their digests in files of their own, 16 bytes each, looked through in one go."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.analytics.archive.manifest import SideFile
from regworkers_core.analytics.archive.rows import DIGEST_BYTES

DIGEST: pa.DataType = pa.binary(DIGEST_BYTES)
IDS_SCHEMA = pa.schema({"digest": DIGEST})
# Held in memory at a time: 1 MiB.
_ROWS = 65_536
# The stubs know only a part of what its functions take.
_compute: Any = pyarrow.compute


class KnownIds:
    """The digests of every archived id. Files are copied to `folder` once, when they are first needed."""

    def __init__(self, objects: ObjectStore, folder: Path) -> None:
        self._objects, self._folder = objects, folder

    def among(self, digests: Collection[bytes], files: Sequence[SideFile]) -> set[bytes]:
        """Those of `digests` that one of the files holds. Memory is that of `digests`, time that of all files."""
        if not digests:
            return set()
        wanted = pa.array(list(digests), DIGEST)
        found: set[bytes] = set()
        for file in files:
            for column in self._columns(file):
                found.update(column.filter(_compute.is_in(column, value_set=wanted)).to_pylist())
        return found

    def _columns(self, file: SideFile) -> Iterator[Any]:
        with pq.ParquetFile(self.local(file)) as parquet:
            for batch in parquet.iter_batches(_ROWS):
                yield batch.column(0)

    def local(self, file: SideFile) -> Path:
        """A copy of the file, which is never changed under its name."""
        path = self._folder / file.key.replace("/", "_")
        if not path.exists():
            self._objects.get_file(file.key, path)
        return path
