"""The `drain_log` collection: what each drain did in each minute, kept for some weeks.

One document a run and minute: whoever is on call sees an error rate while the drain still runs, and reviews see trends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pymongo.collection import Collection

from regworkers_core.adapters.mongo.client import find_all
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import Dependency

KEEP_DAYS = 40


_TO_THE_MINUTE = len("2026-11-25T08:15")


def minute_of(seconds: float) -> str:
    """`seconds` since the epoch as `2026-11-25T08:15Z`."""
    return f"{iso(seconds)[:_TO_THE_MINUTE]}Z"


@dataclass(frozen=True, slots=True)
class DrainMinute:
    """`minute` is an ISO time without seconds; counts are of items, by outcome (`received` among them).

    `batch_p95_seconds` is over the batches of this minute, `lag_p95_seconds` over the drain so far. `calls` and
    `waited_seconds` (time within them) are by dependency, `throttles` calls that it refused because it was asked too
    much. `memory_mib` is the most that the process took so far.
    """

    drain: str
    run_id: str
    minute: str
    counts: Mapping[str, int]
    batches: int
    batch_p95_seconds: float | None
    batch_max_seconds: float | None
    batch_limit_seconds: float
    lag_p95_seconds: float | None = None
    calls: Mapping[str, int] = field(default_factory=dict)
    waited_seconds: Mapping[str, float] = field(default_factory=dict)
    ended: str = ""
    memory_mib: float | None = None
    throttles: Mapping[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return self.counts.get("dead_lettered", 0) + self.counts.get("returned", 0)


class DrainLog:
    """Raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Collection[dict[str, Any]], dependency: Dependency) -> None:
        self._collection, self._dependency = collection, dependency

    def put(self, entry: DrainMinute) -> None:
        """Idempotent: the numbers of a minute replace those that were put before."""
        facts = {
            "drain": entry.drain,
            "runId": entry.run_id,
            "minute": entry.minute,
            "at": datetime.fromisoformat(entry.minute).astimezone(UTC),
            "counts": dict(entry.counts),
            "batches": entry.batches,
            "batchP95Seconds": entry.batch_p95_seconds,
            "batchMaxSeconds": entry.batch_max_seconds,
            "batchLimitSeconds": entry.batch_limit_seconds,
            "lagP95Seconds": entry.lag_p95_seconds,
            "calls": dict(entry.calls),
            "waitedSeconds": dict(entry.waited_seconds),
            "ended": entry.ended,
            "memoryMib": entry.memory_mib,
            "throttles": dict(entry.throttles),
        }
        # Not the minute first: the embedded server does not find an id again that begins like a time.
        key = f"{entry.drain}:{entry.run_id}:{entry.minute}"
        self._dependency.once(self._collection.update_one, {"_id": key}, {"$set": facts}, upsert=True)

    def since(self, minute: str) -> list[DrainMinute]:
        """All from that minute on, oldest first."""
        found = self._dependency.call(
            find_all, self._collection, {"minute": {"$gte": minute}}, sort=[("minute", 1)]
        )
        return [_parsed(document) for document in found]

    def between(self, start: str, end: str) -> list[DrainMinute]:
        """From the minute `start` on, before the minute `end`, oldest first."""
        found = self._dependency.call(
            find_all, self._collection, {"minute": {"$gte": start, "$lt": end}}, sort=[("minute", 1)]
        )
        return [_parsed(document) for document in found]

    def oldest(self) -> str | None:
        """The first minute that is kept, None: there is none."""
        found = self._dependency.call(self._collection.find_one, {}, {"minute": 1}, sort=[("minute", 1)])
        return None if found is None else str(found["minute"])

    def last(self, drain: str) -> DrainMinute | None:
        """The latest minute of any run of this drain, None: it was never seen, or not within KEEP_DAYS."""
        found = self._dependency.call(self._collection.find_one, {"drain": drain}, sort=[("minute", -1)])
        return None if found is None else _parsed(found)


def _parsed(document: Mapping[str, Any]) -> DrainMinute:
    return DrainMinute(
        document["drain"],
        document["runId"],
        document["minute"],
        document["counts"],
        document["batches"],
        document["batchP95Seconds"],
        document["batchMaxSeconds"],
        document["batchLimitSeconds"],
        document["lagP95Seconds"],
        document["calls"],
        document["waitedSeconds"],
        document["ended"],
        document.get("memoryMib"),
        document.get("throttles", {}),
    )
