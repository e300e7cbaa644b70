"""All documents of a collection whose `_id` begins with one text, in its order, at constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pymongo.collection import Collection

from regworkers_core.adapters.mongo.client import find_all
from regworkers_core.engine.dependency import Dependency

Document = dict[str, Any]
_PAGE = 5_000


def read_by_prefix(
    collection: Collection[Document], dependency: Dependency, prefix: str, fields: Sequence[str]
) -> Iterator[Document]:
    """With these fields only. Each page is a query of its own behind the last `_id`, so a connection that breaks costs
    a page and no document is left out. Raises TransientFailure.
    """
    behind = {"$gte": prefix}
    # The last character of a prefix is never the last one that there is.
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    while True:
        query = {"_id": {**behind, "$lt": end}}
        page = dependency.call(
            find_all, collection, query, dict.fromkeys(fields, 1), sort=[("_id", 1)], limit=_PAGE
        )
        yield from page
        if len(page) < _PAGE:
            return
        behind = {"$gt": page[-1]["_id"]}
