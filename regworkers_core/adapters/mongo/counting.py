"""Counting documents in a way that every server answers from an index: match, perhaps limit, count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.collection import Collection

from regworkers_core.adapters.mongo.client import aggregate_all
from regworkers_core.engine.dependency import Dependency


def count(
    collection: Collection[dict[str, Any]],
    dependency: Dependency,
    query: Mapping[str, Any],
    limit: int | None = None,
) -> int:
    """How many documents match, at most `limit` (from 1). `count_documents` groups by a constant, for which some
    servers read the whole collection.
    """
    pipeline: list[Mapping[str, Any]] = [{"$match": query}]
    if limit is not None:
        pipeline.append({"$limit": limit})
    pipeline.append({"$count": "documents"})
    found = dependency.call(aggregate_all, collection, pipeline)
    return int(found[0]["documents"]) if found else 0
