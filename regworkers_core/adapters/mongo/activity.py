"""What the workers did: `drain_log` (each drain, minute by minute), `queue_marks` (when each queue was last empty) and
`reconcile_results` (each reconcile of all campaigns).

Every method raises TransientFailure when MongoDB cannot answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fairdraw.documents import as_document, from_document
from regworkers_core.adapters.mongo.store import Documents, Store, bulk_update
from regworkers_core.domain.activity import DrainMinute
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.dependency import Dependency

DRAIN_LOG_DAYS = 40
RECONCILE_RESULTS_DAYS = 90
_TO_THE_MINUTE = len("2026-11-25T08:15")
# The length of a minute's text up to its ten minutes, or itself.
TEN_MINUTES, A_MINUTE = len("2026-11-25T08:1"), _TO_THE_MINUTE
_FIRST = "0000-00-00T00:00Z"
_DAY_SECONDS = 86_400.0


def minute_of(seconds: float) -> str:
    """`seconds` since the epoch as `2026-11-25T08:15Z`."""
    return f"{iso(seconds)[:_TO_THE_MINUTE]}Z"


def _later(minute: str, days: int) -> str:
    return minute_of((seconds(minute) or 0.0) + days * _DAY_SECONDS)


class DrainLog(Store):
    """One document per run and minute, so that an error rate shows while the drain still runs."""

    def __init__(self, collection: Documents, dependency: Dependency) -> None:
        super().__init__(collection, dependency)
        # From and until when `sums` has read, and what.
        self._read: tuple[str, str, list[DrainMinute]] = ("", "", [])

    def put(self, entry: DrainMinute) -> None:
        """Idempotent: replaces what was put for the same minute."""
        fields = as_document(entry) | {"at": datetime.fromisoformat(entry.minute).astimezone(UTC)}
        # The minute comes last: the embedded server does not find an id again that begins like a time.
        key = f"{entry.drain}:{entry.run_id}:{entry.minute}"
        self._dependency.once(self._collection.update_one, {"_id": key}, {"$set": fields}, upsert=True)

    def between(self, start: str, end: str) -> list[DrainMinute]:
        """From the minute `start` on, before the minute `end`, oldest first."""
        found = self._find({"minute": {"$gte": start, "$lt": end}}, sort=[("minute", 1)])
        return [from_document(DrainMinute, document) for document in found]

    def totals(self, start: str, end: str, by: int) -> list[DrainMinute]:
        """The minutes of `between`, with the runs of a drain added up `by` TEN_MINUTES or A_MINUTE, each under its
        first minute. Only the counts that objectives need, of days without reading every minute here.
        """
        sums = {"measured": "$measured", "late": "$late"}
        sums |= {name: f"$counts.{name}" for name in ("received", "dead_lettered", "returned")}
        begin = {"$substrCP": ["$minute", 0, by]}
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"minute": {"$gte": start, "$lt": end}}},
            {
                "$group": {
                    # One text: the embedded server does not evaluate the fields of a document.
                    "_id": {"$concat": [begin, " ", "$drain"]},
                    **{name: {"$sum": value} for name, value in sums.items()},
                }
            },
        ]
        rows = []
        for row in self._aggregate(pipeline):
            minute, _, drain = row.pop("_id").partition(" ")
            counts = {name: int(number) for name, number in row.items()}
            minute += _FIRST[by:]
            rows.append(
                DrainMinute(
                    drain,
                    "",
                    minute,
                    counts,
                    0,
                    None,
                    None,
                    0.0,
                    measured=counts.pop("measured"),
                    late=counts.pop("late"),
                )
            )
        return sorted(rows, key=lambda row: (row.minute, row.drain))

    def sums(self, start: str, end: str) -> list[DrainMinute]:
        """What `totals` gives by TEN_MINUTES, but read once in this process: for minutes that are over, in windows that
        move on with the time. A day at a time, so that a time-out costs a day.
        """
        begin, until, rows = self._read
        if not begin <= start <= until <= end:
            begin, until, rows = start, start, []
        while until < end:
            before, until = until, min(end, _later(until, 1))
            rows = [*rows, *self.totals(before, until, TEN_MINUTES)]
            self._read = (begin, until, rows)
        oldest = _later(end, -DRAIN_LOG_DAYS)
        self._read = (max(begin, oldest), until, [row for row in rows if row.minute >= oldest])
        return [row for row in rows if row.minute >= start]

    def oldest(self) -> str | None:
        """The first minute that is kept, None without any."""
        found = self._first({}, {"minute": 1}, sort=[("minute", 1)])
        return None if found is None else str(found["minute"])

    def last(self, drain: str) -> DrainMinute | None:
        """The latest minute of any run of this drain, None without one within DRAIN_LOG_DAYS."""
        found = self._first({"drain": drain}, sort=[("minute", -1)])
        return None if found is None else from_document(DrainMinute, found)


@dataclass(frozen=True, slots=True)
class QueueActivity:
    """What is known of a queue by watching it, in epoch seconds; None: never seen."""

    watched_at: float | None = None  # since when it is watched
    empty_at: float | None = None
    delivered_at: float | None = None
    looked_at: float | None = None  # the last evaluation of alerts that marked it

    def known_age(self, now: float, gap_seconds: float) -> float | None:
        """An upper bound of the age of its oldest message: how long ago the queue was last empty or delivered
        something. None without a mark, and after a gap between evaluations.
        """
        if self.looked_at is not None and now - self.looked_at > gap_seconds:
            return None
        moments = [each for each in (self.watched_at, self.empty_at, self.delivered_at) if each is not None]
        return now - max(moments) if moments else None


class QueueMarks(Store):
    """SQS reports the age of the oldest message only to consumers; these moments are bounds for it."""

    def of(self, queue: str) -> QueueActivity:
        document = self._first({"_id": queue}) or {}
        names = ("watchedAt", "emptyAt", "deliveredAt", "lookedAt")
        return QueueActivity(*(_moment(document.get(name)) for name in names))

    def watched(self, queue: str, now: float) -> None:
        """The queue is watched from now on, if it was not before."""
        self._update(queue, {"$setOnInsert": {"watchedAt": iso(now)}})

    def empty(self, queue: str, now: float) -> None:
        self._update(queue, {"$max": {"emptyAt": iso(now)}, "$setOnInsert": {"watchedAt": iso(now)}})

    def seen(self, empty: Iterable[str], waiting: Iterable[str], now: float, gap_seconds: float) -> None:
        """One evaluation saw these queues empty and these not. After a gap between evaluations, watching begins
        again.
        """
        at, before = iso(now), iso(now - gap_seconds)
        looked = {"$set": {"lookedAt": at}, "$setOnInsert": {"watchedAt": at}}
        marks = []
        for name in empty:
            marks.append(bulk_update({"_id": name}, {"$max": {"emptyAt": at}, **looked}, upsert=True))
        for name in waiting:
            stale = {"_id": name, "lookedAt": {"$lt": before}}
            marks += [
                bulk_update(stale, {"$set": {"watchedAt": at}}),
                bulk_update({"_id": name}, looked, upsert=True),
            ]
        if marks:
            self._dependency.once(self._collection.bulk_write, marks, ordered=True)

    def delivered(self, queue: str, now: float) -> None:
        self._update(queue, {"$max": {"deliveredAt": iso(now)}, "$setOnInsert": {"watchedAt": iso(now)}})

    def _update(self, queue: str, update: dict[str, Any]) -> None:
        self._dependency.once(self._collection.update_one, {"_id": queue}, update, upsert=True)


def _moment(text: object) -> float | None:
    return seconds(text) if isinstance(text, str) else None


@dataclass(frozen=True, slots=True)
class ReconcileSummary:
    """What one comparison of source and replica found."""

    at: str  # an ISO time
    entries: int
    # What differed at the end, after a repair, by class: without zeros and without entries that may still be on their
    # way.
    differences: Mapping[str, int]
    repaired: bool  # whether it repaired
    seconds: float
    verified_as_of: str = ""  # the ISO time since when every entry was verified, empty if some never were


class ReconcileResults(Store):
    def put(self, summary: ReconcileSummary) -> None:
        # `keptFrom` is for the TTL index.
        document = as_document(summary) | {"keptFrom": datetime.fromisoformat(summary.at)}
        self._upsert({"_id": f"reconcile:{summary.at}"}, {"$set": document})

    def last(self) -> ReconcileSummary | None:
        """None without one within RECONCILE_RESULTS_DAYS."""
        found = self._first({}, sort=[("keptFrom", -1)])
        if found is None:
            return None
        # A server on SQLite returns a flag that was set by an update as 0 or 1.
        return from_document(ReconcileSummary, found, repaired=bool(found["repaired"]))
