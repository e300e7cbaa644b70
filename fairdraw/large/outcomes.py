"""The outcome of every leaf, by line of leaves.txt, and the files that publish it: result.txt and summary.json."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fairdraw.errors import DrawError
from fairdraw.large.columns import (
    Batch,
    Column,
    ahead,
    compute,
    read_leaves,
    read_result,
    terminated,
    text_bytes,
)
from fairdraw.maths.files import OUTCOMES, RESULT, STRIKES
from fairdraw.maths.manifest import Manifest, struck_outcome
from fairdraw.terms import Outcome

_NAME = pa.dictionary(pa.int16(), pa.string())
_FEW_VALUES: Any = ["market", "outcome", "previous", "previous_market"]
_TYPES: Any = [("ref", pa.string()), ("market", _NAME), ("rank", pa.int32())]
OUTCOMES_SCHEMA = pa.schema(_TYPES + [(name, _NAME) for name in _FEW_VALUES[1:]])
_ORDER = tuple(Outcome)
_CODES = {outcome: code for code, outcome in enumerate(_ORDER)}
_WINNER = _CODES[Outcome.WINNER]
# One past the last outcome: none, or not decided yet.
_NONE = len(_ORDER)


class LeafIdentity(NamedTuple):
    """The input of a leaf's keys."""

    ref: str
    unit: str
    weight: int


class Written(NamedTuple):
    """What a result was written with."""

    # That of result.txt.
    hash: str
    # Those of the ranks that were asked for.
    identities: dict[int, LeafIdentity]


class Outcomes:
    """The outcome and market of each leaf, now and after the phase before, in 6 bytes per leaf."""

    def __init__(self, manifest: Manifest) -> None:
        self._markets = [market.market_id for market in manifest.markets]
        count, no_market = manifest.count, len(self._markets)
        self._code = np.full(count, _NONE, np.uint8)
        self._market = np.full(count, no_market, np.int16)
        self._before = self._code.copy()
        self._market_before = self._market.copy()
        self._pinned = self.winners()

    @staticmethod
    def before(manifest: Manifest, leaves: Path, previous: Path | None) -> Outcomes:
        """Start with the winners of the phase before, who keep their seats. Raises DrawError when its result.txt is not
        about the same leaves.
        """
        made = Outcomes(manifest)
        if previous is not None:
            made._take(previous, leaves)
        return made

    def _take(self, previous: Path, leaves: Path) -> None:
        refs = hashlib.sha256()
        markets, done = pa.array([*self._markets, ""]), 0
        for batch in read_result(previous / RESULT):
            part = slice(done, done + batch.num_rows)
            if part.stop > len(self._code):
                break
            codes = compute.index_in(batch["outcome"], _names())
            indexes = compute.index_in(batch["market"], markets)
            if codes.null_count or indexes.null_count:
                raise DrawError(RESULT, "unknown outcome or market in the result of the phase before")
            self._before[part], self._market_before[part] = codes.to_numpy(), indexes.to_numpy()
            refs.update(terminated(batch["ref"]))
            done = part.stop
        if done != len(self._code) or refs.digest() != _refs(leaves):
            raise DrawError(RESULT, "the result of the phase before is not about the same refs as leaves.txt")
        won = self._before == _WINNER
        self._code[won], self._market[won] = _WINNER, self._market_before[won]
        if (self._market[won] == len(self._markets)).any():
            raise DrawError(RESULT, "a winner without a market in the result of the phase before")

    def strike(
        self, positions: npt.NDArray[np.int32], strikes: Mapping[str, str], unclaimed: Collection[str]
    ) -> None:
        """Take seats from these entries, or bar them from one. `strikes` are reasons by ref, in the order of
        `positions`; `unclaimed` those whose seat lapses now. Raises DrawError if one of these has none.
        """
        for ref, position in zip(strikes, positions, strict=True):
            if ref in unclaimed and self._before[position] != _WINNER:
                raise DrawError(STRIKES, f"{ref} is UNCLAIMED, and was no winner of the phase before")
        codes = [_CODES[struck_outcome(reason)] for reason in strikes.values()]
        self._code[positions], self._market[positions] = codes, len(self._markets)

    def pin(self) -> list[int]:
        """Return the winners of earlier phases by market: their seats are not offered again."""
        self._pinned = self.winners()
        return self._pinned

    def undecided(self, positions: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Return which of these have neither won before nor been struck."""
        undecided: npt.NDArray[np.bool_] = self._code[positions] == _NONE
        return undecided

    def win(self, market: int, positions: npt.NDArray[np.int32]) -> None:
        self._code[positions], self._market[positions] = _WINNER, market

    def close(self, candidates: npt.NDArray[np.int32], waitlist_size: int | None) -> None:
        """Decide on the rest: up to `waitlist_size` candidates in rank order (None: all) go on the waiting list."""
        waiting = candidates[self.undecided(candidates)]
        size = len(waiting) if waitlist_size is None else waitlist_size
        self._code[waiting[:size]] = _CODES[Outcome.WAITLIST]
        self._code[waiting[size:]] = _CODES[Outcome.UNSELECTED]
        self._code[self._code == _NONE] = _CODES[Outcome.HOUSEHOLD_LIMIT]

    def counts(self) -> dict[str, int]:
        """Return how many leaves have each outcome, zeros included."""
        found = np.bincount(self._code, minlength=_NONE)
        return {str(outcome): int(found[code]) for code, outcome in enumerate(_ORDER)}

    def winners(self) -> list[int]:
        """Return the winners by market."""
        found = np.bincount(self._market[self._code == _WINNER], minlength=len(self._markets))
        return [int(each) for each in found]

    def new_winners(self) -> list[int]:
        """Return the winners of this phase by market."""
        return [all_ - old for all_, old in zip(self.winners(), self._pinned, strict=True)]

    def write(
        self, leaves: Path, out: Path, ranks: npt.NDArray[np.int32], wanted: Collection[int]
    ) -> Written:
        """Write result.txt and outcomes.parquet; `ranks` by line."""
        digest = hashlib.sha256()
        sought, found = np.fromiter(wanted, np.int32), dict[int, LeafIdentity]()
        with (
            (out / RESULT).open("wb") as file,
            # Refs are random: neither a dictionary nor compression saves space.
            pq.ParquetWriter(
                out / OUTCOMES,
                OUTCOMES_SCHEMA,
                compression="none",
                use_dictionary=_FEW_VALUES,
                write_statistics=False,
            ) as twin,
        ):
            batches = ahead(read_leaves(leaves, LeafIdentity._fields))
            for part, batch, rows, text in ahead(self._with_lines(batches, ranks)):
                digest.update(text)
                file.write(text)
                twin.write_batch(rows)
                for row in np.flatnonzero(np.isin(ranks[part], sought)).tolist():
                    columns = (batch[name][row].as_py() for name in LeafIdentity._fields)
                    found[int(ranks[part.start + row])] = LeafIdentity(*columns)
        return Written(digest.hexdigest(), found)

    def _with_lines(
        self, batches: Iterator[Batch], ranks: npt.NDArray[np.int32]
    ) -> Iterator[tuple[slice, Batch, Batch, memoryview]]:
        """Yield the lines of each batch of leaves, the batch, its rows of outcomes.parquet and lines of result.txt."""
        done = 0
        for batch in batches:
            part = slice(done, done + batch.num_rows)
            rows = self._rows(batch["ref"], part, ranks)
            yield part, batch, rows, _lines(rows)
            done = part.stop

    def _rows(self, refs: Column, part: slice, ranks: npt.NDArray[np.int32]) -> Batch:
        markets = pa.array([*self._markets, ""], pa.string())
        return pa.record_batch(
            [
                refs,
                _named(self._market[part], markets),
                pa.array(ranks[part]),
                _named(self._code[part], _names()),
                _named(self._before[part], _names()),
                _named(self._market_before[part], markets),
            ],
            schema=OUTCOMES_SCHEMA,
        )


@cache
def _names() -> Column:
    # Not at import: see `columns._weight_texts`.
    return pa.array([*_ORDER, ""], pa.string())


def _named(numbers: npt.NDArray[Any], names: Column) -> Column:
    return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int16()), names)


def _lines(rows: Batch) -> memoryview:
    """Return the lines `ref|market|rank|outcome`, where market or rank may be empty."""
    ranks = compute.if_else(compute.equal(rows["rank"], 0), "", rows["rank"].cast(pa.string()))
    # Joining twice would copy all of the text once more: each of the few outcomes ends its line.
    outcome = rows["outcome"]
    ends = compute.binary_join_element_wise(outcome.dictionary, "", "\n")
    last = pa.DictionaryArray.from_arrays(outcome.indices, ends).cast(pa.string())
    market = rows["market"].cast(pa.string())
    return memoryview(text_bytes(compute.binary_join_element_wise(rows["ref"], market, ranks, last, "|")))


def _refs(leaves: Path) -> bytes:
    digest = hashlib.sha256()
    for batch in read_leaves(leaves, ("ref",)):
        digest.update(terminated(batch["ref"]))
    return digest.digest()
