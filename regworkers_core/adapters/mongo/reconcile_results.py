"""The `reconcile_results` collection: what each reconcile of all campaigns found, kept for some weeks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo.collection import Collection

from regworkers_core.engine.dependency import Dependency

KEEP_DAYS = 90


@dataclass(frozen=True, slots=True)
class ReconcileSummary:
    """`at` is an ISO time; `differences` counts by class what differed at the end, a repair included, without zeros
    and without what may still be on its way.
    """

    at: str
    entries: int
    differences: Mapping[str, int]
    repaired: bool
    seconds: float


class ReconcileResults:
    """Raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Collection[dict[str, Any]], dependency: Dependency) -> None:
        self._collection, self._dependency = collection, dependency

    def put(self, summary: ReconcileSummary) -> None:
        document = {
            "at": summary.at,
            # For the index that lets it expire.
            "keptFrom": datetime.fromisoformat(summary.at),
            "entries": summary.entries,
            "differences": dict(summary.differences),
            "repaired": summary.repaired,
            "seconds": summary.seconds,
        }
        self._dependency.call(
            self._collection.update_one, {"_id": f"reconcile:{summary.at}"}, {"$set": document}, upsert=True
        )

    def last(self) -> ReconcileSummary | None:
        """None: none was ever made, or none within KEEP_DAYS."""
        found = self._dependency.call(self._collection.find_one, {}, sort=[("keptFrom", -1)])
        if found is None:
            return None
        return ReconcileSummary(
            found["at"],
            int(found["entries"]),
            found["differences"],
            # A server on SQLite gives a flag that was set by an update back as 0 or 1.
            bool(found["repaired"]),
            float(found["seconds"]),
        )
