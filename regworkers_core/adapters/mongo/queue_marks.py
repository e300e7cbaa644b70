"""The `queue_marks` collection: when a queue was last known to be empty, and when something was last delivered from it.

SQS tells nobody how old its oldest message is who does not receive it; these two moments are bounds for that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pymongo import UpdateOne
from pymongo.collection import Collection

from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.dependency import Dependency


@dataclass(frozen=True, slots=True)
class Marks:
    """Seconds since the epoch; None for what was never seen. `watched_at`: since when anybody looks."""

    watched_at: float | None = None
    empty_at: float | None = None
    delivered_at: float | None = None


class QueueMarks:
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Collection[dict[str, Any]], dependency: Dependency) -> None:
        self._collection, self._dependency = collection, dependency

    def of(self, queue: str) -> Marks:
        document = self._dependency.call(lambda: self._collection.find_one({"_id": queue})) or {}
        return Marks(*(_moment(document.get(name)) for name in ("watchedAt", "emptyAt", "deliveredAt")))

    def watched(self, queue: str, now: float) -> None:
        """Somebody looks, for the first time perhaps."""
        self._update(queue, {"$setOnInsert": {"watchedAt": iso(now)}})

    def empty(self, queue: str, now: float) -> None:
        self._update(queue, {"$max": {"emptyAt": iso(now)}, "$setOnInsert": {"watchedAt": iso(now)}})

    def seen(self, empty: Iterable[str], waiting: Iterable[str], now: float) -> None:
        """One look at many: as `empty` and `watched` of each."""
        at = iso(now)
        first = {"$setOnInsert": {"watchedAt": at}}
        marks = [UpdateOne({"_id": name}, {"$max": {"emptyAt": at}, **first}, upsert=True) for name in empty]
        marks += [UpdateOne({"_id": name}, first, upsert=True) for name in waiting]
        if marks:
            self._dependency.call(lambda: self._collection.bulk_write(marks, ordered=False), retry=False)

    def delivered(self, queue: str, now: float) -> None:
        self._update(queue, {"$max": {"deliveredAt": iso(now)}, "$setOnInsert": {"watchedAt": iso(now)}})

    def _update(self, queue: str, update: dict[str, Any]) -> None:
        self._dependency.call(
            lambda: self._collection.update_one({"_id": queue}, update, upsert=True), retry=False
        )


def _moment(text: object) -> float | None:
    return seconds(text) if isinstance(text, str) else None
