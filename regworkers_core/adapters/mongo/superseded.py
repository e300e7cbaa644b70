"""The `superseded_entries` collection: the former version of each entry in which an operator let the source win.

Lowering an order and bringing the former version back are single updates whose filter is the complete `_replication`
as it was read, so that each changes exactly the state that was judged, and a repeat changes nothing more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from regworkers_core.adapters.mongo.client import find_all
from regworkers_core.adapters.mongo.entry_documents import IDENTITY_EMAIL, Document, canonical, erased_since
from regworkers_core.adapters.mongo.expiring import EXPIRES_AT
from regworkers_core.domain.entry import REPLICA_FIELDS
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order, lenient_order
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import Dependency

# What saving a source's state changes of a document, and therefore what brings the former version back.
_CHANGED = (*REPLICA_FIELDS, IDENTITY_EMAIL.partition(".")[0], "_replication")


@dataclass(frozen=True, slots=True)
class Lowering:
    """An entry of the replica as seen, by its complete custody fields, and the order to which it is lowered."""

    key: EntryKey
    custody: Mapping[str, Any]
    order: Order


@dataclass(frozen=True, slots=True)
class Kept:
    """A former version and the order under which the source won."""

    row_id: str
    key: EntryKey
    former: Mapping[str, Any]
    order: Order

    @property
    def custody(self) -> Mapping[str, Any]:
        """Custody fields of the former version."""
        custody: Mapping[str, Any] = self.former["_replication"]
        return custody


class SupersededEntries:
    """Over `entries` and `superseded_entries`. Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(
        self,
        entries: Collection[Document],
        superseded: Collection[Document],
        dependency: Dependency,
        *,
        keep_days: float,
    ) -> None:
        self._entries, self._superseded, self._dependency = entries, superseded, dependency
        self._keep = timedelta(days=keep_days)

    def keep(self, lowerings: Sequence[Lowering], *, acceptance: str, at: str) -> list[Lowering]:
        """Copy what still stands as seen, under an id that a repeat finds again; returns what is kept for certain.

        `at` is an ISO time; MongoDB deletes the copies `keep_days` later.
        """
        documents = self._dependency.call(
            find_all, self._entries, {"_id": {"$in": [each.key.document_id for each in lowerings]}}
        )
        stands = {document["_id"]: document for document in documents}
        kept = [each for each in lowerings if _custody(stands.get(each.key.document_id)) == each.custody]
        self._bulk(
            self._superseded,
            [
                UpdateOne(
                    {"_id": _row_id(each)},
                    {
                        "$set": {
                            "campaignId": each.key.campaign_id,
                            "entryId": each.key.entry_id,
                            "acceptance": acceptance,
                            EXPIRES_AT: datetime.fromisoformat(at) + self._keep,
                            "order": each.order.as_fields(),
                            "former": stands[each.key.document_id],
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
        """Give each entry that still stands as seen its lower order, and change nothing else of it."""
        self._bulk(
            self._entries,
            [
                UpdateOne(
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
        """The acceptance that was made last and is not taken back; None: there is none left."""
        query = {**_of_campaign(campaign_id), "undo": None}
        found = self._dependency.call(
            self._superseded.find_one, query, {"acceptance": 1}, sort=[("acceptance", -1)]
        )
        return None if found is None else str(found["acceptance"])

    def page(self, acceptance: str, campaign_id: str | None, after: str, limit: int) -> list[Kept]:
        """Rows of an acceptance that are not taken back, by ascending id, behind the id `after`."""
        query = {
            **_of_campaign(campaign_id),
            "acceptance": acceptance,
            "undo": None,
            "_id": {"$gt": after},
        }
        rows = self._dependency.call(find_all, self._superseded, query, sort=[("_id", 1)], limit=limit)
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
        """Bring former versions back, each only over exactly the custody fields beside it."""
        self._bulk(
            self._entries,
            [
                UpdateOne(_as_seen(each.key, custody, lenient_order(each.custody)), _back_to(each.former))
                for each, custody in kept
            ],
        )

    def of_entry(self, key: EntryKey) -> list[Mapping[str, Any]]:
        """Every former version of one entry that is kept, whole."""
        query = {"campaignId": key.campaign_id, "entryId": key.entry_id}
        rows = self._dependency.call(find_all, self._superseded, query, {"former": 1})
        return [row["former"] for row in rows]

    def orders(self, campaign_id: str | None, limit: int = 1000) -> Iterator[tuple[EntryKey, Order]]:
        """Entry and order of every former version that is kept, by ascending `_id`; `limit` of them in memory."""
        query = _of_campaign(campaign_id)
        while True:
            # `former` whole: a projection reaches into documents on some servers only.
            rows = self._dependency.call(find_all, self._superseded, query, sort=[("_id", 1)], limit=limit)
            for row in rows:
                key = EntryKey(row["campaignId"], row["entryId"])
                yield key, lenient_order(row["former"]["_replication"])
            if len(rows) < limit:
                return
            query = {**query, "_id": {"$gt": rows[-1]["_id"]}}

    def forget(self, key: EntryKey) -> int:
        """Delete every former version of an erased entry; how many."""
        query = {"campaignId": key.campaign_id, "entryId": key.entry_id}
        return self._dependency.call(self._superseded.delete_many, query).deleted_count

    def close(self, outcomes: Mapping[str, str]) -> None:
        """Say of rows, by their ids, what taking them back came to: no later one meets them again."""
        self._bulk(
            self._superseded,
            [UpdateOne({"_id": row_id}, {"$set": {"undo": outcome}}) for row_id, outcome in outcomes.items()],
        )

    def _bulk(self, collection: Collection[Document], operations: Sequence[UpdateOne]) -> None:
        if not operations:
            return
        try:
            self._dependency.call(collection.bulk_write, list(operations), ordered=False)
        except BulkWriteError as error:
            codes = {problem.get("code") for problem in error.details.get("writeErrors", ())}
            raise TransientFailure(self._dependency.name, f"codes {sorted(map(str, codes))}") from None


def _row_id(lowering: Lowering) -> str:
    """One row for each version that was ever superseded: custody fields are written with one write only."""
    digest = hashlib.sha256(canonical(lowering.custody)).hexdigest()[:16]
    return f"{lowering.key.document_id}@{digest}"


def _as_seen(key: EntryKey, custody: Mapping[str, Any], order: Order) -> Document:
    """Matches a live entry only as it was seen, never a tombstone, and none whose life of this `order` was erased."""
    return {
        "_id": key.document_id,
        # Part by part: a whole subdocument would have to have its parts in the same order, and some servers take none.
        **{f"_replication.{name}": value for name, value in custody.items()},
        "deletedAt": {"$exists": False},
        "$nor": [erased_since(order.created_at)],
    }


def _back_to(former: Mapping[str, Any]) -> Document:
    stood = {name: former[name] for name in _CHANGED if name in former}
    gone = {name: "" for name in _CHANGED if name not in former}
    return {"$set": stood, "$unset": gone} if gone else {"$set": stood}


def _custody(document: Document | None) -> Any:
    return None if document is None or "deletedAt" in document else document.get("_replication")


def _of_campaign(campaign_id: str | None) -> Document:
    return {} if campaign_id is None else {"campaignId": campaign_id}
