"""Dead letters of a period as a review looks at them: all that are open, and all that failed or ended within it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.collection import Collection

from regworkers_core.adapters.mongo.client import find_all
from regworkers_core.engine.dependency import Dependency

_FIELDS = ("queue", "reason", "error", "fingerprint", "status", "firstFailedAt", "lastFailedAt", "resolvedAt")
OPEN = "open"


@dataclass(frozen=True, slots=True)
class Letter:
    """One failure that was kept. Times are ISO strings; `closed_at` is None while it is open."""

    queue: str
    reason: str
    error: str
    fingerprint: str
    status: str
    first_failed_at: str
    last_failed_at: str
    closed_at: str | None

    @property
    def open(self) -> bool:
        return self.status == OPEN


@dataclass(frozen=True, slots=True)
class Letters:
    """`cut` when there were more than were asked for: counts are then the least."""

    letters: tuple[Letter, ...]
    cut: bool


class LettersOfPeriod:
    def __init__(self, collection: Collection[dict[str, Any]], dependency: Dependency) -> None:
        self._collection, self._dependency = collection, dependency

    def read(self, since: str, *, most: int) -> Letters:
        """Up to `most` of each kind: open, failed since then, closed since then. Raises TransientFailure."""
        found: dict[Any, Mapping[str, Any]] = {}
        cut = False
        for query in (
            {"status": OPEN},
            {"lastFailedAt": {"$gte": since}},
            {"resolvedAt": {"$gte": since}},
        ):
            page = self._dependency.call(
                find_all, self._collection, query, dict.fromkeys(_FIELDS, 1), limit=most + 1
            )
            cut = cut or len(page) > most
            found |= {document["_id"]: document for document in page[:most]}
        return Letters(tuple(_parsed(document) for document in found.values()), cut)


def _parsed(document: Mapping[str, Any]) -> Letter:
    """Documents of earlier releases may lack a field."""
    queue, reason, error, fingerprint, status, first, last = (
        str(document.get(name) or "") for name in _FIELDS[:-1]
    )
    return Letter(queue, reason, error, fingerprint, status, first, last, document.get("resolvedAt"))
