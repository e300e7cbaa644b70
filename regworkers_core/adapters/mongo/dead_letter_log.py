"""The history of failures: collection `dead_letters`, one document per item and message that failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pymongo import UpdateOne
from pymongo.collection import Collection

from regworkers_core.adapters.mongo.client import find_all
from regworkers_core.domain.dead_letter import DeadLetter
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order, lenient_order
from regworkers_core.domain.reasons import Reason
from regworkers_core.engine.dependency import Dependency


class DeadLetterLog:
    """Written before the message goes to its dead-letter queue, so that the history is never short of one."""

    def __init__(self, collection: Collection[dict[str, Any]], dependency: Dependency) -> None:
        self._collection = collection
        self._dependency = dependency

    def record(self, letters: Sequence[DeadLetter], *, at: str, run_id: str) -> None:
        """Upsert each by its id. Raises TransientFailure when MongoDB cannot answer."""
        operations = [
            UpdateOne(
                {"_id": letter.id},
                {
                    "$set": _facts(letter) | {"lastFailedAt": at, "runId": run_id, "status": "open"},
                    "$setOnInsert": {"firstFailedAt": letter.first_failed_at},
                    "$unset": {"resolvedAt": ""},
                    "$inc": {"count": 1},
                },
                upsert=True,
            )
            for letter in letters
        ]
        if operations:
            self._dependency.call(self._collection.bulk_write, operations, ordered=False)

    def open_orders(self, keys: Sequence[EntryKey]) -> dict[EntryKey, set[Order]]:
        """The orders of each entry under which an open dead letter stands that says: this state cannot be saved.

        Exhausted attempts do not say that: what caused them may be over.
        """
        found: dict[EntryKey, set[Order]] = {}
        for key, letter in self._open(keys):
            if letter.get("reason") != Reason.ATTEMPTS_EXHAUSTED:
                found.setdefault(key, set()).add(_order(letter))
        return found

    def open_entries(self, queue: str, limit: int) -> set[EntryKey] | None:
        """The entries with an open dead letter of `queue`; None when there are more than `limit` letters."""
        query = {"status": "open", "queue": queue, "entryId": {"$ne": None}}
        fields = {"campaignId": 1, "entryId": 1}
        found = self._dependency.call(find_all, self._collection, query, fields, limit=limit + 1)
        if len(found) > limit:
            return None
        return {EntryKey(letter["campaignId"], letter["entryId"]) for letter in found}

    def oldest_open(self, queue: str) -> str | None:
        """When the oldest failure that still stands open failed first (ISO), None without any."""
        query = {"status": "open", "queue": queue}
        found = self._dependency.call(
            self._collection.find_one, query, {"firstFailedAt": 1}, sort=[("firstFailedAt", 1)]
        )
        return None if found is None else str(found["firstFailedAt"])

    def resolve(self, queue: str, saved: Mapping[EntryKey, Order], *, at: str) -> int:
        """Close the open letters of `queue` about states at or below the order that the entry is saved with;
        how many. One that failed again meanwhile stays open.
        """
        operations = [
            UpdateOne(
                {"_id": letter["_id"], "status": "open", "lastFailedAt": letter["lastFailedAt"]},
                {"$set": {"status": "resolved", "resolvedAt": at}},
            )
            for key, letter in self._open(list(saved))
            if letter["queue"] == queue and _order(letter) <= saved[key]
        ]
        if not operations:
            return 0
        return self._dependency.call(self._collection.bulk_write, operations, ordered=False).modified_count

    def _open(self, keys: Sequence[EntryKey]) -> Iterator[tuple[EntryKey, dict[str, Any]]]:
        for campaign_id in {key.campaign_id for key in keys}:
            ids = [key.entry_id for key in keys if key.campaign_id == campaign_id]
            query = {"campaignId": campaign_id, "entryId": {"$in": ids}, "status": "open"}
            for letter in self._find(query):
                yield EntryKey(campaign_id, letter["entryId"]), letter

    def of_entry(self, key: EntryKey) -> list[dict[str, Any]]:
        """Every recorded failure of one entry, oldest first."""
        found = self._find({"campaignId": key.campaign_id, "entryId": key.entry_id})
        return sorted(found, key=lambda document: str(document.get("firstFailedAt", "")))

    def forget(self, key: EntryKey) -> int:
        """Delete every recorded failure of an erased entry; how many."""
        query = {"campaignId": key.campaign_id, "entryId": key.entry_id}
        return self._dependency.call(self._collection.delete_many, query).deleted_count

    def _find(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        return self._dependency.call(find_all, self._collection, query)


def _order(letter: Mapping[str, Any]) -> Order:
    return lenient_order(letter.get("entryOrder") or {})


def _facts(letter: DeadLetter) -> dict[str, Any]:
    subject = letter.subject
    return {
        "queue": letter.queue,
        "messageId": letter.message_id,
        "reason": letter.failure.reason.value,
        "error": letter.failure.error,
        "fingerprint": letter.fingerprint,
        "correlationId": letter.correlation_id,
        "campaignId": None,
        "entryId": None,
        "entryOrder": subject.order.as_fields() if subject and subject.order else None,
        **(subject.ids if subject else {}),
    }
