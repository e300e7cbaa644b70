"""The outcome of every leaf by line of leaves.txt, from the phase before to the files of this one."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from regworkers_core.selection.maths.arrow import Batch, Column, compute, terminated
from regworkers_core.selection.maths.columns import ahead, read_leaves, read_result
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.files import OUTCOMES, RESULT
from regworkers_core.selection.maths.manifest import Manifest
from regworkers_core.selection.maths.rules import LeafOutcome

_NAME = pa.dictionary(pa.int16(), pa.string())
OUTCOMES_SCHEMA = pa.schema(
    [
        pa.field("ref", pa.string()),
        pa.field("market", _NAME),
        pa.field("rank", pa.int32()),
        pa.field("outcome", _NAME),
        pa.field("previous", _NAME),
        pa.field("previous_market", _NAME),
    ]
)
_FEW_VALUES: Any = ["market", "outcome", "previous", "previous_market"]
_ORDER = tuple(LeafOutcome)
_CODES = {outcome: code for code, outcome in enumerate(_ORDER)}
_WINNER, _STRUCK = _CODES[LeafOutcome.WINNER], _CODES[LeafOutcome.STRUCK]
# One past the last name: none, or not yet.
_NONE = len(_ORDER)


class Identity(NamedTuple):
    """What the keys of a leaf are made from."""

    ref: str
    unit: str
    weight: int


class Outcomes:
    """Small numbers by line: 6 bytes for each leaf, whatever the draw."""

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
        """With the winners of the phase before, who keep their seats. DrawError when its result.txt is not about
        the same leaves.
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
            codes, indexes = (
                compute.index_in(batch["outcome"], _names()),
                compute.index_in(batch["market"], markets),
            )
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

    def strike(self, positions: npt.NDArray[np.int32]) -> None:
        """These lose their seats, or never get one."""
        self._code[positions], self._market[positions] = _STRUCK, len(self._markets)

    def pin(self) -> list[int]:
        """Winners so far by market: the seats that are not offered."""
        self._pinned = self.winners()
        return self._pinned

    def undecided(self, positions: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Which of these neither won before nor are struck."""
        undecided: npt.NDArray[np.bool_] = self._code[positions] == _NONE
        return undecided

    def win(self, market: int, positions: npt.NDArray[np.int32]) -> None:
        self._code[positions], self._market[positions] = _WINNER, market

    def close(self, candidates: npt.NDArray[np.int32], waitlist_size: int | None) -> None:
        """Decide on the rest: candidates in rank order wait, up to `waitlist_size` of them (None: all)."""
        waiting = candidates[self.undecided(candidates)]
        size = len(waiting) if waitlist_size is None else waitlist_size
        self._code[waiting[:size]] = _CODES[LeafOutcome.WAITLIST]
        self._code[waiting[size:]] = _CODES[LeafOutcome.UNSELECTED]
        self._code[self._code == _NONE] = _CODES[LeafOutcome.HOUSEHOLD_LIMIT]

    def counts(self) -> dict[str, int]:
        """Every outcome and how many have it, zeros included."""
        found = np.bincount(self._code, minlength=_NONE)
        return {str(outcome): int(found[code]) for code, outcome in enumerate(_ORDER)}

    def winners(self) -> list[int]:
        """By market."""
        found = np.bincount(self._market[self._code == _WINNER], minlength=len(self._markets))
        return [int(each) for each in found]

    def new_winners(self) -> list[int]:
        """By market, without the pinned."""
        return [all_ - old for all_, old in zip(self.winners(), self._pinned, strict=True)]

    def write(
        self, leaves: Path, out: Path, ranks: npt.NDArray[np.int32], wanted: Collection[int]
    ) -> tuple[str, dict[int, Identity]]:
        """Write result.txt and its twin outcomes.parquet; `ranks` by line.

        Returns the hash of result.txt, and of the `wanted` ranks what their keys are made from.
        """
        digest, done = hashlib.sha256(), 0
        sought, found = np.fromiter(wanted, np.int32), dict[int, Identity]()
        with (
            (out / RESULT).open("wb") as file,
            # Refs are random: neither a dictionary nor compression makes them smaller.
            pq.ParquetWriter(
                out / OUTCOMES,
                OUTCOMES_SCHEMA,
                compression="none",
                use_dictionary=_FEW_VALUES,
                write_statistics=False,
            ) as twin,
        ):
            for batch in ahead(read_leaves(leaves, ("ref", "unit", "weight"))):
                part = slice(done, done + batch.num_rows)
                rows = self._rows(batch["ref"], part, ranks)
                text = _lines(rows)
                digest.update(text)
                file.write(text)
                twin.write_batch(rows)
                for row in np.flatnonzero(np.isin(ranks[part], sought)).tolist():
                    columns = (batch[name][row].as_py() for name in Identity._fields)
                    found[int(ranks[done + row])] = Identity(*columns)
                done = part.stop
        return digest.hexdigest(), found

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
    # Not while it is imported: see `reading._weight_texts`.
    return pa.array([*_ORDER, ""], pa.string())


def _named(numbers: npt.NDArray[Any], names: Column) -> Column:
    return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int16()), names)


def _lines(rows: Batch) -> memoryview:
    """`ref|market|rank|outcome`, empty market or rank where there is none."""
    ranks = compute.if_else(compute.equal(rows["rank"], 0), "", rows["rank"].cast(pa.string()))
    market, outcome = (rows[name].cast(pa.string()) for name in ("market", "outcome"))
    return terminated(compute.binary_join_element_wise(rows["ref"], market, ranks, outcome, "|"))


def _refs(leaves: Path) -> bytes:
    digest = hashlib.sha256()
    for batch in read_leaves(leaves, ("ref",)):
        digest.update(terminated(batch["ref"]))
    return digest.digest()
