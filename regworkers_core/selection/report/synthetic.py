"""An invented pool, for odds before anybody has registered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from regworkers_core.selection.draw.pool import POOL, POOL_SCHEMA

MOST_CHOICES = 3
# How many fans belong to each segment that a rule names.
SEGMENT_SHARE = 0.2
_ROWS = 100_000


def write_synthetic_pool(
    folder: Path, entries: int, markets: Sequence[str], segments: Sequence[str], rng: np.random.Generator
) -> None:
    """Write `pool.parquet` with so many entries into `folder`, at constant memory.

    A market is half as wanted as the one before it in `markets` where it comes second, a third where it comes
    third, and so on; each fan lists up to three; one in five belongs to each segment, independently. Everybody
    is a household of one with weight 1.
    """
    with pq.ParquetWriter(folder / POOL, POOL_SCHEMA, compression="zstd") as writer:
        for start in range(0, entries, _ROWS):
            writer.write_table(_table(start, min(_ROWS, entries - start), markets, segments, rng))


def _table(
    start: int, count: int, markets: Sequence[str], segments: Sequence[str], rng: np.random.Generator
) -> pa.Table:
    refs = pa.array([f"simulated-{n:010d}" for n in range(start, start + count)])
    # The first of independent exponential clocks rings in proportion to its rate, then the next, ...
    popularity = 1 / np.arange(1, len(markets) + 1)
    clocks = rng.exponential(size=(count, len(markets))) / popularity
    choices = np.argsort(clocks, axis=1)[:, :MOST_CHOICES]
    lengths = rng.integers(1, choices.shape[1] + 1, count)
    wished = np.arange(choices.shape[1]) < lengths[:, None]
    member = rng.random((count, len(segments))) < SEGMENT_SHARE
    columns: list[pa.Array[Any]] = [
        refs,
        refs,
        pa.array(np.ones(count, np.int32)),
        _lists(np.broadcast_to(np.arange(len(segments)), member.shape), member, segments),
        _lists(choices, wished, markets),
        refs,
        pa.array([""] * count),
        pa.array([""] * count),
    ]
    return pa.Table.from_arrays(columns, schema=POOL_SCHEMA)


def _lists(indexes: NDArray[np.int64], chosen: NDArray[np.bool_], names: Sequence[str]) -> pa.Array[Any]:
    """Row by row the names at the chosen indexes."""
    offsets = np.concatenate([[0], np.cumsum(chosen.sum(axis=1))]).astype(np.int32)
    values: pa.Array[Any] = pa.array(np.array(names, object)[indexes[chosen]], pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
