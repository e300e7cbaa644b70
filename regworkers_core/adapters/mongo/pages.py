"""Reading a collection of any size at constant memory, and marking what may expire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from regworkers_core.adapters.mongo.store import Document, Documents, find_all
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import Dependency

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
