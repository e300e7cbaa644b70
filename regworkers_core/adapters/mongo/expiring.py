"""Marking documents whose period is over: a TTL index on `expiresAt` has MongoDB delete them, at its own pace.

Each function marks those that have no mark yet, a bounded number a call, and yields how many a call marked. `at` in
epoch seconds. Raises TransientFailure when MongoDB cannot answer; a repeat goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from pymongo.collection import Collection

from regworkers_core.adapters.mongo.by_prefix import read_by_prefix
from regworkers_core.engine.dependency import Dependency

EXPIRES_AT = "expiresAt"
_BATCH = 5_000
Document = dict[str, Any]


def expire_by_prefix(
    collection: Collection[Document], dependency: Dependency, prefix: str, at: float
) -> Iterator[int]:
    """Documents whose `_id` begins with `prefix`."""
    ids = (each["_id"] for each in read_by_prefix(collection, dependency, prefix, ["_id"]))
    while batch := list(islice(ids, _BATCH)):
        yield _mark(collection, dependency, {"_id": {"$in": batch}}, at)


def expire_codes(
    collection: Collection[Document], dependency: Dependency, campaign_id: str, at: float
) -> Iterator[int]:
    """Codes of a campaign, market by market along their positions, as their index has them."""
    query: Document = {"campaignId": campaign_id}
    markets = dependency.call(collection.distinct, "marketId", query)
    for market_id in sorted(markets):
        of_market = {**query, "marketId": market_id}
        last = dependency.call(collection.find_one, of_market, {"position": 1}, sort=[("position", -1)])
        for start in range(0, int(last["position"]) if last else 0, _BATCH):
            window = {"$gt": start, "$lte": start + _BATCH}
            yield _mark(collection, dependency, {**of_market, "position": window}, at)


def _mark(collection: Collection[Document], dependency: Dependency, query: Document, at: float) -> int:
    unmarked = {**query, EXPIRES_AT: {"$exists": False}}
    update = {"$set": {EXPIRES_AT: datetime.fromtimestamp(at, UTC)}}
    return dependency.call(collection.update_many, unmarked, update).modified_count
