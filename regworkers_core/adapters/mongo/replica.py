"""The `entries` collection: guarded writes in bulk, and what became of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.cursor import Cursor
from pymongo.errors import BulkWriteError, CursorNotFound, DocumentTooLarge, DuplicateKeyError, WriteError
from pymongo.results import BulkWriteResult

from regworkers_core.adapters.mongo.client import classify_mongo, find_all
from regworkers_core.adapters.mongo.entry_documents import (
    ERASED_AT,
    UNSTORABLE,
    Document,
    Effect,
    Stored,
    Write,
    erasing,
    exactly,
    fits,
    guarded,
    is_ours,
    judge,
    stored_of,
    written_over,
)
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order
from regworkers_core.domain.reasons import Failure, ItemFailure, PermanentFailure, Reason, TransientFailure
from regworkers_core.engine.dependency import Dependency

DUPLICATE_KEY = 11000
# Write errors that are about the document itself: bad value, path, field name, size, key or validation rule.
_ITEM_CODES = frozenset({2, 9, 28, 40, 52, 55, 56, 57, 59, 121, 10334, 16755, 17280, 17419})
# Beside those that are transient wherever they come from: writes blocked, no space left, Atlas over its quota.
_SERVER_CODES = frozenset({371, 8000, 14031})
# Others may write a contested document between our read and our write, but each time a newer state.
_SETTLE_ROUNDS = 4


class Counted(NamedTuple):
    """Entries of a campaign that live, and those that were removed."""

    live: int
    tombstones: int


@dataclass(frozen=True, slots=True)
class _Bulk:
    """Write errors by index, how many operations matched or inserted a document, and whether it was sent again."""

    errors: Mapping[int, Document]
    touched: int
    repeated: bool


class Replica:
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Collection[Document], dependency: Dependency) -> None:
        self._collection = collection
        self._dependency = dependency

    def apply(self, writes: Sequence[Write], *, at: str, run_id: str) -> dict[EntryKey, Effect | Failure]:
        """Write distinct keys in one unordered bulk. A Failure belongs to its item alone: PermanentFailure
        (INVALID_ENTRY, DUPLICATE_KEY) or ItemFailure.
        """
        outcome: dict[EntryKey, Effect | Failure] = {}
        pending = list(writes)
        operations = [guarded(write, at, run_id) for write in pending]
        repeated = False
        while pending:
            try:
                bulk = self._bulk(operations)
                repeated |= bulk.repeated
                break
            except (*UNSTORABLE, DocumentTooLarge):
                # The driver names no culprit, so each document is tried by itself. Of a large bulk it may have
                # sent a part before.
                repeated = True
                fit = [fits(write) for write in pending]
                outcome.update(
                    (write.key, _REFUSED) for write, ok in zip(pending, fit, strict=True) if not ok
                )
                if all(fit):
                    raise
                operations = [operation for operation, ok in zip(operations, fit, strict=True) if ok]
                pending = [write for write, ok in zip(pending, fit, strict=True) if ok]
        else:
            return outcome
        is_dependency = self._is_dependency(bulk, len(pending))
        contested = []
        for index, write in enumerate(pending):
            error = bulk.errors.get(index)
            if error is None:
                outcome[write.key] = Effect.APPLIED
            elif error.get("code") == DUPLICATE_KEY:
                # Whichever index the server names first: a look at the document tells.
                contested.append(write)
            else:
                outcome[write.key] = self._failure(error, is_dependency=is_dependency)
        if contested:
            outcome.update(self._settle(contested, at, run_id, repeated=repeated))
        return outcome

    def _settle(
        self, contested: Sequence[Write], at: str, run_id: str, *, repeated: bool
    ) -> dict[EntryKey, Effect | Failure]:
        """A unique index refused each of these, mostly because a document stands under the id that the guard
        passed by: look, judge, write exactly over what was seen, and look again where somebody was faster.

        `repeated`: the bulk was sent more than once, so that what stands may be what its first sending wrote
        before the answer got lost. Such a write is APPLIED, or nobody would ever make an event of it.
        """
        outcome: dict[EntryKey, Effect | Failure] = (
            {write.key: Effect.APPLIED for write in contested} if repeated else {}
        )
        for _ in range(_SETTLE_ROUNDS):
            stored = self.get([write.key for write in contested])
            tried: list[tuple[Write, Stored | None]] = []
            for write in contested:
                seen = stored.get(write.key)
                if write.key in outcome and seen is not None and is_ours(write, seen, at, run_id):
                    continue
                effect = Effect.APPLIED if seen is None else judge(write, seen)
                outcome[write.key] = effect
                if effect in (Effect.APPLIED, Effect.HEALED):
                    tried.append((write, seen))
            if not tried:
                return outcome
            bulk = self._bulk([written_over(write, seen, at, run_id) for write, seen in tried])
            is_dependency = self._is_dependency(bulk, len(tried))
            contested = []
            for index, (write, seen) in enumerate(tried):
                error = bulk.errors.get(index)
                if error is None:
                    # Without an error it is written, unless the server touched fewer: it does not say which.
                    if bulk.touched < len(tried) - len(bulk.errors):
                        contested.append(write)
                elif error.get("code") == DUPLICATE_KEY and seen is None and _on_id(error):
                    contested.append(write)
                else:
                    outcome[write.key] = self._failure(error, is_dependency=is_dependency)
            if not contested:
                return outcome
        raise TransientFailure(self._dependency.name, "entries stay contested by other writers")

    def _is_dependency(self, bulk: _Bulk, operations: int) -> bool:
        """Whether errors of a bulk with unknown codes are the server's: all of several writes were refused, with
        one code. One that was refused beside others that went well, or alone, has itself to answer for it; alone it
        is tried again, a capped number of times.
        """
        codes = {error.get("code") for error in bulk.errors.values()}
        return len(bulk.errors) == operations > 1 and len(codes) == 1

    def _failure(self, error: Document, *, is_dependency: bool) -> Failure:
        """What a write error means that is not about the id."""
        code = error.get("code")
        if code == DUPLICATE_KEY:
            return PermanentFailure(
                Reason.DUPLICATE_KEY, "another entry holds the same value of a unique index"
            )
        if code not in _ITEM_CODES and (is_dependency or _is_the_servers(code)):
            # Disk full, quota, writes blocked, an election: whatever it is, it is not this one entry's fault.
            return TransientFailure(self._dependency.name, f"code {code}")
        return ItemFailure(f"MongoDB write error {code}")

    def get(self, keys: Sequence[EntryKey]) -> dict[EntryKey, Stored]:
        """What is stored under `keys`; absent ones are absent from the answer."""
        documents = self._dependency.call(
            find_all, self._collection, {"_id": {"$in": [key.document_id for key in keys]}}
        )
        by_id = {document["_id"]: stored_of(document) for document in documents}
        return {key: by_id[key.document_id] for key in keys if key.document_id in by_id}

    def erased(self, refs: Mapping[EntryKey, str]) -> set[EntryKey]:
        """Those whose registration under this ref was erased: a tombstone stands, or a later registration of the fan
        under another ref.
        """
        query = {"_id": {"$in": [key.document_id for key in refs]}, ERASED_AT: {"$exists": True}}
        found = self._dependency.call(find_all, self._collection, query, {"_id": 1, "ref": 1, "deletedAt": 1})
        live = {each["_id"]: None if "deletedAt" in each else each.get("ref") for each in found}
        return {key for key, ref in refs.items() if live.get(key.document_id, ref) != ref}

    def scan(self, campaign_id: str | None, batch_size: int = 1000) -> Iterator[tuple[EntryKey, Stored]]:
        """Every document, tombstones included, of one campaign or of all, by ascending `_id`.

        Raises TransientFailure when MongoDB stays away. A cursor that broke is opened again behind the last
        document: the scan is never silently short.
        """
        cursor, batch = self._dependency.call(self._open_scan, campaign_id, None, batch_size)
        while batch:
            for document in batch:
                campaign, entry = document.get("campaignId"), document.get("entryId")
                if isinstance(campaign, str) and isinstance(entry, str):
                    yield EntryKey(campaign, entry), stored_of(document)
            if len(batch) < batch_size:
                return
            last_id = batch[-1]["_id"]
            try:
                # Not repeated: a cursor that failed once says that it is at its end.
                batch = self._dependency.once(list, islice(cursor, batch_size))
            except (TransientFailure, CursorNotFound):
                cursor, batch = self._dependency.call(self._open_scan, campaign_id, last_id, batch_size)

    def has_campaign(self, campaign_id: str) -> bool:
        """Whether any document, tombstones included, belongs to the campaign."""
        query = {"campaignId": campaign_id}
        return self._dependency.call(self._collection.find_one, query, {"_id": 1}) is not None

    def _open_scan(
        self, campaign_id: str | None, after: str | None, batch_size: int
    ) -> tuple[Cursor[Document], list[Document]]:
        query: Document = {} if campaign_id is None else {"campaignId": campaign_id}
        if after is not None:
            query["_id"] = {"$gt": after}
        cursor = self._collection.find(query).sort("_id", 1).batch_size(batch_size)
        return cursor, list(islice(cursor, batch_size))

    def count_campaign(self, campaign_id: str) -> Counted:
        """Documents of one campaign. Indexes answer that: one has all of them, the other one tombstones only."""
        query: Document = {"campaignId": campaign_id}
        removed: Document = {**query, "deletedAt": {"$exists": True}}
        documents, tombstones = (
            self._dependency.call(self._collection.count_documents, each) for each in (query, removed)
        )
        # An entry may be removed between the two.
        return Counted(max(0, documents - tombstones), tombstones)

    def delete_tombstone(self, key: EntryKey, order: Order) -> bool:
        """Delete exactly this tombstone; False when it changed meanwhile, and for one that refuses what an erasure
        took out.
        """
        stored = Stored(order, None, order.as_fields(), "")
        answer = self._dependency.call(self._collection.delete_one, exactly(key, stored))
        return answer.deleted_count == 1

    def erase(self, key: EntryKey, order: Order, *, at: str, run_id: str) -> None:
        """Leave the tombstone of an erased fan, whatever stands: it refuses every live state with a `createdAt` up to
        the ISO time `at`. Where a later life is stored, that one stays and only the time is kept. `order` is that of
        the source's state, or `Order()`.
        """
        for _ in range(_SETTLE_ROUNDS):
            stands = self._dependency.call(self._collection.find_one, {"_id": key.document_id})
            query, update = erasing(key, stands, order, at=at, run_id=run_id)
            try:
                answer = self._dependency.call(
                    self._collection.update_one, query, update, upsert=stands is None
                )
            except DuplicateKeyError:
                continue
            if answer.matched_count or answer.upserted_id is not None:
                return
        raise TransientFailure(self._dependency.name, "the entry stays contested by other writers")

    def erasures(self, campaign_id: str | None, batch_size: int = 1000) -> Iterator[dict[EntryKey, str]]:
        """Entries of which a life was erased, with the time of it, by ascending `_id`; an index has only those."""
        query: Document = {ERASED_AT: {"$exists": True}}
        if campaign_id is not None:
            query["campaignId"] = campaign_id
        while True:
            page = self._dependency.call(
                find_all, self._collection, query, sort=[("_id", 1)], limit=batch_size
            )
            if page:
                yield {
                    EntryKey(each["campaignId"], each["entryId"]): str(each[ERASED_AT])
                    for each in page
                    if isinstance(each.get("campaignId"), str) and isinstance(each.get("entryId"), str)
                }
            if len(page) < batch_size:
                return
            query = {**query, "_id": {"$gt": page[-1]["_id"]}}

    def count(self) -> int:
        """Documents in the collection, tombstones included, from its metadata."""
        return self._dependency.call(self._collection.estimated_document_count)

    def probe(self) -> None:
        """One cheap call; raises TransientFailure or UsageError."""
        self._dependency.call(self._collection.database.command, "ping")

    def _bulk(self, operations: Sequence[UpdateOne]) -> _Bulk:
        sent = 0

        def send() -> BulkWriteResult:
            nonlocal sent
            sent += 1
            return self._collection.bulk_write(list(operations), ordered=False)

        try:
            answer = self._dependency.call(send)
        except BulkWriteError as error:
            details = error.details
            if details.get("writeConcernErrors"):
                raise TransientFailure(self._dependency.name, "write concern not satisfied") from None
            errors = {problem["index"]: problem for problem in details.get("writeErrors", ())}
            return _Bulk(errors, details.get("nMatched", 0) + details.get("nUpserted", 0), sent > 1)
        return _Bulk({}, answer.matched_count + answer.upserted_count, sent > 1)


_REFUSED = PermanentFailure(Reason.INVALID_ENTRY, "the entry cannot be stored as a MongoDB document")


def _is_the_servers(code: object) -> bool:
    """Whether a code is known not to be about the document: an election, a full disk, a refused access."""
    error = WriteError("", code if isinstance(code, int) else None)
    return code in _SERVER_CODES or classify_mongo(error) is not error


def _on_id(error: Document) -> bool:
    """Whether a duplicate-key error is about `_id` (the pattern, or the text of servers that send none)."""
    pattern = error.get("keyPattern")
    if pattern is not None:
        return list(pattern) == ["_id"]
    text = str(error.get("errmsg", ""))
    return "index: _id_" in text or text.endswith("._id")
