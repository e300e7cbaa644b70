"""The proofs of all entries of a draw in one file, of which a reader fetches a few ranges of bytes.

`proofs-<hash>.bin` has three parts:

- records: for each unit with entries past its limit, the leaves that are ahead of these, with their inclusion proofs.
  Hashes cannot be compressed: a record is `index|leaf`, a line feed, and the hashes of the proof, 32 bytes each.
- tiles, each compressed (gzip): `BLOCK` leaves, the hashes from their subtree up to the root, a line
  `ref|offset|bytes` for each leaf with records, a line `ref|others` for each leaf that is not alone in its unit, and
  per phase the lines of result.txt, the hashes from their subtree up to its root, and a line
  `ref|reason|index|size|hash,hash,...` for each strike, with its proof. An empty line ends each of these sections.
- the directory in pages, each compressed: the offset of its first tile, then for each tile the shortest text that
  separates its refs from those before, and its bytes: `text|bytes`. Refs need not be evenly distributed.

`draw.json.gz`, which is published after it, has the separators of the pages and what all receipts have in common.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from math import isqrt
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fairdraw.errors import DrawError
from fairdraw.large.columns import compute, read_leaves, read_result
from fairdraw.large.engine import Engine
from fairdraw.large.receipts import Receipt, ReceiptSource
from fairdraw.maths.files import (
    LEAVES,
    MANIFEST,
    RESULT,
    STRIKES,
    SUMMARY,
    canonical_bytes,
    file_hash,
    sha256_hex,
)
from fairdraw.maths.manifest import Manifest
from fairdraw.maths.merkle import (
    TreeHash,
    block_root,
    blocks_of,
    leaf_hash,
    levels_of,
    path_up,
)
from fairdraw.maths.phase import Summary
from fairdraw.proof.inputs import drawn_folders
from fairdraw.scheduling import Progress, no_progress

# Leaves of a tile, a power of two. A smaller tile is smaller to fetch, but repeats the hashes up to the root.
BLOCK = 64
DRAW = "draw.json.gz"
_HASH_BYTES = 32
_PER_RECEIPT = ("entryKey", "inclusion", "key", "market", "outcome", "rank", "ref", "siblings", "together")
_PER_PHASE = ("result", "strike")
# Least rank 0 is a unit with an entry past the limit. Its other members have ranks.
_SHARED = """
SELECT position, rank, head, min(rank) OVER one AS least, count(*) OVER one - 1 AS others
FROM (SELECT position, rank, ('0x' || left(sha256(unit), 16))::UBIGINT AS head FROM units)
WINDOW one AS (PARTITION BY head) ORDER BY head, rank
"""
_TYPES: Any = [("position", pa.int32()), ("rank", pa.int32()), ("unit", pa.string())]
_UNITS = pa.schema(_TYPES)


@dataclass(frozen=True, slots=True)
class Proofs:
    """The file that was written, and how much is in it."""

    # Its name.
    file: str
    # Its size.
    bytes: int
    # How many of each it has.
    leaves: int
    tiles: int  # of leaves
    records: int


@dataclass(slots=True)
class _Records:
    """Where records are."""

    # Positions of the leaves that have a record, in order, and the offset of each one's.
    positions: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]  # by index in `positions`
    # Positions of the leaves past their unit's limit, in order, and the span of the records ahead of each.
    limited: npt.NDArray[np.int32]
    spans: npt.NDArray[np.int64]  # by index in `limited`
    # The bytes of all records.
    size: int
    # Positions of the leaves that are not alone in their unit, in order, and how many others are in it.
    shared: npt.NDArray[np.int32]
    others: npt.NDArray[np.int64]  # by index in `shared`


class _Hashed(NamedTuple):
    """What one pass over all leaves finds."""

    # Those of the blocks.
    roots: list[bytes]
    # The bytes of every leaf with its line feed.
    sizes: npt.NDArray[np.int32]


@dataclass(slots=True)
class _Directory:
    """Separator and bytes of each tile, with the last ref so far."""

    separators: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    last: bytes = b""

    def add(self, leaves: Sequence[bytes], size: int) -> None:
        first = _ref(leaves[0])
        pairs = enumerate(zip(self.last, first, strict=False))
        shared = next((at for at, (before, after) in pairs if before != after), len(self.last))
        self.separators.append(first[: shared + 1] if self.sizes else b"")
        self.sizes.append(size)
        self.last = _ref(leaves[-1])


def write_proofs(
    source: ReceiptSource, out: Path, *, engine: Engine, on_progress: Progress = no_progress
) -> Proofs:
    """Write the proofs of the draw in `source.folder` and draw.json.gz into `out`, in about 15 s per million leaves.

    `on_progress` gets the number of leaves that were done; each is done twice. Raises DrawError for damaged artefacts.
    """
    phases = drawn_folders(source.folder)
    manifest = Manifest.parse((phases[0] / MANIFEST).read_bytes())
    leaves, made = phases[0] / LEAVES, out / "proofs.part"
    roots, sizes = _hashed(leaves, manifest, on_progress)
    records = _records(leaves, _ranks(phases[0], manifest.count), sizes, engine)
    try:
        with made.open("wb") as file:
            directory = _write_tiles(file, phases, levels_of(roots), records, on_progress, manifest.count)
            at = file.tell()
            pages = _write_directory(file, directory, records.size)
        name = f"proofs-{file_hash(made)[:16]}.bin"
        done = Proofs(name, made.stat().st_size, manifest.count, len(roots), len(records.positions))
        made.replace(out / name)
    finally:
        made.unlink(missing_ok=True)
    document = {
        "block": BLOCK,
        "bytes": done.bytes,
        "count": manifest.count,
        "directory": at,
        "fan": _fan(len(roots)),
        "file": name,
        "pages": pages,
        "receipt": _common(source, leaves),
    }
    (out / DRAW).write_bytes(gzip.compress(canonical_bytes(document), mtime=0))
    return done


def _common(source: ReceiptSource, leaves: Path) -> Receipt:
    """What the receipts of all leaves have in common. Without leaves that of an excluded entry, as far as it goes."""
    # It is public, and the salt of a registration is its fan's.
    source = replace(source, registrations=None)
    with leaves.open("rb") as file:
        ref = _ref(file.readline()).decode()
    if not ref:
        absent = replace(source, reasons=lambda _ref: ("NONE",)).receipt("-")
        phase = {name: absent.pop(name) for name in ("manifest", "published")}
        for name in ("after", "before", "reasons", "ref"):
            del absent[name]
        return {**absent, "seed": "", "phases": [phase, *absent["phases"]]}
    receipt = source.receipt(ref)
    receipt["phases"] = [
        {name: value for name, value in phase.items() if name not in _PER_PHASE}
        for phase in receipt["phases"]
    ]
    return {name: value for name, value in receipt.items() if name not in _PER_RECEIPT}


def _hashed(leaves: Path, manifest: Manifest, on_progress: Progress) -> _Hashed:
    roots, tree, sizes, done = [], TreeHash(), np.zeros(manifest.count, np.int32), 0
    for _, lines in blocks_of(leaves, BLOCK):
        if done + len(lines) > manifest.count:
            raise DrawError(LEAVES, f"{manifest.count:,} leaves were committed to, more were found")
        roots.append(block_root(lines))
        tree.add(roots[-1])
        sizes[done : done + len(lines)] = list(map(len, lines))
        done += len(lines)
        on_progress(done)
    if (done, tree.root().hex()) != (manifest.count, manifest.root):
        raise DrawError(
            LEAVES, f"{done:,} leaves with root {tree.root().hex()}; committed is {manifest.root}"
        )
    return _Hashed(roots, sizes + 1)


def _ranks(phase: Path, count: int) -> npt.NDArray[np.int32]:
    """Return the ranks in result.txt, 0 where there is none."""
    ranks, done = np.zeros(count, np.int32), 0
    for batch in read_result(phase / RESULT):
        part = slice(done, done + batch.num_rows)
        if part.stop > count:
            break
        texts = compute.if_else(compute.equal(batch["rank"], ""), "0", batch["rank"])
        ranks[part] = texts.cast(pa.int32()).to_numpy()
        done = part.stop
    if done != count:
        raise DrawError(RESULT, f"{count:,} lines are needed, found another number")
    return ranks


def _records(
    leaves: Path, ranks: npt.NDArray[np.int32], sizes: npt.NDArray[np.int32], engine: Engine
) -> _Records:
    """Place the records, unit by unit in order of rank: what is ahead of a leaf is one span of bytes."""
    with engine.connection() as connection:
        connection.register("units", pa.RecordBatchReader.from_batches(_UNITS, _units(leaves, ranks)))
        found: Any = connection.sql(_SHARED).to_arrow_table()
    place, others = found["position"].to_numpy(), found["others"].to_numpy()
    shared = np.flatnonzero(others)
    shared = shared[np.argsort(place[shared])]
    limit = found["least"].to_numpy() == 0
    positions, rank, heads = (found[name].to_numpy()[limit] for name in ("position", "rank", "head"))
    size = _record_bytes(positions, sizes[positions], len(ranks)) * (rank > 0)
    ends = np.cumsum(size)
    # The first row of each unit has rank 0, and no record.
    firsts = np.flatnonzero(np.append(True, heads[1:] != heads[:-1])[: len(heads)])
    unit = np.searchsorted(firsts, np.arange(len(heads)), "right") - 1
    starts = ends[firsts] if len(firsts) else ends
    stops = np.append(starts[1:], ends[-1:])
    limited, ahead = np.flatnonzero(rank == 0), np.flatnonzero(rank > 0)
    limited, ahead = limited[np.argsort(positions[limited])], ahead[np.argsort(positions[ahead])]
    spans = (
        np.stack([starts[unit[limited]], (stops - starts)[unit[limited]]], axis=1)
        if len(limited)
        else np.zeros((0, 2), np.int64)
    )
    return _Records(
        positions[ahead],
        (ends - size)[ahead],
        positions[limited],
        spans,
        int(ends[-1]) if len(ends) else 0,
        place[shared],
        others[shared],
    )


def _units(leaves: Path, ranks: npt.NDArray[np.int32]) -> Iterator[pa.RecordBatch]:
    """Yield the leaves whose unit is not their own ref: the others are alone."""
    done = 0
    for batch in read_leaves(leaves, ("ref", "unit")):
        stop = done + batch.num_rows
        columns = [pa.array(np.arange(done, stop, dtype=np.int32)), pa.array(ranks[done:stop]), batch["unit"]]
        rows = pa.RecordBatch.from_arrays(columns, schema=_UNITS)
        yield rows.filter(compute.not_equal(batch["ref"], batch["unit"]))
        done = stop


def _record_bytes(positions: npt.NDArray[np.int32], leaf_bytes: Any, count: int) -> npt.NDArray[np.int64]:
    """Return the bytes of the records of these leaves: index, bar, leaf with line feed, hashes."""
    digits = np.searchsorted(10 ** np.arange(1, 10), positions, "right") + 1
    made: npt.NDArray[np.int64] = digits + 1 + leaf_bytes.astype(np.int64)
    places, width = positions.astype(np.int64), count
    while width > 1:
        made += _HASH_BYTES * ((places ^ 1) < width)
        places, width = places >> 1, (width + 1) >> 1
    return made


def _write_tiles(
    file: IO[bytes],
    phases: Sequence[Path],
    levels: Sequence[Sequence[bytes]],
    records: _Records,
    on_progress: Progress,
    hashed: int,
) -> _Directory:
    """Write records and tiles in one pass over the sorted files, after `hashed` leaves were done once."""
    directory = _Directory()
    file.truncate(records.size)
    file.seek(records.size)
    ahead = limited = shared = 0
    with ExitStack() as stack:
        results = [stack.enter_context((each / RESULT).open("rb")) for each in phases]
        above = [_result_levels(each) for each in phases]
        strikes = [_Strikes(each / STRIKES) for each in phases]
        for number, (_, leaves) in enumerate(blocks_of(phases[0] / LEAVES, BLOCK)):
            first, stop = number * BLOCK, number * BLOCK + len(leaves)
            path = path_up(number, levels)
            last = int(np.searchsorted(records.positions, stop))
            if last > ahead:
                own = levels_of([leaf_hash(leaf) for leaf in leaves])
                rows = zip(
                    records.positions[ahead:last].tolist(), records.offsets[ahead:last].tolist(), strict=True
                )
                for position, offset in rows:
                    inside = position - first
                    proof = path_up(inside, own) + path
                    os.pwrite(
                        file.fileno(), b"%d|%b\n%b" % (position, leaves[inside], b"".join(proof)), offset
                    )
                ahead = last
            past = int(np.searchsorted(records.limited, stop))
            spans = zip(
                records.limited[limited:past].tolist(), records.spans[limited:past].tolist(), strict=True
            )
            sections = [
                [b"%b\n" % leaf for leaf in leaves],
                [b"%b\n" % each.hex().encode() for each in path],
                [b"%b|%d|%d\n" % (_ref(leaves[position - first]), *span) for position, span in spans],
            ]
            limited = past
            ends = int(np.searchsorted(records.shared, stop))
            pairs = zip(
                records.shared[shared:ends].tolist(), records.others[shared:ends].tolist(), strict=True
            )
            sections.append([b"%b|%d\n" % (_ref(leaves[position - first]), more) for position, more in pairs])
            shared = ends
            for result, results_above, struck in zip(results, above, strikes, strict=True):
                lines = list(islice(result, len(leaves)))
                if list(map(_ref, lines)) != list(map(_ref, leaves)):
                    raise DrawError(RESULT, f"not the refs of {LEAVES} from line {first + 1:,} on")
                own_path = [b"%b\n" % each.hex().encode() for each in path_up(number, results_above)]
                sections += [lines, own_path, struck.up_to(_ref(leaves[-1]))]
            tile = gzip.compress(b"".join(b"".join(lines) + b"\n" for lines in sections), 6, mtime=0)
            file.write(tile)
            directory.add(leaves, len(tile))
            on_progress(hashed + stop)
    return directory


def _result_levels(phase: Path) -> list[list[bytes]]:
    """The levels of the tree over result.txt from the roots of blocks on. Raises DrawError for another root than that
    of the summary.
    """
    levels = levels_of([block_root(lines) for _, lines in blocks_of(phase / RESULT, BLOCK)])
    root = levels[-1][0].hex() if levels else sha256_hex(b"")
    if root != (stated := Summary.parse((phase / SUMMARY).read_bytes()).result_root):
        raise DrawError(RESULT, f"its root is {root}, {SUMMARY} says {stated}")
    return levels


class _Strikes:
    """strikes.txt with the proof of each line, in step with the leaves."""

    def __init__(self, path: Path) -> None:
        self._lines = path.read_bytes().split(b"\n")[:-1]
        self._levels, self._done = levels_of([leaf_hash(line) for line in self._lines]), 0

    def up_to(self, ref: bytes) -> list[bytes]:
        """Return the lines from the last call on up to this ref, inclusive."""
        found = []
        while self._done < len(self._lines) and _ref(line := self._lines[self._done]) <= ref:
            proof = b",".join(each.hex().encode() for each in path_up(self._done, self._levels))
            found.append(b"%b|%d|%d|%b\n" % (line, self._done, len(self._lines), proof))
            self._done += 1
        return found


def _write_directory(file: IO[bytes], directory: _Directory, first: int) -> list[list[Any]]:
    """Append the pages; `first` is the offset of the first tile. Return separator and bytes of each page."""
    pages, fan = [], _fan(len(directory.sizes))
    for start in range(0, len(directory.sizes), fan):
        part = slice(start, start + fan)
        tiles = zip(directory.separators[part], directory.sizes[part], strict=True)
        text = b"%d\n" % first + b"".join(b"%b|%d\n" % tile for tile in tiles)
        page = gzip.compress(text, mtime=0)
        file.write(page)
        pages.append([directory.separators[start].decode(), len(page)])
        first += sum(directory.sizes[part])
    return pages


def _fan(tiles: int) -> int:
    """Return how many tiles a page of the directory has: as many as there are pages."""
    return isqrt(max(tiles - 1, 0)) + 1


def _ref(line: bytes) -> bytes:
    return line[: line.index(b"|")] if line else b""
