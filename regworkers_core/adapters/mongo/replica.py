"""The `entries` collection: guarded writes in bulk, and the outcome of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from regworkers_core.adapters.mongo.entry_documents import (
    ERASED_AT,
    REGISTRATION,
    UNSTORABLE,
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
from regworkers_core.adapters.mongo.store import DUPLICATE_KEY, Document, Store, Update, pages, scan
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import Failure, ItemFailure, PermanentFailure, Reason, TransientFailure

# Write errors about the document itself: bad value, path, field name, size, key or validation rule.
_ITEM_CODES = frozenset({2, 9, 28, 40, 52, 55, 56, 57, 59, 121, 10334, 16755, 17280, 17419})
# Beside the codes that are always transient: writes blocked, no space left, Atlas over its quota.
_SERVER_CODES = frozenset({371, 8000, 14031})
_RANGE_DOCUMENTS = 1000
# Other writers may change a contested document between our read and our write, but each time to a newer state.
_SETTLE_ROUNDS = 4


class ReplicaCounts(NamedTuple):
    """Live entries of a campaign, and removed ones."""

    live: int
    tombstones: int


@dataclass(frozen=True, slots=True)
class _Bulk:
    """What a bulk did, by the index of its operations."""

    errors: Mapping[int, Document]  # those of writes
    touched: int  # how many operations matched or inserted a document
    repeated: bool  # whether the bulk was retried
    inserted: frozenset[int]  # the operations that found no document


class Replica(Store):
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def apply(
        self, writes: Sequence[Write], *, at: str, run_id: str, live: Counter[str] | None = None
    ) -> dict[EntryKey, Effect | Failure]:
        """Write distinct keys in one unordered bulk. A Failure belongs to its item alone: PermanentFailure
        (INVALID_ENTRY, DUPLICATE_KEY) or ItemFailure.

        `live` gets by campaign how many live entries came to the replica, less those that were removed, as far as the
        server's answers show: an entry that comes back in its second version does not count, a removal that comes twice
        counts twice. `EntryCounts` has what corrects that.
        """
        live = Counter() if live is None else live
        from pymongo.errors import DocumentTooLarge

        outcome: dict[EntryKey, Effect | Failure] = {}
        pending = list(writes)
        operations = [guarded(write, at, run_id) for write in pending]
        repeated = False
        while pending:
            try:
                bulk = self._send(operations)
                repeated |= bulk.repeated
                break
            except (*UNSTORABLE, DocumentTooLarge):
                # The driver does not name the document, so each is checked alone. It may have sent a part of a large
                # bulk before.
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
                is_new = index in bulk.inserted
                live[write.key.campaign_id] += is_new if write.fields is not None else is_new - 1
            elif error.get("code") == DUPLICATE_KEY:
                # The server may name any index first; reading the document shows which one it is.
                contested.append(write)
            else:
                outcome[write.key] = self._failure(error, is_dependency=is_dependency)
        if contested:
            outcome.update(self._settle(contested, at, run_id, live, repeated=repeated))
        return outcome

    def _settle(
        self, contested: Sequence[Write], at: str, run_id: str, live: Counter[str], *, repeated: bool
    ) -> dict[EntryKey, Effect | Failure]:
        """A unique index refused each of these, usually because a document has the id that the guard did not match:
        read, judge, write exactly over what was read, and read again where another writer was faster.

        `repeated`: the bulk was sent more than once, so the stored document may come from its first sending, whose
        answer was lost. Such a write is APPLIED; otherwise it would have no event.
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
            bulk = self._send([written_over(write, seen, at, run_id) for write, seen in tried])
            is_dependency = self._is_dependency(bulk, len(tried))
            contested = []
            for index, (write, seen) in enumerate(tried):
                error = bulk.errors.get(index)
                if error is None:
                    # Without an error it is written, unless the server changed fewer: it does not say which.
                    if bulk.touched < len(tried) - len(bulk.errors):
                        contested.append(write)
                    else:
                        was_live = seen is not None and seen.deleted_at is None
                        live[write.key.campaign_id] += (write.fields is not None) - was_live
                elif error.get("code") == DUPLICATE_KEY and seen is None and _on_id(error):
                    contested.append(write)
                else:
                    outcome[write.key] = self._failure(error, is_dependency=is_dependency)
            if not contested:
                return outcome
        raise TransientFailure(self._dependency.name, "entries stay contested by other writers")

    def _is_dependency(self, bulk: _Bulk, operations: int) -> bool:
        """Whether errors of a bulk with unknown codes are the server's: several writes were all refused with one code.
        A write that was refused alone, or beside others that succeeded, is at fault itself; it is tried again alone, a
        capped number of times.
        """
        codes = {error.get("code") for error in bulk.errors.values()}
        return len(bulk.errors) == operations > 1 and len(codes) == 1

    def _failure(self, error: Document, *, is_dependency: bool) -> Failure:
        """The failure of a write error that is not about the id."""
        code = error.get("code")
        if code == DUPLICATE_KEY:
            return PermanentFailure(
                Reason.DUPLICATE_KEY, "another entry holds the same value of a unique index"
            )
        if code not in _ITEM_CODES and (is_dependency or _is_the_servers(code)):
            # Disk full, quota, writes blocked, an election: not about this entry.
            return TransientFailure(self._dependency.name, f"code {code}")
        return ItemFailure(f"MongoDB write error {code}")

    def get(self, keys: Sequence[EntryKey]) -> dict[EntryKey, Stored]:
        """What is stored for `keys`, as far as it exists."""
        documents = self._find({"_id": {"$in": [key.document_id for key in keys]}})
        by_id = {document["_id"]: stored_of(document) for document in documents}
        return {key: by_id[key.document_id] for key in keys if key.document_id in by_id}

    def erased(self, refs: Mapping[EntryKey, str]) -> set[EntryKey]:
        """Those whose registration with this ref was erased: stored is a tombstone, or a later registration of the fan
        with another ref.
        """
        query = {"_id": {"$in": [key.document_id for key in refs]}, ERASED_AT: {"$exists": True}}
        found = self._find(query, {"_id": 1, "ref": 1, "deletedAt": 1})
        live = {each["_id"]: None if "deletedAt" in each else each.get("ref") for each in found}
        return {key for key, ref in refs.items() if live.get(key.document_id, ref) != ref}

    def scan(self, batch_size: int = 1000) -> Iterator[tuple[EntryKey, Stored]]:
        """Every document of an entry, tombstones included, by ascending `_id`."""
        for _, key, stored in self.documents(batch_size):
            if key is not None:
                yield key, stored

    def documents(self, batch_size: int = 1000) -> Iterator[tuple[object, EntryKey | None, Stored]]:
        """The same with its `_id`; the key is None for a document of another writer that names no entry."""
        for page in scan(self._collection, self._dependency, {}, size=batch_size):
            for document in page:
                yield document["_id"], _key_of(document), stored_of(document)

    def entries(
        self, campaign_id: str, first: str = "", end: str | None = None, since: str = ""
    ) -> Iterator[tuple[EntryKey, Stored]]:
        """The entries of a campaign from the id `first` on and before `end`, tombstones included, in the order of their
        bytes; of those only that have an `updatedAt` from `since` on, if it is given. A document under an `_id` that is
        not its entry's is left out.
        """
        ids = {
            "$gte": EntryKey(campaign_id, first).document_id,
            # Without an end up to what follows the colon.
            "$lt": f"{campaign_id};" if end is None else EntryKey(campaign_id, end).document_id,
        }
        query: Document = {"_id": ids, **({"_replication.updatedAt": {"$gte": since}} if since else {})}
        for page in pages(self._collection, self._dependency, query, size=_RANGE_DOCUMENTS):
            for document in page:
                key = _key_of(document)
                if key is not None and key.campaign_id == campaign_id and key.document_id == document["_id"]:
                    yield key, stored_of(document)

    def campaign_ids(self) -> list[str]:
        """Every campaign that has a document, from an index."""
        found = self._dependency.call(self._collection.distinct, "campaignId")
        return [each for each in found if isinstance(each, str)]

    def has_campaign(self, campaign_id: str) -> bool:
        """Whether any document, tombstones included, belongs to the campaign."""
        return self._first({"campaignId": campaign_id}, {"_id": 1}) is not None

    def count_campaign(self, campaign_id: str) -> ReplicaCounts:
        """Both are counted from an index."""
        query: Document = {"campaignId": campaign_id}
        removed: Document = {**query, "deletedAt": {"$exists": True}}
        documents, tombstones = (
            self._dependency.call(self._collection.count_documents, each) for each in (query, removed)
        )
        # An entry may be removed between the two.
        return ReplicaCounts(max(0, documents - tombstones), tombstones)

    def delete_tombstone(self, key: EntryKey, order: Order) -> bool:
        """Delete exactly this tombstone; False when it changed meanwhile, for that of an erased fan, and while its leaf
        in the tree of registrations waits for its notice.
        """
        stored = Stored(order, None, order.as_fields(), "")
        query = {**exactly(key, stored), REGISTRATION: {"$exists": False}}
        answer = self._dependency.call(self._collection.delete_one, query)
        return answer.deleted_count == 1

    def erase(self, key: EntryKey, order: Order, *, at: str, run_id: str) -> None:
        """Replace whatever is stored by the tombstone of an erased fan, which refuses every live state with a
        `createdAt` up to the ISO time `at`. A later life stays and only records the time. `order` is that of the
        source's state, or `Order()`.
        """
        from pymongo.errors import DuplicateKeyError

        for _ in range(_SETTLE_ROUNDS):
            stored = self._first({"_id": key.document_id})
            query, update = erasing(key, stored, order, at=at, run_id=run_id)
            try:
                answer = self._dependency.call(
                    self._collection.update_one, query, update, upsert=stored is None
                )
            except DuplicateKeyError:
                continue
            if answer.matched_count or answer.upserted_id is not None:
                return
        raise TransientFailure(self._dependency.name, "the entry stays contested by other writers")

    def erasures(self, campaign_id: str | None, batch_size: int = 1000) -> Iterator[dict[EntryKey, str]]:
        """Entries that were erased at some time, with that time, by ascending `_id`, from an index of their own."""
        query: Document = {ERASED_AT: {"$exists": True}}
        if campaign_id is not None:
            query["campaignId"] = campaign_id
        for page in pages(self._collection, self._dependency, query, size=batch_size):
            yield {
                EntryKey(each["campaignId"], each["entryId"]): str(each[ERASED_AT])
                for each in page
                if isinstance(each.get("campaignId"), str) and isinstance(each.get("entryId"), str)
            }

    def probe(self) -> None:
        """Make one cheap call. Raises TransientFailure or UsageError."""
        self._dependency.call(self._collection.database.command, "ping")

    def _send(self, operations: Sequence[Update]) -> _Bulk:
        from pymongo.errors import BulkWriteError

        sent = 0

        def send() -> _Bulk:
            nonlocal sent
            sent += 1
            try:
                answer = self._collection.bulk_write(list(operations), ordered=False)
            except BulkWriteError as error:
                details = error.details
                if details.get("writeConcernErrors"):
                    raise
                errors = {problem["index"]: problem for problem in details.get("writeErrors", ())}
                inserted = frozenset(each["index"] for each in details.get("upserted", ()))
                return _Bulk(errors, details.get("nMatched", 0) + len(inserted), sent > 1, inserted)
            inserted = frozenset(answer.upserted_ids or ())
            return _Bulk({}, answer.matched_count + len(inserted), sent > 1, inserted)

        return self._dependency.call(send)


def _key_of(document: Document) -> EntryKey | None:
    campaign, entry = document.get("campaignId"), document.get("entryId")
    return EntryKey(campaign, entry) if isinstance(campaign, str) and isinstance(entry, str) else None


_REFUSED = PermanentFailure(Reason.INVALID_ENTRY, "the entry cannot be stored as a MongoDB document")


def _is_the_servers(code: object) -> bool:
    """Whether a code is known not to be about the document: an election, a full disk, a refused access."""
    from pymongo.errors import WriteError

    from regworkers_core.adapters.mongo.client import classify_mongo

    error = WriteError("", code if isinstance(code, int) else None)
    return code in _SERVER_CODES or classify_mongo(error) is not error


def _on_id(error: Document) -> bool:
    """Whether a duplicate-key error is about `_id` (the pattern, or the text of servers that send none)."""
    pattern = error.get("keyPattern")
    if pattern is not None:
        return list(pattern) == ["_id"]
    text = str(error.get("errmsg", ""))
    return "index: _id_" in text or text.endswith("._id")
