"""Selections and codes of a whole campaign are compared at constant memory, with the same numbers."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo.errors import AutoReconnect, CursorNotFound

from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.adapters.mongo.store import scan
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.stock import count_pairs
from tests.support.draws import CAMPAIGN, add_codes

pytestmark = pytest.mark.namespace("module")

_FIELDS = ("ref", "marketId", "position")
_VALUES = st.fixed_dictionaries(
    {
        "ref": st.sampled_from(["r1", "r2", "r'3"]),
        "marketId": st.sampled_from(["berlin", "paris"]),
        "position": st.integers(1, 2),
    }
)
_CODES = st.sampled_from(["A", "B", "C"])
Documents = list[dict[str, Any]]


class Batch(list[dict[str, Any]]):
    """A list that can be watched."""


class Store:
    """Hands out batches, and notes how many of those before are still held then."""

    def __init__(self, batches: Sequence[Documents]) -> None:
        self._batches, self.held = batches, 0

    def of_campaign(self, _campaign_id: str) -> Iterator[Documents]:
        handed: list[weakref.ref[Batch]] = []
        for documents in self._batches:
            self.held = max(self.held, sum(each() is not None for each in handed))
            batch = Batch(documents)
            handed.append(weakref.ref(batch))
            yield batch


def runtime_of(selections: Store, codes: Store) -> Runtime:
    selection = SimpleNamespace(threads=1, memory_mib=256)
    return cast(
        Runtime,
        SimpleNamespace(selections=selections, codes=codes, settings=SimpleNamespace(selection=selection)),
    )


@settings(max_examples=25)
@given(
    selections=st.lists(st.tuples(_CODES, _VALUES), max_size=5),
    codes=st.dictionaries(_CODES, _VALUES, max_size=3),
)
def test_the_numbers_are_those_of_a_comparison_in_memory(
    selections: list[tuple[str, dict[str, Any]]], codes: dict[str, dict[str, Any]]
) -> None:
    found = count_pairs(
        runtime_of(
            Store([[{"code": code, **values}] for code, values in selections]),
            Store([[{"_id": code, **values}] for code, values in codes.items()]),
        ),
        CAMPAIGN,
    )
    by_code = Counter(code for code, _ in selections)
    assert found == {
        "selections": len(selections),
        "codesGiven": len(codes),
        "codesTwice": sum(number - 1 for number in by_code.values()),
        "selectionsWithoutCode": len(by_code.keys() - codes.keys()),
        "codesWithoutSelection": len(codes.keys() - by_code.keys()),
        "differ": sum(code in codes and values != codes[code] for code, values in selections),
    }


def test_no_more_than_a_batch_or_two_are_held_at_once() -> None:
    batches: list[Documents] = [
        [{"_id": f"{number}-{each}", "code": f"{number}-{each}"} for each in range(10)]
        for number in range(20)
    ]
    selections, codes = Store(batches), Store(batches)
    found = count_pairs(runtime_of(selections, codes), CAMPAIGN)
    assert (found["selections"], found["codesGiven"]) == (200, 200)
    assert max(selections.held, codes.held) <= 2


def test_every_document_comes_once_however_large_a_batch_is(runtime: Runtime) -> None:
    add_codes(runtime, "berlin", 7, status="ASSIGNED", ref="r")
    add_codes(runtime, "paris", 2)
    add_codes(runtime, "rome", 1, campaign_id="winter", status="REDEEMED")
    for size in (1, 3, 7, 10):
        batches = list(runtime.codes.of_campaign(CAMPAIGN, size))
        assert sorted(each["position"] for batch in batches for each in batch) == list(range(1, 8))
        assert max(map(len, batches)) <= size
    assert list(runtime.selections.of_campaign(CAMPAIGN)) == []


class Breaking:
    """A cursor that breaks behind its third document."""

    def __init__(self, error: Exception) -> None:
        self._error, self._left = error, 3

    def find(self, *_: Any, **__: Any) -> Breaking:
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        self._left -= 1
        if self._left == -1:
            raise self._error
        if self._left < 0:
            # As pymongo's does: a cursor that failed once is at its end.
            raise StopIteration
        return {"_id": self._left}


@pytest.mark.parametrize("error", [CursorNotFound("gone"), AutoReconnect("closed")])
def test_a_cursor_that_breaks_is_never_taken_for_the_end(error: Exception) -> None:
    mongo = Dependency(
        "mongodb", classify_mongo, policy=RetryPolicy(first_cap_seconds=0.0, last_cap_seconds=0.0)
    )
    batches = scan(cast(Any, Breaking(error)), mongo, {}, size=3, ordered=False)
    assert len(next(batches)) == 3
    with pytest.raises(TransientFailure):
        list(batches)
