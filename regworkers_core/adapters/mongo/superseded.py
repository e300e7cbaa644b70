"""The `superseded_entries` collection: the former version of each entry for which an operator accepted the source.

Lowering an order and restoring the former version are single updates whose filter is the complete `_replication` as it
was read, so that each changes exactly the state that was judged, and a repeat changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from regworkers_core.adapters.mongo.entry_documents import (
    IDENTITY_EMAIL,
    REGISTRATION,
    TO_REGISTER,
    canonical,
    erased_since,
)
from regworkers_core.adapters.mongo.store import (
    EXPIRES_AT,
    Document,
    Documents,
    Store,
    Update,
    bulk_update,
    find_all,
    pages,
)
from regworkers_core.domain.entry import REPLICA_FIELDS, Order, lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import Dependency

# The fields that saving a source's state changes, and that a restore sets back.
_CHANGED = (*REPLICA_FIELDS, IDENTITY_EMAIL.partition(".")[0], "_replication")


@dataclass(frozen=True, slots=True)
class Lowering:
    """An entry of the replica as read, by its complete custody fields, and the order to which it is lowered."""

    key: EntryKey
    custody: Mapping[str, Any]
    order: Order


@dataclass(frozen=True, slots=True)
class Kept:
    """A former version."""

    row_id: str
    key: EntryKey
    former: Mapping[str, Any]  # its document
    order: Order  # the one with which the source won

    @property
    def custody(self) -> Mapping[str, Any]:
        custody: Mapping[str, Any] = self.former["_replication"]
        return custody


class SupersededEntries(Store):
    """Over `entries` and `superseded_entries`. Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(
        self,
        entries: Documents,
        superseded: Documents,
        dependency: Dependency,
        *,
        keep_days: float,
    ) -> None:
        super().__init__(superseded, dependency)
        self._entries = entries
        self._keep = timedelta(days=keep_days)

    def keep(self, lowerings: Sequence[Lowering], *, acceptance: str, at: str) -> list[Lowering]:
        """Copy entries that are still as read, with ids that a repeat finds again; returns those that were copied.

        `at` is an ISO time; MongoDB deletes the copies `keep_days` later.
        """
        documents = self._dependency.call(
            find_all, self._entries, {"_id": {"$in": [each.key.document_id for each in lowerings]}}
        )
        current = {document["_id"]: document for document in documents}
        kept = [each for each in lowerings if _custody(current.get(each.key.document_id)) == each.custody]
        self._write(
            self._collection,
            [
                bulk_update(
                    {"_id": _row_id(each)},
                    {
                        "$set": {
                            "campaignId": each.key.campaign_id,
                            "entryId": each.key.entry_id,
                            "acceptance": acceptance,
                            EXPIRES_AT: datetime.fromisoformat(at) + self._keep,
                            "order": each.order.as_fields(),
                            "former": _former(current[each.key.document_id]),
                        },
                        "$unset": {"undo": ""},
                    },
                    upsert=True,
                )
                for each in kept
            ],
        )
        return kept

    def lower(self, lowerings: Sequence[Lowering]) -> None:
        """Set the lower order of each entry that is still as read, and change nothing else."""
        self._write(
            self._entries,
            [
                bulk_update(
                    _as_seen(each.key, each.custody, each.order),
                    {
                        "$set": {
                            f"_replication.{name}": value for name, value in each.order.as_fields().items()
                        }
                    },
                )
                for each in lowerings
            ],
        )

    def latest(self, campaign_id: str | None) -> str | None:
        """The last acceptance that is not undone; None without one."""
        query = {**_of_campaign(campaign_id), "undo": None}
        found = self._first(query, {"acceptance": 1}, sort=[("acceptance", -1)])
        return None if found is None else str(found["acceptance"])

    def page(self, acceptance: str, campaign_id: str | None, after: str, limit: int) -> list[Kept]:
        """Rows of an acceptance that are not undone, by ascending id, behind the id `after`."""
        query = {
            **_of_campaign(campaign_id),
            "acceptance": acceptance,
            "undo": None,
            "_id": {"$gt": after},
        }
        rows = self._find(query, sort=[("_id", 1)], limit=limit)
        return [
            Kept(
                row["_id"],
                EntryKey(row["campaignId"], row["entryId"]),
                row["former"],
                lenient_order(row["order"]),
            )
            for row in rows
        ]

    def restore(self, kept: Iterable[tuple[Kept, Mapping[str, Any]]]) -> None:
        """Restore former versions, each only over exactly the custody fields beside it."""
        self._write(
            self._entries,
            [
                bulk_update(_as_seen(each.key, custody, lenient_order(each.custody)), _back_to(each))
                for each, custody in kept
            ],
        )

    def of_entry(self, key: EntryKey) -> list[Mapping[str, Any]]:
        """Every stored former version of one entry, complete."""
        query = {"campaignId": key.campaign_id, "entryId": key.entry_id}
        return [row["former"] for row in self._find(query, {"former": 1})]

    def orders(self, campaign_id: str | None, limit: int = 1000) -> Iterator[tuple[EntryKey, Order]]:
        """Entry and order of every stored former version, by ascending `_id`; `limit` of them in memory."""
        # `former` is read whole, because some servers do not project nested fields.
        for page in pages(self._collection, self._dependency, _of_campaign(campaign_id), size=limit):
            for row in page:
                key = EntryKey(row["campaignId"], row["entryId"])
                yield key, lenient_order(row["former"]["_replication"])

    def forget(self, key: EntryKey) -> int:
        """Delete every former version of an erased entry; returns how many."""
        query = {"campaignId": key.campaign_id, "entryId": key.entry_id}
        return self._dependency.call(self._collection.delete_many, query).deleted_count

    def close(self, outcomes: Mapping[str, str]) -> None:
        """Record the outcome of an undo by row id, so that a later undo skips these rows."""
        self._write(
            self._collection,
            [
                bulk_update({"_id": row_id}, {"$set": {"undo": outcome}})
                for row_id, outcome in outcomes.items()
            ],
        )

    def _write(self, collection: Documents, operations: Sequence[Update]) -> None:
        from pymongo.errors import BulkWriteError

        if not operations:
            return
        try:
            self._dependency.call(collection.bulk_write, list(operations), ordered=False)
        except BulkWriteError:
            raise TransientFailure(self._dependency.name, "another writer kept the same version") from None


def _row_id(lowering: Lowering) -> str:
    """One row for each version that was ever superseded, because each write has its own custody fields."""
    digest = hashlib.sha256(canonical(lowering.custody)).hexdigest()[:16]
    return f"{lowering.key.document_id}@{digest}"


def _as_seen(key: EntryKey, custody: Mapping[str, Any], order: Order) -> Document:
    """Matches a live entry only as it was read, never a tombstone, and none whose life of this `order` was erased."""
    return {
        "_id": key.document_id,
        # Field by field: a whole subdocument would have to match in field order, and some servers do not support it.
        **{f"_replication.{name}": value for name, value in custody.items()},
        "deletedAt": {"$exists": False},
        "$nor": [erased_since(order.created_at)],
    }


def _back_to(kept: Kept) -> Document:
    former = kept.former
    present = {name: former[name] for name in _CHANGED if name in former} | {
        TO_REGISTER: kept.key.campaign_id
    }
    absent = {name: "" for name in _CHANGED if name not in former}
    return {"$set": present, "$unset": absent} if absent else {"$set": present}


def _former(document: Document) -> Document:
    """What is kept of it. A restore leaves the registration as it is then, and a salt is beside its entry alone."""
    return {name: value for name, value in document.items() if name != REGISTRATION}


def _custody(document: Document | None) -> Any:
    return None if document is None or "deletedAt" in document else document.get("_replication")


def _of_campaign(campaign_id: str | None) -> Document:
    return {} if campaign_id is None else {"campaignId": campaign_id}
