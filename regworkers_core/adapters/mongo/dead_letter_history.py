"""The history of failures as operators ask for it: how often of late, what came back, what may be closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pymongo import UpdateOne
from pymongo.collection import Collection

from regworkers_core.adapters.mongo.client import aggregate_all, find_all
from regworkers_core.engine.dependency import Dependency

Document = dict[str, Any]
_PAGE = 500
# What a page of open letters is judged by.
_FIELDS = (
    "queue",
    "reason",
    "fingerprint",
    "lastFailedAt",
    "entryOrder",
    "campaignId",
    "entryId",
    "marketId",
    "phase",
    "chunk",
)


class DeadLetterHistory:
    """Reads and closes documents of `dead_letters`; `DeadLetterLog` writes them. Every method raises
    TransientFailure when MongoDB cannot answer. Times are ISO strings.
    """

    def __init__(self, collection: Collection[Document], dependency: Dependency) -> None:
        self._collection, self._dependency = collection, dependency

    def failures(self, queue: str, since: str, until: str) -> Counter[str]:
        """How many items failed last within [`since`, `until`), by fingerprint."""
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"queue": queue, "lastFailedAt": {"$gte": since, "$lt": until}}},
            {"$group": {"_id": "$fingerprint", "letters": {"$sum": 1}}},
        ]
        found = self._dependency.call(aggregate_all, self._collection, pipeline)
        return Counter({str(row["_id"]): int(row["letters"]) for row in found})

    def came_back(self, queue: str, fingerprint: str, since: str) -> bool:
        """Whether anything failed with this very cause since then."""
        return self._latest({"queue": queue, "fingerprint": fingerprint}, since) is not None

    def failed_since(self, queue: str, subjects: Sequence[Mapping[str, Any]], since: str) -> str | None:
        """The reason for which one of `subjects` (fields of documents) failed since then; None: none did."""
        for start in range(0, len(subjects), _PAGE):
            either = [dict(subject) for subject in subjects[start : start + _PAGE]]
            found = self._latest({"queue": queue, "$or": either}, since)
            if found is not None:
                return str(found.get("reason"))
        return None

    def _latest(self, query: Mapping[str, Any], since: str) -> Document | None:
        """The last failure that fits, if it is not before `since`: some servers compare times to the second only."""
        late = {**query, "lastFailedAt": {"$gte": since}}
        fields = {"reason": 1, "lastFailedAt": 1}
        found = self._dependency.call(self._collection.find_one, late, fields, sort=[("lastFailedAt", -1)])
        return found if found is not None and str(found["lastFailedAt"]) >= since else None

    def open(self, queue: str) -> Iterator[list[Document]]:
        """All open documents of a queue, a page at a time, by id: what is closed meanwhile is not missed out on."""
        last = ""
        while True:
            query = {"queue": queue, "status": "open", "_id": {"$gt": last}}
            page = self._dependency.call(
                find_all, self._collection, query, dict.fromkeys(_FIELDS, 1), sort=[("_id", 1)], limit=_PAGE
            )
            if not page:
                return
            last = page[-1]["_id"]
            yield page

    def close(self, letters: Sequence[Document], status: str, *, at: str, by: str) -> int:
        """Set the `status` of documents as `open` gave them; one that failed again meanwhile stays open."""
        operations = [
            UpdateOne(
                {"_id": letter["_id"], "status": "open", "lastFailedAt": letter["lastFailedAt"]},
                {"$set": {"status": status, "resolvedAt": at, "resolvedBy": by}},
            )
            for letter in letters
        ]
        if not operations:
            return 0
        done = self._dependency.call(self._collection.bulk_write, operations, ordered=False)
        return done.modified_count

    def close_one(self, query: Mapping[str, Any], status: str, *, before: str, at: str, by: str) -> bool:
        """Close one open document that fits `query` and did not fail after that time."""
        known = {**query, "status": "open", "lastFailedAt": {"$lte": before}}
        update = {"$set": {"status": status, "resolvedAt": at, "resolvedBy": by}}
        return self._dependency.call(self._collection.update_one, known, update).modified_count == 1

    def close_all(self, query: Mapping[str, Any], status: str, *, before: str, at: str, by: str) -> int:
        """Close every open document that fits `query` and did not fail after that time; how many."""
        known = {**query, "status": "open", "lastFailedAt": {"$lte": before}}
        update = {"$set": {"status": status, "resolvedAt": at, "resolvedBy": by}}
        return self._dependency.call(self._collection.update_many, known, update).modified_count
