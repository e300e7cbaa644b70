"""The history of failures (`dead_letters`), one document per item and message that failed, and the names of causes
(`dead_letter_causes`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairdraw.documents import as_document, from_document
from regworkers_core.adapters.mongo.activity import TEN_MINUTES
from regworkers_core.adapters.mongo.store import (
    Document,
    Documents,
    Store,
    Update,
    bulk_update,
    find_all,
    pages,
)
from regworkers_core.domain.entry import Order, lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import DeadLetter
from regworkers_core.domain.reasons import Reason
from regworkers_core.engine.dependency import Dependency

OPEN = "open"
_PAGE = 500
# Twice what a redrive sends before it looks; it looks every few seconds.
_LATEST = 20_000
# The fields that name an entry or a chunk.
SUBJECT_FIELDS = ("campaignId", "entryId", "marketId", "phase", "chunk")
# What open dead letters are judged by.
_JUDGED = (
    "queue",
    "reason",
    "fingerprint",
    "lastFailedAt",
    "entryOrder",
    *SUBJECT_FIELDS,
)
_RECORDED = (
    "queue",
    "reason",
    "error",
    "fingerprint",
    "status",
    "firstFailedAt",
    "lastFailedAt",
    "resolvedAt",
)


@dataclass(frozen=True, slots=True)
class RecordedFailure:
    """One document. Times are ISO strings; `closed_at` is None while it is open."""

    queue: str
    reason: str
    error: str  # what it raised
    fingerprint: str
    status: str  # open, or how it was closed
    first_failed_at: str
    last_failed_at: str
    closed_at: str | None

    @property
    def open(self) -> bool:
        return self.status == OPEN


@dataclass(frozen=True, slots=True)
class RecordedFailures:
    """`cut`: there were more than were asked for, so counts are lower bounds."""

    failures: tuple[RecordedFailure, ...]
    cut: bool


@dataclass(frozen=True, slots=True)
class OpenCause:
    """The open failures of one cause on one queue. Times are ISO strings."""

    queue: str
    fingerprint: str
    items: int
    first: str  # when one of them failed first
    last: str  # when one of them failed last
    reason: str
    error: str  # what one of them raised


@dataclass(frozen=True, slots=True)
class NamedCause:
    """What operators call a cause and know of it, whichever queue has it."""

    fingerprint: str
    name: str
    note: str  # what is known of it
    by: str  # who named it last
    at: str  # when, as an ISO time


class DeadLetters(Store):
    """Every method raises TransientFailure when MongoDB cannot answer. Times are ISO strings."""

    def __init__(self, collection: Documents, causes: Documents, dependency: Dependency) -> None:
        super().__init__(collection, dependency)
        self._causes = causes

    def record(self, dead_letters: Sequence[DeadLetter], *, at: str, run_id: str) -> None:
        """Upsert each by its id. Call it before the message goes to its dead-letter queue, so that the history is
        complete.
        """
        operations = [
            bulk_update(
                {"_id": each.id},
                {
                    "$set": _fields(each) | {"lastFailedAt": at, "runId": run_id, "status": OPEN},
                    "$setOnInsert": {"firstFailedAt": each.first_failed_at},
                    "$unset": {"resolvedAt": ""},
                    "$inc": {"count": 1},
                },
                upsert=True,
            )
            for each in dead_letters
        ]
        self._bulk(operations)

    # What the save drain and reconcile ask.

    def open_orders(self, keys: Sequence[EntryKey]) -> dict[EntryKey, set[Order]]:
        """The orders of each entry with an open dead letter that means: this state cannot be saved.

        Exhausted attempts do not mean that: their cause may be over.
        """
        found: dict[EntryKey, set[Order]] = {}
        for key, document in self._open_of(keys):
            if document.get("reason") != Reason.ATTEMPTS_EXHAUSTED:
                found.setdefault(key, set()).add(_order(document))
        return found

    def open_entries(self, queue: str, limit: int) -> set[EntryKey] | None:
        """The entries with an open dead letter of `queue`; None when there are more than `limit` dead letters."""
        query = {"status": OPEN, "queue": queue, "entryId": {"$ne": None}}
        found = self._find(query, {"campaignId": 1, "entryId": 1}, limit=limit + 1)
        if len(found) > limit:
            return None
        return {EntryKey(each["campaignId"], each["entryId"]) for each in found}

    def resolve(self, queue: str, saved: Mapping[EntryKey, Order], *, at: str) -> int:
        """Close the open dead letters of `queue` about states at or below the order with which the entry is saved;
        returns how many. One that failed again meanwhile stays open.
        """
        return self._bulk(
            [
                _closing(document, {"status": "resolved", "resolvedAt": at})
                for key, document in self._open_of(list(saved))
                if document["queue"] == queue and _order(document) <= saved[key]
            ]
        )

    def _open_of(self, keys: Sequence[EntryKey]) -> Iterator[tuple[EntryKey, Document]]:
        for campaign_id in {key.campaign_id for key in keys}:
            ids = [key.entry_id for key in keys if key.campaign_id == campaign_id]
            query = {"campaignId": campaign_id, "entryId": {"$in": ids}, "status": OPEN}
            for document in self._find(query):
                yield EntryKey(campaign_id, document["entryId"]), document

    # What operators and reviews ask.

    def of_entry(self, key: EntryKey) -> list[Document]:
        """Every recorded failure of one entry, oldest first."""
        query = {"campaignId": key.campaign_id, "entryId": key.entry_id}
        return sorted(self._find(query), key=lambda document: str(document.get("firstFailedAt", "")))

    def forget(self, key: EntryKey) -> int:
        """Delete every recorded failure of an erased entry; returns how many."""
        query = {"campaignId": key.campaign_id, "entryId": key.entry_id}
        return self._dependency.call(self._collection.delete_many, query).deleted_count

    def oldest_open(self, queue: str) -> str | None:
        """When the oldest open failure failed first, None without any."""
        query = {"status": OPEN, "queue": queue}
        found = self._first(query, {"firstFailedAt": 1}, sort=[("firstFailedAt", 1)])
        return None if found is None else str(found["firstFailedAt"])

    def number_open(self, reason: Reason) -> int:
        return self._dependency.call(
            self._collection.count_documents, {"status": OPEN, "reason": reason.value}
        )

    def since(self, since: str, *, most: int) -> RecordedFailures:
        """Up to `most` of each kind: open, failed since then, closed since then."""
        found: dict[Any, Mapping[str, Any]] = {}
        cut = False
        for query in ({"status": OPEN}, {"lastFailedAt": {"$gte": since}}, {"resolvedAt": {"$gte": since}}):
            page = self._find(query, dict.fromkeys(_RECORDED, 1), limit=most + 1)
            cut = cut or len(page) > most
            found |= {document["_id"]: document for document in page[:most]}
        return RecordedFailures(tuple(_recorded(document) for document in found.values()), cut)

    def open_causes(self) -> list[OpenCause]:
        """What is open, by queue and cause, the latest first."""
        # One text: the embedded server does not evaluate the fields of a document.
        both = {"$concat": ["$queue", "|", "$fingerprint"]}
        kept = dict.fromkeys(("firstFailedAt", "lastFailedAt", "reason", "error"), 1)
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"status": OPEN}},
            {"$project": {"both": both, **kept}},
            {
                "$group": {
                    "_id": "$both",
                    "items": {"$sum": 1},
                    "first": {"$min": "$firstFailedAt"},
                    "last": {"$max": "$lastFailedAt"},
                    "reason": {"$max": "$reason"},
                    "error": {"$max": "$error"},
                }
            },
        ]
        found = []
        for row in self._aggregate(pipeline):
            queue, _, fingerprint = str(row.pop("_id")).partition("|")
            found.append(OpenCause(queue, fingerprint, **row))
        return sorted(found, key=lambda each: each.last, reverse=True)

    def failures(self, queue: str, since: str) -> dict[str, Counter[str]]:
        """How many items failed last since then, by fingerprint and ten minutes (`2026-11-26T22:4`)."""
        begin = {"$substrCP": ["$lastFailedAt", 0, TEN_MINUTES]}
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"queue": queue, "lastFailedAt": {"$gte": since}}},
            {"$project": {"both": {"$concat": ["$fingerprint", "|", begin]}}},
            {"$group": {"_id": "$both", "items": {"$sum": 1}}},
        ]
        found: dict[str, Counter[str]] = {}
        for row in self._aggregate(pipeline):
            fingerprint, _, begin_of = str(row["_id"]).partition("|")
            found.setdefault(fingerprint, Counter())[begin_of] += int(row["items"])
        return found

    def name_cause(self, cause: NamedCause) -> None:
        """Replace what operators call a cause; without name and note forget it."""
        query = {"_id": cause.fingerprint}
        if cause.name or cause.note:
            fields = as_document(cause, "name", "note", "by", "at")
            self._dependency.call(self._causes.replace_one, query, query | fields, upsert=True)
        else:
            self._dependency.call(self._causes.delete_one, query)

    def named_causes(self, fingerprints: Sequence[str]) -> dict[str, NamedCause]:
        found = self._dependency.call(find_all, self._causes, {"_id": {"$in": list(fingerprints)}})
        return {each["_id"]: from_document(NamedCause, each, fingerprint=each["_id"]) for each in found}

    def failed_since(self, queue: str, since: str) -> list[Mapping[str, Any]]:
        """What the latest failures since then are about: the fields that name it, and its correlation id."""
        query = {"lastFailedAt": {"$gte": since}, "queue": queue}
        fields = dict.fromkeys((*SUBJECT_FIELDS, "correlationId", "lastFailedAt"), 1)
        found = self._find(query, fields, sort=[("lastFailedAt", -1)], limit=_LATEST)
        # Some servers compare times to the second only.
        return [document for document in found if str(document["lastFailedAt"]) >= since]

    def open(self, queue: str) -> Iterator[list[Document]]:
        """All open documents of a queue, a page at a time, by id. Those of a page may be closed before the next."""
        query = {"queue": queue, "status": OPEN}
        return pages(self._collection, self._dependency, query, _JUDGED, size=_PAGE)

    def close(self, documents: Sequence[Document], status: str, *, at: str, by: str) -> int:
        """Set the `status` of documents as `open` returned them; one that failed again meanwhile stays open."""
        return self._bulk([_closing(document, _closed(status, at, by)) for document in documents])

    def close_one(self, query: Mapping[str, Any], status: str, *, before: str, at: str, by: str) -> bool:
        """Close one open document that matches `query` and did not fail after `before`."""
        known = {**query, "status": OPEN, "lastFailedAt": {"$lte": before}}
        return self._update_one(known, {"$set": _closed(status, at, by)}).modified_count == 1

    def close_all(self, query: Mapping[str, Any], status: str, *, before: str, at: str, by: str) -> int:
        """Close every document as `close_one` does; returns how many."""
        known = {**query, "status": OPEN, "lastFailedAt": {"$lte": before}}
        return self._update_many(known, {"$set": _closed(status, at, by)}).modified_count


def _closing(document: Document, fields: Document) -> Update:
    """Matches the document only as it was read: still open, and not failed again."""
    as_read = {"_id": document["_id"], "status": OPEN, "lastFailedAt": document["lastFailedAt"]}
    return bulk_update(as_read, {"$set": fields})


def _closed(status: str, at: str, by: str) -> Document:
    return {"status": status, "resolvedAt": at, "resolvedBy": by}


def _order(document: Mapping[str, Any]) -> Order:
    return lenient_order(document.get("entryOrder") or {})


def _fields(dead_letter: DeadLetter) -> Document:
    subject = dead_letter.subject
    return {
        "queue": dead_letter.queue,
        "messageId": dead_letter.message_id,
        "reason": dead_letter.failure.reason.value,
        "error": dead_letter.failure.error,
        "fingerprint": dead_letter.fingerprint,
        "correlationId": dead_letter.correlation_id,
        "campaignId": None,
        "entryId": None,
        "entryOrder": subject.order.as_fields() if subject and subject.order else None,
        **(subject.ids if subject else {}),
    }


def _recorded(document: Mapping[str, Any]) -> RecordedFailure:
    queue, reason, error, fingerprint, status, first, last = (
        str(document.get(name) or "") for name in _RECORDED[:-1]
    )
    return RecordedFailure(queue, reason, error, fingerprint, status, first, last, document.get("resolvedAt"))
