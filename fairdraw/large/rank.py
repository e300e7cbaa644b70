"""Rank: the order of all leaves by (key, unit, entryKey), and which entries of a unit are candidates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fairdraw.errors import DrawError
from fairdraw.large.columns import Batch, compute, read_leaves
from fairdraw.large.engine import Engine
from fairdraw.maths.files import LEAVES, MANIFEST, SEED
from fairdraw.maths.leaves import LEAST_LEAF_BYTES
from fairdraw.maths.manifest import Manifest, SeedFile
from fairdraw.maths.rules import entry_key_prefix, key_prefix

# Leaves of a unit named in a message.
_SHOWN_LEAVES = 8
RANKED = "ranked.parquet"
RANKED_SCHEMA = pa.schema([pa.field("position", pa.int32()), pa.field("rank", pa.int32())])

# The least key of the unit's tickets. Most units have one ticket, and need no list.
_KEY = """CASE WHEN weight = 1 THEN sha256(concat($prefix, unit, '|0'))
    ELSE list_min(list_transform(range(weight), lambda j: sha256(concat($prefix, unit, '|', j)))) END"""
# A draw sorts by 8 bytes of a key, and within a household by 4 of an entry's, which `household` has before an odd
# number for the unit. Most units are one entry and have its ref: these need none.
_HEAD_DIGITS = 16
_HEADS = f"""
SELECT position, ('0x' || left({_KEY}, $digits))::UBIGINT AS head, CASE WHEN unit <> ref THEN
    (('0x' || left(sha256(concat($entry_prefix, ref)), least($digits, 8)))::UBIGINT << 32)
    + (hash(unit) >> 32 | 1) END AS household
FROM leaves
"""
_TIES = f"""
SELECT position, row_number() OVER (PARTITION BY key, unit ORDER BY entry_key) <= $wins AS candidate
FROM (SELECT position, unit, {_KEY} AS key, sha256(concat($entry_prefix, ref)) AS entry_key FROM leaves)
ORDER BY key, unit, entry_key
"""

_SEVERAL_WEIGHTS = """
SELECT unit FROM leaves GROUP BY unit HAVING min(weight) <> max(weight) ORDER BY unit LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The order of the draw: `order` has line numbers of leaves.txt (from 0), `ranks` beside each its rank among the
    candidates from 1, or 0 for HOUSEHOLD_LIMIT.
    """

    order: npt.NDArray[np.int32]
    ranks: npt.NDArray[np.int32]

    @staticmethod
    def read(path: Path) -> Ranked:
        with pq.ParquetFile(path) as file:
            made = Ranked(*(np.empty(file.metadata.num_rows, np.int32) for _ in range(2)))
            done = 0
            for batch in file.iter_batches(columns=RANKED_SCHEMA.names):
                part = slice(done, done + batch.num_rows)
                made.order[part], made.ranks[part] = (column.to_numpy() for column in batch.columns)
                done = part.stop
        return made

    def write(self, path: Path, rows: int) -> None:
        """Write Parquet (`position INT, rank INT`) in the order of the draw."""
        # Shuffled numbers do not compress.
        with pq.ParquetWriter(path, RANKED_SCHEMA, compression="none", use_dictionary=False) as writer:
            for start in range(0, len(self.order), rows):
                part = slice(start, start + rows)
                writer.write_batch(
                    pa.record_batch(
                        [pa.array(self.order[part]), pa.array(self.ranks[part])], schema=RANKED_SCHEMA
                    )
                )


def rank_leaves(folder: Path, ranked: Path, *, engine: Engine) -> None:
    """Write ranked.parquet (see `Ranked`) from leaves.txt, manifest.json and seed.json of `folder`.

    DrawError names the artefact at fault: malformed ones, leaves that are not as many as the manifest counts, and
    in phase 1 a seed that does not follow from the manifest.
    """
    manifest = Manifest.parse((folder / MANIFEST).read_bytes())
    seed = SeedFile.parse((folder / SEED).read_bytes())
    if manifest.phase == 1:
        seed.check(manifest.hash, manifest.seed_source)
    order_leaves(folder / LEAVES, manifest, seed.seed, engine).write(ranked, engine.batch_rows)


def order_leaves(leaves: Path, manifest: Manifest, seed: str, engine: Engine) -> Ranked:
    """Return the order under any seed; a simulation uses disposable ones."""
    if leaves.stat().st_size < manifest.count * LEAST_LEAF_BYTES:
        raise DrawError(LEAVES, f"{manifest.count} leaves were committed to, too few were found")
    heads = np.empty(manifest.count, np.uint64)
    households = np.zeros(manifest.count, np.uint64)
    parameters = {
        "prefix": key_prefix(seed, manifest.draw_id),
        "entry_prefix": entry_key_prefix(seed),
        "digits": _HEAD_DIGITS,
    }
    for batch in _answer(engine, _HEADS, parameters, _positions(leaves, manifest.count)):
        heads[batch["position"].to_numpy()] = batch["head"].to_numpy()
        members = batch.filter(compute.is_valid(batch["household"]))
        households[members["position"].to_numpy()] = members["household"].to_numpy()
    order = np.argsort(heads).astype(np.int32)
    heads.sort()
    # Whether the leaf at this place in the order shares the first 8 bytes of its key with the one before.
    tied = np.append(False, heads[1:] == heads[:-1])[: manifest.count]
    del heads
    candidate = np.ones(manifest.count, np.bool_)
    if tied.any():
        _untie(leaves, manifest, seed, engine, order, tied, households, candidate)
    ranks = np.cumsum(candidate, dtype=np.int32)
    ranks *= candidate
    return Ranked(order, ranks)


def _untie(
    leaves: Path,
    manifest: Manifest,
    seed: str,
    engine: Engine,
    order: npt.NDArray[np.int32],
    tied: npt.NDArray[np.bool_],
    households: npt.NDArray[np.uint64],
    candidate: npt.NDArray[np.bool_],
) -> None:
    """Sort leaves that share the first 8 bytes of a key, usually a household, in their exact order, in place."""
    # The first of each run is not tied to the one before, but the one after is tied to it.
    places = np.flatnonzero(tied | np.append(tied[1:], False))
    firsts = np.flatnonzero(~tied[places])
    runs = np.cumsum(~tied[places], dtype=np.uint64)
    members = households[order[places]]
    # One number sorts several times faster than two.
    entries = runs << 32 | members >> 32
    sorted_ = np.argsort(entries)
    order[places], entries = order[places[sorted_]], entries[sorted_]
    units = members[sorted_].astype(np.uint32)
    candidate[places] = np.arange(len(places)) - firsts[runs - 1] < manifest.wins_per_unit
    # Several units in one run, one whose unit is its ref, or entries that share the first 4 bytes, too.
    unsure = (runs[1:] == runs[:-1]) & ((units[1:] != units[:-1]) | (entries[1:] == entries[:-1]))
    if unsure.any():
        places = places[np.isin(runs, runs[1:][unsure])]
        _sort_exactly(leaves, manifest, seed, engine, order, places, candidate)


def _sort_exactly(
    leaves: Path,
    manifest: Manifest,
    seed: str,
    engine: Engine,
    order: npt.NDArray[np.int32],
    places: npt.NDArray[np.int64],
    candidate: npt.NDArray[np.bool_],
) -> None:
    """Sort the leaves at these places, whole runs, by their whole keys."""
    parameters = {
        "prefix": key_prefix(seed, manifest.draw_id),
        "entry_prefix": entry_key_prefix(seed),
        "wins": manifest.wins_per_unit,
    }
    wanted, done = np.zeros(len(order), np.bool_), 0
    wanted[order[places]] = True
    for batch in _answer(engine, _TIES, parameters, _positions(leaves, len(order), wanted)):
        part = places[done : done + batch.num_rows]
        order[part] = batch["position"].to_numpy()
        candidate[part] = batch["candidate"].to_numpy(zero_copy_only=False)
        done += batch.num_rows


def check_weights(leaves: Path, count: int, engine: Engine) -> None:
    """Raise DrawError unless all leaves of a unit have the same weight: each weight would be another key, and a chance.

    Ten million leaves take about 10 s if all have the same weight, else twice that.
    """
    weights: set[int] = set()
    for part in read_leaves(leaves, ("weight",)):
        weights.update(compute.unique(part["weight"]).to_pylist())
    if len(weights) < 2:
        return
    for batch in _answer(engine, _SEVERAL_WEIGHTS, {}, _positions(leaves, count)):
        for unit in batch["unit"].to_pylist():
            found = [
                f"{row['ref']} has {row['weight']}"
                for part in read_leaves(leaves, ("ref", "unit", "weight"))
                for row in part.filter(compute.equal(part["unit"], unit)).to_pylist()
            ]
            raise DrawError(LEAVES, f"one unit, several weights: {', '.join(found[:_SHOWN_LEAVES])}")


def _positions(leaves: Path, count: int, wanted: npt.NDArray[np.bool_] | None = None) -> Iterator[Batch]:
    """Yield `position, ref, unit, weight` of the leaves, or of the `wanted` ones. Raises DrawError unless there are
    exactly `count`.
    """
    done = 0
    for batch in read_leaves(leaves, ("ref", "unit", "weight")):
        rows = range(done, done + batch.num_rows)
        done = rows.stop
        if done > count:
            break
        made = pa.record_batch(
            [pa.array(np.arange(rows.start, rows.stop, dtype=np.int32)), *batch.columns],
            schema=_LEAVES_SCHEMA,
        )
        yield made if wanted is None else made.filter(pa.array(wanted[rows.start : rows.stop]))
    if done != count:
        found = "more" if done > count else f"{done:,}"
        raise DrawError(LEAVES, f"{count:,} leaves were committed to, {found} were found")


_TYPES: Any = [("position", pa.int32()), ("ref", pa.string()), ("unit", pa.string()), ("weight", pa.uint8())]
_LEAVES_SCHEMA = pa.schema(_TYPES)


def _answer(
    engine: Engine, query: str, parameters: dict[str, Any], batches: Iterator[Batch]
) -> Iterator[Batch]:
    """Yield the rows of a query over table `leaves`, which is read batch by batch."""
    failures: list[DrawError] = []

    def watched() -> Iterator[Batch]:
        # DuckDB replaces an error in here by its own.
        try:
            yield from batches
        except DrawError as failure:
            failures.append(failure)
            raise

    with engine.connection() as connection:
        connection.register("leaves", pa.RecordBatchReader.from_batches(_LEAVES_SCHEMA, watched()))
        try:
            found: Any = connection.sql(query, params=parameters)
            yield from found.to_arrow_reader(engine.batch_rows)
        except Exception:
            if failures:
                raise failures[0] from None
            raise
