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
    """Seconds since the epoch; None for what was never seen. `watched_at`: since when anybody looks; `looked_at`: the
    last look of the alerts, where they mark the queue.
    """

    watched_at: float | None = None
    empty_at: float | None = None
    delivered_at: float | None = None
    looked_at: float | None = None

    def known_age(self, now: float, gap_seconds: float) -> float | None:
        """How long ago the queue was last empty or delivered something, as far as looks go back without a gap: what
        lies on it may be that old. None without a mark, and after a gap, in which anything may have happened.
        """
        if self.looked_at is not None and now - self.looked_at > gap_seconds:
            return None
        moments = [each for each in (self.watched_at, self.empty_at, self.delivered_at) if each is not None]
        return now - max(moments) if moments else None


class QueueMarks:
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Collection[dict[str, Any]], dependency: Dependency) -> None:
        self._collection, self._dependency = collection, dependency

    def of(self, queue: str) -> Marks:
        document = self._dependency.call(self._collection.find_one, {"_id": queue}) or {}
        names = ("watchedAt", "emptyAt", "deliveredAt", "lookedAt")
        return Marks(*(_moment(document.get(name)) for name in names))

    def watched(self, queue: str, now: float) -> None:
        """Somebody looks, for the first time perhaps."""
        self._update(queue, {"$setOnInsert": {"watchedAt": iso(now)}})

    def empty(self, queue: str, now: float) -> None:
        self._update(queue, {"$max": {"emptyAt": iso(now)}, "$setOnInsert": {"watchedAt": iso(now)}})

    def seen(self, empty: Iterable[str], waiting: Iterable[str], now: float, gap_seconds: float) -> None:
        """One look at many. After a gap between looks watching begins again."""
        at, before = iso(now), iso(now - gap_seconds)
        looked = {"$set": {"lookedAt": at}, "$setOnInsert": {"watchedAt": at}}
        marks = []
        for name in empty:
            marks.append(UpdateOne({"_id": name}, {"$max": {"emptyAt": at}, **looked}, upsert=True))
        for name in waiting:
            stale = {"_id": name, "lookedAt": {"$lt": before}}
            marks += [
                UpdateOne(stale, {"$set": {"watchedAt": at}}),
                UpdateOne({"_id": name}, looked, upsert=True),
            ]
        if marks:
            self._dependency.once(self._collection.bulk_write, marks, ordered=True)

    def delivered(self, queue: str, now: float) -> None:
        self._update(queue, {"$max": {"deliveredAt": iso(now)}, "$setOnInsert": {"watchedAt": iso(now)}})

    def _update(self, queue: str, update: dict[str, Any]) -> None:
        self._dependency.once(self._collection.update_one, {"_id": queue}, update, upsert=True)


def _moment(text: object) -> float | None:
    return seconds(text) if isinstance(text, str) else None
