"""The `selection_chunks` collection: what is planned of every market and what of it is done.

A row stands before its message is sent, so what has no `doneAt` can always be sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo import UpdateOne
from pymongo.collection import Collection

from regworkers_core.adapters.mongo.client import find_all
from regworkers_core.adapters.mongo.write_once import insert_once
from regworkers_core.domain.selection import Chunk, MarketPhase
from regworkers_core.engine.dependency import Dependency

Document = dict[str, Any]
_PARAMETERS = ("first", "last", "resultHash")
_OPEN: Document = {"doneAt": {"$exists": False}}


class Chunks:
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Collection[Document], dependency: Dependency) -> None:
        self._collection = collection
        self._dependency = dependency

    def plan(self, chunks: Sequence[Chunk]) -> None:
        """Write the rows; raises PermanentFailure KEY_CONFLICT when one stands with other bounds."""
        documents = [{"_id": chunk.id, **chunk.as_json()} for chunk in chunks]
        insert_once(self._collection, self._dependency, documents, _PARAMETERS).raise_conflicts("chunks")

    def get(self, ids: Sequence[str]) -> dict[str, Document]:
        """The rows under these ids; absent ones are absent from the answer."""
        query = {"_id": {"$in": list(ids)}}
        return {row["_id"]: row for row in self._dependency.call(find_all, self._collection, query)}

    def queued(self, chunks: Sequence[Chunk], at: str) -> None:
        """Their messages were sent just now; an earlier failure is forgotten."""
        update = {"$set": {"queuedAt": at}, "$unset": {"failedAt": "", "failure": ""}}
        operations = [UpdateOne({"_id": chunk.id}, update) for chunk in chunks]
        if operations:
            self._dependency.call(self._collection.bulk_write, operations, ordered=False)

    def failed(self, chunk: Chunk, failure: str, at: str) -> None:
        """It became a dead letter: nobody sends it again by itself."""
        update = {"$set": {"failedAt": at, "failure": failure}}
        self._dependency.call(self._collection.update_one, {"_id": chunk.id, **_OPEN}, update)

    def done(self, chunk: Chunk, *, written: int, enqueued: int, at: str, run_id: str) -> bool:
        """Its rows are durable. False when another was faster."""
        fields = {"written": written, "enqueued": enqueued, "doneAt": at, "runId": run_id}
        update = {"$set": fields, "$unset": {"failedAt": "", "failure": ""}}
        answer = self._dependency.call(self._collection.update_one, {"_id": chunk.id, **_OPEN}, update)
        return answer.matched_count == 1

    def is_open(self, chunk_id: str) -> bool:
        query = {"_id": chunk_id, **_OPEN}
        return self._dependency.call(self._collection.find_one, query, {"_id": 1}) is not None

    def last_open(self, market: MarketPhase) -> str | None:
        """The id of the open chunk with the highest number: mostly the one that is done last."""
        query = {**market.as_fields(), **_OPEN}
        row = self._dependency.call(self._collection.find_one, query, {"_id": 1}, sort=[("chunk", -1)])
        return None if row is None else str(row["_id"])

    def open(self, market: MarketPhase) -> list[Document]:
        """The open rows of a market by number."""
        query = {**market.as_fields(), **_OPEN}
        return self._dependency.call(find_all, self._collection, query, sort=[("chunk", 1)])

    def waits_since(self, market: MarketPhase, before: str) -> bool:
        """Whether an open chunk, not a dead letter, was queued earlier than `before` or never."""
        query = {
            **market.as_fields(),
            **_OPEN,
            "failedAt": {"$exists": False},
            # A row that was never queued has no such field, which `$lt` alone would pass over.
            "$nor": [{"queuedAt": {"$gte": before}}],
        }
        return self._dependency.call(self._collection.find_one, query, {"_id": 1}) is not None

    def last_done_at(self, market: MarketPhase) -> str:
        """When its latest chunk was done; empty when none is."""
        query = {**market.as_fields(), "doneAt": {"$exists": True}}
        row = self._dependency.call(self._collection.find_one, query, {"doneAt": 1}, sort=[("doneAt", -1)])
        return "" if row is None else str(row["doneAt"])

    def reopen(self, market: MarketPhase) -> int:
        """All of a market's chunks count as open again: their rows were found missing."""
        update = {"$unset": {"doneAt": "", "written": "", "enqueued": ""}}
        answer = self._dependency.call(self._collection.update_many, market.as_fields(), update)
        return answer.modified_count
