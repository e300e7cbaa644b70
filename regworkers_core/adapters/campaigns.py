"""The `campaigns` collection, as far as replication needs it: which campaigns are known."""

from __future__ import annotations

from collections.abc import Collection as Ids
from typing import Any

from pymongo.collection import Collection

from regworkers_core.engine.dependency import Dependency


class Campaigns:
    def __init__(self, collection: Collection[dict[str, Any]], dependency: Dependency) -> None:
        self._collection = collection
        self._dependency = dependency

    def known(self, ids: Ids[str]) -> set[str]:
        """Those of `ids` that exist. Raises TransientFailure when MongoDB cannot answer."""
        query = {"_id": {"$in": sorted(ids)}}
        return self._dependency.call(
            lambda: {document["_id"] for document in self._collection.find(query, {"_id": 1})}
        )
