"""The calls that several collections make, and reading a collection of any size at constant memory.

Like the collections, it imports the driver where it is called: every run and command imports these modules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure
from regworkers_core.engine.dependency import Dependency

if TYPE_CHECKING:
    from pymongo import UpdateOne
    from pymongo.collection import Collection
    from pymongo.results import UpdateResult

Document = dict[str, Any]
Documents: TypeAlias = "Collection[Document]"
Update: TypeAlias = "UpdateOne"
DUPLICATE_KEY = 11000


def bulk_update(query: Mapping[str, Any], update: Mapping[str, Any], *, upsert: bool = False) -> Update:
    """One operation of a bulk."""
    from pymongo import UpdateOne

    return UpdateOne(query, update, upsert=upsert)


def find_all(
    collection: Documents,
    query: Mapping[str, Any],
    fields: Any = None,
    *,
    sort: Any = None,
    limit: int = 0,
) -> list[Document]:
    """All documents that match, within one call, so that a retry opens a cursor of its own. A page comes with its
    first answer; a server gives 101 documents there, unless it is asked for more.
    """
    return list(collection.find(query, fields, sort=sort, limit=limit, batch_size=limit))


def aggregate_all(collection: Documents, pipeline: Sequence[Mapping[str, Any]]) -> list[Document]:
    """All results of a pipeline, within one call."""
    return list(collection.aggregate(pipeline))


class Store:
    """A collection and the dependency that guards its calls, which raise TransientFailure while it is down."""

    def __init__(self, collection: Documents, dependency: Dependency) -> None:
        self._collection, self._dependency = collection, dependency

    def estimate(self) -> int:
        """How many documents the collection has, from its metadata. Raises TransientFailure."""
        return self._dependency.call(self._collection.estimated_document_count)

    def _find(
        self, query: Mapping[str, Any], projection: Mapping[str, Any] | None = None, **options: Any
    ) -> list[Document]:
        return self._dependency.call(find_all, self._collection, query, projection, **options)

    def _first(
        self, query: Mapping[str, Any], projection: Mapping[str, Any] | None = None, **options: Any
    ) -> Document | None:
        return self._dependency.call(self._collection.find_one, query, projection, **options)

    def _count_by(self, query: Mapping[str, Any], field: str) -> Counter[str]:
        """Count the documents that match, by the value of one field: not every server groups by several."""
        group = {"_id": f"${field}", "documents": {"$sum": 1}}
        found = self._aggregate([{"$match": query}, {"$group": group}])
        return Counter({str(row["_id"]): int(row["documents"]) for row in found})

    def _count(self, query: Mapping[str, Any], limit: int | None = None) -> int:
        """How many documents match, at most `limit` (from 1). Unlike `count_documents`, which groups by a constant,
        every server answers it from an index.
        """
        few = [] if limit is None else [{"$limit": limit}]
        found = self._aggregate([{"$match": query}, *few, {"$count": "documents"}])
        return int(found[0]["documents"]) if found else 0

    def _aggregate(self, pipeline: Sequence[Mapping[str, Any]]) -> list[Document]:
        return self._dependency.call(aggregate_all, self._collection, pipeline)

    def _update_one(self, query: Mapping[str, Any], update: Mapping[str, Any]) -> UpdateResult:
        return self._dependency.call(self._collection.update_one, query, update)

    def _update_many(self, query: Mapping[str, Any], update: Mapping[str, Any]) -> UpdateResult:
        return self._dependency.call(self._collection.update_many, query, update)

    def _upsert(self, query: Mapping[str, Any], update: Mapping[str, Any]) -> UpdateResult:
        return self._dependency.call(self._collection.update_one, query, update, upsert=True)

    def _bulk(self, operations: Sequence[Update]) -> int:
        """Update in one unordered bulk; returns how many documents matched."""
        if not operations:
            return 0
        return self._dependency.call(
            self._collection.bulk_write, list(operations), ordered=False
        ).matched_count


@dataclass(slots=True)
class Inserted:
    """How many documents were new, how many existed with the same parameters, and the ids of the others."""

    new: int = 0
    existing: int = 0
    conflicts: list[str] = field(default_factory=list)

    def raise_conflicts(self, what: str) -> None:
        """Raises PermanentFailure KEY_CONFLICT when a key exists with other parameters."""
        if self.conflicts:
            raise PermanentFailure(
                Reason.KEY_CONFLICT,
                f"{len(self.conflicts)} {what} exist with other parameters, first {min(self.conflicts)}: "
                "compare it with the plan before anything is sent again",
            )


def insert_once(
    collection: Documents,
    dependency: Dependency,
    documents: Sequence[Document],
    parameters: Sequence[str],
) -> Inserted:
    """Insert in one unordered bulk. A document whose `_id` exists is not changed; the named parameters of both are
    compared. Raises TransientFailure.
    """
    from pymongo.errors import BulkWriteError

    done = Inserted()
    if not documents:
        return done
    try:
        dependency.call(collection.insert_many, documents, ordered=False)
        done.new = len(documents)
        return done
    except BulkWriteError as error:
        repeated = [documents[problem["index"]] for problem in error.details["writeErrors"]]
    ids = [document["_id"] for document in repeated]
    stored = dependency.call(find_all, collection, {"_id": {"$in": ids}})
    by_id = {document["_id"]: document for document in stored}
    for document in repeated:
        seen = by_id.get(document["_id"])
        if seen is None:
            raise TransientFailure(dependency.name, "a document that existed was deleted")
        if all(seen.get(name) == document.get(name) for name in parameters):
            done.existing += 1
        else:
            done.conflicts.append(document["_id"])
    done.new = len(documents) - len(repeated)
    return done


EXPIRES_AT = "expiresAt"
_EXPIRED_TOGETHER = 5_000


def pages(
    collection: Documents,
    dependency: Dependency,
    query: Mapping[str, Any],
    fields: Sequence[str] | None = None,
    *,
    size: int = 5_000,
) -> Iterator[list[Document]]:
    """All documents that match, at most `size` at a time, by ascending `_id`. Each page is a query behind the last
    `_id`, so the caller may delete or change what it has read. Raises TransientFailure.
    """
    projection = None if fields is None else dict.fromkeys(fields, 1)
    while True:
        page = dependency.call(find_all, collection, query, projection, sort=[("_id", 1)], limit=size)
        if page:
            yield page
        if len(page) < size:
            return
        query = _behind(query, page[-1]["_id"])


class _Opened(NamedTuple):
    cursor: Iterator[Document]
    page: list[Document]


def scan(
    collection: Documents,
    dependency: Dependency,
    query: Mapping[str, Any],
    fields: Sequence[str] | None = None,
    *,
    size: int,
    ordered: bool = True,
) -> Iterator[list[Document]]:
    """What `pages` gives, through one cursor: for queries that no index answers in the order of `_id`. A cursor that
    breaks is opened again behind the last document; where there is no such place, with `ordered=False` or behind an
    `_id` that is no text, it raises TransientFailure. The result is never silently short.
    """
    from pymongo.errors import CursorNotFound

    projection = None if fields is None else dict.fromkeys(fields, 1)

    def open_cursor(wanted: Mapping[str, Any]) -> _Opened:
        cursor = collection.find(wanted, projection, batch_size=size)
        if ordered:
            cursor = cursor.sort("_id", 1)
        return _Opened(cursor, list(islice(cursor, size)))

    cursor, page = dependency.call(open_cursor, query)
    while page:
        yield page
        if len(page) < size:
            return
        last = page[-1]["_id"]
        try:
            # Not retried: a cursor that failed once reports that it is at its end.
            page = dependency.once(list, islice(cursor, size))
        except (TransientFailure, CursorNotFound) as error:
            # The next text is behind a text alone: a comparison with a number finds no texts.
            if not ordered or not isinstance(last, str):
                raise TransientFailure(dependency.name, "the cursor was lost") from error
            cursor, page = dependency.call(open_cursor, _behind(query, last))


def _behind(query: Mapping[str, Any], last: Any) -> Document:
    """The query behind the last `_id`; an upper bound that it has stays."""
    bounds = {name: value for name, value in query.get("_id", {}).items() if name not in ("$gt", "$gte")}
    return {**query, "_id": {**bounds, "$gt": last}}


def by_prefix(
    collection: Documents, dependency: Dependency, prefix: str, fields: Sequence[str]
) -> Iterator[Document]:
    """These fields of all documents whose `_id` begins with `prefix`, by ascending `_id`. Raises TransientFailure."""
    # The last character of a prefix is a separator, never the greatest character.
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    for page in pages(collection, dependency, {"_id": {"$gte": prefix, "$lt": end}}, fields):
        yield from page


def expire_by_prefix(collection: Documents, dependency: Dependency, prefix: str, at: float) -> Iterator[int]:
    """Mark documents whose `_id` begins with `prefix` as expiring at `at` (epoch seconds): a TTL index on `expiresAt`
    has MongoDB delete them. Yields how many a call marked; documents that are marked already are skipped. Raises
    TransientFailure.
    """
    ids = (each["_id"] for each in by_prefix(collection, dependency, prefix, ["_id"]))
    while batch := list(islice(ids, _EXPIRED_TOGETHER)):
        yield _expire(collection, dependency, {"_id": {"$in": batch}}, at)


def expire_codes(collection: Documents, dependency: Dependency, campaign_id: str, at: float) -> Iterator[int]:
    """Expire a campaign's codes, as `expire_by_prefix` does: by market and position, as their index has them."""
    query: Document = {"campaignId": campaign_id}
    markets = dependency.call(collection.distinct, "marketId", query)
    for market_id in sorted(markets):
        of_market = {**query, "marketId": market_id}
        last = dependency.call(collection.find_one, of_market, {"position": 1}, sort=[("position", -1)])
        for start in range(0, int(last["position"]) if last else 0, _EXPIRED_TOGETHER):
            window = {"$gt": start, "$lte": start + _EXPIRED_TOGETHER}
            yield _expire(collection, dependency, {**of_market, "position": window}, at)


def _expire(collection: Documents, dependency: Dependency, query: Document, at: float) -> int:
    unmarked = {**query, EXPIRES_AT: {"$exists": False}}
    update = {"$set": {EXPIRES_AT: datetime.fromtimestamp(at, UTC)}}
    return dependency.call(collection.update_many, unmarked, update).modified_count
