"""Reading the whole replica, also where the cursor breaks on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, CursorNotFound

from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import CircuitBreaker, Dependency, RetryPolicy


class FakeCursor:
    """Breaks as given after some documents, and then is at its end, as a driver's cursor is."""

    def __init__(self, documents: list[dict[str, Any]], break_after: int, error: Exception) -> None:
        self._documents = iter(self._all(documents, break_after, error))

    @staticmethod
    def _all(documents: list[dict[str, Any]], break_after: int, error: Exception) -> Iterator[dict[str, Any]]:
        for index, document in enumerate(documents):
            if index == break_after:
                raise error
            yield document

    def sort(self, _field: str, _direction: int) -> FakeCursor:
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._documents

    def __next__(self) -> dict[str, Any]:
        return next(self._documents)


class FakeCollection:
    """`others` are documents of another writer, which numbers them."""

    def __init__(self, number: int, break_after: int, error: Exception, others: int = 0) -> None:
        self.documents = [{"_id": n} for n in range(others)] + [
            {"_id": f"c:{n:03}", "campaignId": "c", "entryId": f"{n:03}"} for n in range(number)
        ]
        self._break_after, self._error = break_after, error

    def find(self, query: dict[str, Any], _fields: Any, *, batch_size: int) -> FakeCursor:
        rest = self.documents
        if query:
            after = query["_id"]["$gt"]
            # As MongoDB compares: only with values of the same type.
            rest = [each for each in rest if type(each["_id"]) is type(after) and each["_id"] > after]
        return FakeCursor(rest, self._break_after, self._error)


def scanned(break_after: int, error: Exception, others: int = 0) -> list[str]:
    policy = RetryPolicy(attempts=2, first_cap_seconds=0, last_cap_seconds=0)
    breaker = CircuitBreaker("mongo", failures=10**9, reset_seconds=1, clock=lambda: 0.0)
    dependency = Dependency("mongo", classify_mongo, policy=policy, breaker=breaker)
    replica = Replica(FakeCollection(25, break_after, error, others), dependency)  # type: ignore[arg-type]
    return [key.entry_id for key, _ in replica.scan(batch_size=4)]


@pytest.mark.parametrize("error", [AutoReconnect("gone"), CursorNotFound("killed", 43)])
@pytest.mark.parametrize("break_after", [4, 5, 7, 8, 24])
def test_a_cursor_that_breaks_is_continued_behind_the_last_document(
    break_after: int, error: Exception
) -> None:
    assert scanned(break_after, error) == [f"{n:03}" for n in range(25)]


def test_a_cursor_that_breaks_behind_a_number_is_not_continued_without_the_texts() -> None:
    with pytest.raises(TransientFailure, match="the cursor was lost"):
        scanned(8, CursorNotFound("killed", 43), others=8)


def test_a_server_that_stays_unavailable_is_never_taken_for_the_end() -> None:
    with pytest.raises(TransientFailure):
        scanned(0, AutoReconnect("gone"))
