"""Reading the whole replica, also where the cursor breaks on the way."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo.errors import AutoReconnect, CursorNotFound

from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.domain.reasons import TransientFailure
from tests.adapters.fakes import dependency
from tests.simulation.gate import OpenGate
from tests.simulation.servers.mongo import Mongo


class Breaking(OpenGate):
    """From the batch number `batch` of a cursor on, each read raises; `lasts` counts the cursors that it meets."""

    def __init__(self, batch: int, error: Exception, lasts: int) -> None:
        super().__init__()
        self._batch, self._error, self._lasts = batch, error, lasts
        self._read = 0

    def before(self, server: str, operation: str, request: Any) -> None:
        if operation == "find":
            self._read = 0
        if operation in ("find", "getMore"):
            if self._read >= self._batch and self._lasts:
                self._lasts -= 1
                raise self._error
            self._read += 1


def scanned(batch: int, error: Exception, *, lasts: int = 99, others: int = 0) -> list[str]:
    """The ids of 25 entries behind `others`, documents of another writer, which numbers them."""
    server = Mongo()
    stored = [{"_id": number} for number in range(others)]
    stored += [{"_id": f"c:{n:03}", "campaignId": "c", "entryId": f"{n:03}"} for n in range(25)]
    server.client(OpenGate())["d"]["c"].insert_many(stored)
    collection = server.client(Breaking(batch, error, lasts))["d"]["c"]
    replica = Replica(collection, dependency("mongo", classify_mongo, attempts=2))
    return [key.entry_id for key, _ in replica.scan(batch_size=4)]


@pytest.mark.parametrize("error", [AutoReconnect("gone"), CursorNotFound("killed", 43)])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_cursor_that_breaks_is_continued_behind_the_last_document(batch: int, error: Exception) -> None:
    assert scanned(batch, error) == [f"{n:03}" for n in range(25)]


def test_a_cursor_that_breaks_behind_a_number_is_not_continued_without_the_texts() -> None:
    with pytest.raises(TransientFailure, match="the cursor was lost"):
        scanned(2, CursorNotFound("killed", 43), others=8)


def test_a_server_that_stays_unavailable_is_never_taken_for_the_end() -> None:
    with pytest.raises(TransientFailure):
        scanned(0, AutoReconnect("gone"))
