"""Which selections and codes belong to each other: both sides pass through files, so that memory does not grow with
the number of winners.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regworkers_core.runtime import Runtime
from regworkers_core.selection.maths.engine import Engine

_COMPARED = ("ref", "marketId", "position")
_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in ("code", *_COMPARED)])


def count_pairs(runtime: Runtime, campaign_id: str) -> dict[str, int]:
    """`selections` and `codesGiven`, and what keeps them from being one to one. Raises TransientFailure."""
    settings = runtime.settings.selection
    with tempfile.TemporaryDirectory(prefix="regworkers-pairs-") as scratch:
        folder = Path(scratch)
        selections, codes = folder / "selections.parquet", folder / "codes.parquet"
        _write(selections, "code", runtime.selections.of_campaign(campaign_id))
        _write(codes, "_id", runtime.codes.of_campaign(campaign_id))
        engine = Engine(threads=settings.threads, memory_mib=settings.memory_mib, scratch=folder)
        with engine.connection() as connection:
            connection.execute(f"CREATE VIEW s AS SELECT * FROM read_parquet('{selections}')")
            connection.execute(f"CREATE VIEW c AS SELECT * FROM read_parquet('{codes}')")
            return {name: int(connection.execute(query).fetchall()[0][0]) for name, query in _COUNTS.items()}


_DIFFERENT = " OR ".join(f's."{name}" <> c."{name}"' for name in _COMPARED)
_COUNTS = {
    "selections": "SELECT count(*) FROM s",
    "codesGiven": "SELECT count(*) FROM c",
    "codesTwice": "SELECT count(*) - count(DISTINCT code) FROM s",
    "selectionsWithoutCode": "SELECT count(DISTINCT code) FROM s ANTI JOIN c USING (code)",
    "codesWithoutSelection": "SELECT count(*) FROM c ANTI JOIN s USING (code)",
    "differ": f"SELECT count(*) FROM s JOIN c USING (code) WHERE {_DIFFERENT}",
}


def _write(path: Path, code: str, batches: Iterable[list[dict[str, Any]]]) -> None:
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_pylist([_row(each, code) for each in batch], schema=_SCHEMA))


def _row(document: Mapping[str, Any], code: str) -> dict[str, str]:
    """Values as Python writes them: a text and a number stay different, and what is absent is a value, too."""
    values = {"code": document.get(code), **{name: document.get(name) for name in _COMPARED}}
    return {name: repr(value) for name, value in values.items()}
