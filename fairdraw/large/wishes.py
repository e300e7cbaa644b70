"""The preferences and rights of each leaf, as small numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fairdraw.errors import DrawError
from fairdraw.large.columns import Batch, Column, ahead, compute, read_leaves, refuse_leaf
from fairdraw.maths.files import LEAVES, STRIKES
from fairdraw.terms import is_selection_id

# Segment lists whose check is remembered.
_KNOWN_LISTS = 100_000


class Preferred(NamedTuple):
    """What some leaves prefer."""

    # How many markets each of them prefers.
    lengths: npt.NDArray[np.int64]
    # The indexes of all these markets, concatenated.
    markets: npt.NDArray[np.int16]


class Wishes:
    """What every leaf prefers and is entitled to, as small numbers by line of leaves.txt.

    `rights[position]` is the number of the leaf's set of reserved segments; row `members[rights]` says which of
    `segments` are in it. A leaf takes 4 bytes, 4 more if there are reserves, and 2 per preference, which are in a file
    under `scratch`.
    """

    def __init__(self, count: int, most: int, segments: Sequence[str], scratch: Path) -> None:
        """`most` bounds the number of preferences."""
        self.segments = tuple(segments)
        self.starts = np.zeros(count + 1, np.uint32 if most < 2**32 else np.uint64)
        none = np.zeros(1, np.int32)
        self.rights = np.zeros(count, np.int32) if segments else np.broadcast_to(none, count)
        self.members = np.zeros((1, len(segments)), np.bool_)
        # Lines of the struck leaves, in order.
        self.struck = np.zeros(0, np.int32)
        self.flat: npt.NDArray[np.int16] = np.zeros(0, np.int16)
        self._file = scratch / "preferences"
        self._sets: dict[frozenset[str], int] = {frozenset(): 0}
        self._known: dict[str, int] = {}

    def markets(self, position: int) -> list[int]:
        """Return the indexes of the leaf's preferred markets, in the fan's order; lines count from 0."""
        found: list[int] = self.flat[self.starts[position] : self.starts[position + 1]].tolist()
        return found

    def of(self, positions: npt.NDArray[np.int32]) -> Preferred:
        """Return the preferences of these leaves."""
        starts = self.starts[positions].astype(np.int64)
        lengths = self.starts[positions + 1].astype(np.int64) - starts
        firsts = np.cumsum(lengths) - lengths
        indexes = np.repeat(starts - firsts, lengths) + np.arange(int(lengths.sum()))
        return Preferred(lengths, self.flat[indexes])

    @staticmethod
    def read(
        leaves: Path,
        count: int,
        markets: Sequence[str],
        segments: Sequence[str],
        strikes: Sequence[str],
        scratch: Path,
    ) -> Wishes:
        """Read leaves.txt, checking every line in full; `strikes` are refs. Raises DrawError for a struck ref without a
        leaf, a malformed leaf, an unknown market, or another number of leaves than `count`.
        """
        # A preference takes at least a byte and a separator.
        made = Wishes(count, leaves.stat().st_size // 2, segments, scratch)
        known, struck = pa.array(markets, pa.string()), pa.array(strikes, pa.string())
        done, hits = 0, []
        with made._file.open("wb") as file:
            for batch in ahead(read_leaves(leaves)):
                part = slice(done, done + batch.num_rows)
                if part.stop > count:
                    break
                made._take_preferences(batch, part, known).tofile(file)
                made._take_segments(batch, part)
                if len(struck):
                    found = np.flatnonzero(compute.is_in(batch["ref"], struck).to_numpy(zero_copy_only=False))
                    hits.append((found + done).astype(np.int32))
                done = part.stop
        if done != count:
            raise DrawError(LEAVES, f"{count:,} leaves were committed to, found another number")
        if hits:
            made.struck = np.concatenate(hits)
        if len(made.struck) != len(struck):
            raise DrawError(STRIKES, f"{len(struck)} refs are struck, {len(made.struck)} of them have a leaf")
        made._finish()
        return made

    def _take_preferences(self, batch: Batch, part: slice, known: Column) -> npt.NDArray[np.int16]:
        lists = compute.split_pattern(batch["preferences"], ",")
        indexes = compute.index_in(lists.flatten(), known)
        bounds = np.asarray(lists.offsets)
        if indexes.null_count:
            at = int(np.flatnonzero(compute.is_null(indexes).to_numpy(zero_copy_only=False))[0])
            market = lists.flatten()[at].as_py()
            row = int(np.searchsorted(bounds - bounds[0], at, "right")) - 1
            refuse_leaf(batch, row, f"market {market!r} is not in the manifest")
        flat: npt.NDArray[np.int32] = indexes.to_numpy()
        lengths = np.diff(bounds)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        pairs = np.sort(rows * len(known) + flat)
        twice = np.flatnonzero(pairs[1:] == pairs[:-1])
        if len(twice):
            refuse_leaf(batch, int(pairs[twice[0]]) // len(known), "duplicate preference")
        start = int(self.starts[part.start])
        self.starts[part.start + 1 : part.stop + 1] = start + np.cumsum(lengths, dtype=np.int64)
        return flat.astype(np.int16)

    def _take_segments(self, batch: Batch, part: slice) -> None:
        # There are usually few different lists: each is checked once.
        encoded = batch["segments"].dictionary_encode()
        numbers = np.fromiter(
            (self._rights_of(text, batch) for text in encoded.dictionary.to_pylist()),
            np.int32,
            len(encoded.dictionary),
        )
        if self.segments:
            self.rights[part] = numbers[encoded.indices.to_numpy()]

    def _rights_of(self, text: str, batch: Batch) -> int:
        number = self._known.get(text)
        if number is None:
            names = text.split(",") if text else []
            if not all(map(is_selection_id, names)) or any(a >= b for a, b in pairwise(names)):
                row = compute.index(batch["segments"], text).as_py()
                refuse_leaf(batch, row, "segments are ids, sorted, each once")
            number = self._sets.setdefault(frozenset(names).intersection(self.segments), len(self._sets))
            if len(self._known) >= _KNOWN_LISTS:
                self._known.clear()
            self._known[text] = number
        return number

    def _finish(self) -> None:
        self.members = np.array(
            [[segment in each for segment in self.segments] for each in self._sets], np.bool_
        ).reshape(len(self._sets), len(self.segments))
        if self._file.stat().st_size:
            # It is a plain array, because slicing a memmap costs ten times as much.
            self.flat = np.asarray(np.memmap(self._file, np.int16, "r"))
