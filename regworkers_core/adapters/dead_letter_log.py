"""The history of failures: collection `dead_letters`, one document per item and message that failed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import UpdateOne
from pymongo.collection import Collection

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order, lenient_order
from regworkers_core.domain.reasons import PermanentFailure, Reason
from regworkers_core.engine.dependency import Dependency


def fingerprint(reason: str, error: str) -> str:
    """Groups failures by cause: the first 16 hex digits of SHA-256 over reason and error."""
    return hashlib.sha256(f"{reason}\n{error}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One failure. `key` and `order` are None where the message was too broken to name an entry."""

    queue: str
    message_id: str
    failure: PermanentFailure
    correlation_id: str
    first_failed_at: str
    key: EntryKey | None = None
    order: Order | None = None

    @property
    def id(self) -> str:
        """The same failure of the same message keeps its id, so that a repeat is recorded once."""
        item = self.key.document_id if self.key else ""
        return hashlib.sha256(f"{self.queue}\n{self.message_id}\n{item}".encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.failure.reason, self.failure.error)


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
                    "$set": {
                        "queue": letter.queue,
                        "messageId": letter.message_id,
                        "reason": letter.failure.reason.value,
                        "error": letter.failure.error,
                        "fingerprint": letter.fingerprint,
                        "correlationId": letter.correlation_id,
                        "campaignId": letter.key.campaign_id if letter.key else None,
                        "entryId": letter.key.entry_id if letter.key else None,
                        "entryOrder": letter.order.as_fields() if letter.order else None,
                        "lastFailedAt": at,
                        "runId": run_id,
                        "status": "open",
                    },
                    "$setOnInsert": {"firstFailedAt": letter.first_failed_at},
                    "$inc": {"count": 1},
                },
                upsert=True,
            )
            for letter in letters
        ]
        if operations:
            self._dependency.call(lambda: self._collection.bulk_write(operations, ordered=False))

    def open_orders(self, keys: Sequence[EntryKey]) -> dict[EntryKey, set[Order]]:
        """The orders of each entry under which an open dead letter stands that says: this state cannot be saved.

        Exhausted attempts do not say that: what caused them may be over.
        """
        found: dict[EntryKey, set[Order]] = {}
        for campaign_id in {key.campaign_id for key in keys}:
            ids = [key.entry_id for key in keys if key.campaign_id == campaign_id]
            for document in self._find(
                {"campaignId": campaign_id, "entryId": {"$in": ids}, "status": "open"}
            ):
                if document.get("reason") == Reason.ATTEMPTS_EXHAUSTED:
                    continue
                key = EntryKey(campaign_id, document["entryId"])
                found.setdefault(key, set()).add(lenient_order(document.get("entryOrder") or {}))
        return found

    def of_entry(self, key: EntryKey) -> list[dict[str, Any]]:
        """Every recorded failure of one entry, oldest first."""
        found = self._find({"campaignId": key.campaign_id, "entryId": key.entry_id})
        return sorted(found, key=lambda document: str(document.get("firstFailedAt", "")))

    def _find(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        return self._dependency.call(lambda: list(self._collection.find(query)))
