"""What the workers did: `drain_log` (each drain, minute by minute), `entry_counts` (the entries of each campaign),
`queue_marks` (when each queue was last empty) and `reconcile_results` (each reconcile of all campaigns). And what
people did: `operator_actions` (who changed what by hand, when, and with which result). None of it is a fan's data.

Every method raises TransientFailure when MongoDB cannot answer.
"""

from __future__ import annotations

import getpass
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from fairdraw.documents import as_document, from_document
from regworkers_core.adapters.mongo.store import Document, Documents, Store, bulk_update
from regworkers_core.domain.activity import DrainMinute, keep_longest
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.dependency import Dependency

DRAIN_LOG_DAYS = 40
RECONCILE_RESULTS_DAYS = 90
_TO_THE_MINUTE = len("2026-11-25T08:15")
# The length of a minute's text up to its ten minutes, or itself.
TEN_MINUTES, A_MINUTE = len("2026-11-25T08:1"), _TO_THE_MINUTE
_FIRST = "0000-00-00T00:00Z"
_DAY_SECONDS = 86_400.0
# Campaigns whose minutes a process keeps.
_MOST_READ = 100


def minute_of(seconds: float) -> str:
    """`seconds` since the epoch as `2026-11-25T08:15Z`."""
    return f"{iso(seconds)[:_TO_THE_MINUTE]}Z"


def _later(minute: str, days: int) -> str:
    return minute_of((seconds(minute) or 0.0) + days * _DAY_SECONDS)


@dataclass(frozen=True, slots=True)
class EntryCount:
    """How many live entries of a campaign the replica had at the beginning of an hour."""

    hour: str  # its first minute
    entries: int
    # What `drain_log` had of earlier hours, by their first minute: how many came less those that were removed.
    earlier: Mapping[str, int] = field(default_factory=dict)


class EntryCounts(Store):
    """The last count of each campaign; what `drain_log` has since then is added to it."""

    def put(self, campaign_id: str, counted: EntryCount) -> None:
        self._upsert({"_id": campaign_id}, {"$set": as_document(counted)})

    def of(self, campaign_id: str) -> EntryCount | None:
        """None for one that no reconcile has counted."""
        found = self._first({"_id": campaign_id})
        return None if found is None else from_document(EntryCount, found)

    def forget(self, campaign_id: str) -> None:
        self._dependency.call(self._collection.delete_one, {"_id": campaign_id})


class DrainLog(Store):
    """One document per run and minute, so that an error rate shows while the drain still runs."""

    def __init__(self, collection: Documents, dependency: Dependency) -> None:
        super().__init__(collection, dependency)
        # From and until when `sums` has read, and what.
        self._read: tuple[str, str, list[DrainMinute]] = ("", "", [])
        # The same of `live`, by campaign.
        self._live: dict[str, tuple[str, str, Counter[str]]] = {}

    def put(self, entry: DrainMinute) -> None:
        """Idempotent: replaces what was put for the same minute."""
        fields = as_document(entry) | {"at": datetime.fromisoformat(entry.minute).astimezone(UTC)}
        # The minute comes last: the embedded server does not find an id again that begins like a time.
        key = f"{entry.drain}:{entry.run_id}:{entry.minute}"
        self._dependency.once(self._collection.update_one, {"_id": key}, {"$set": fields}, upsert=True)

    def between(self, start: str, end: str) -> list[DrainMinute]:
        """From the minute `start` on, before the minute `end`, oldest first."""
        query, fields = {"minute": {"$gte": start, "$lt": end}}, {"live": 0}
        found = self._find(query, fields, sort=[("minute", 1)])
        return [from_document(DrainMinute, document) for document in found]

    def live(self, campaign_id: str, start: str, over: str) -> Counter[str]:
        """What each minute from `start` on did to the number of live entries of a campaign. Those before the minute
        `over`, to which no run adds any more, are read once in this process.
        """
        begin, until, known = self._live.get(campaign_id, ("", "", Counter[str]()))
        if not begin <= start <= until:
            begin, until, known = start, start, Counter[str]()
        # No aggregation, because the embedded server reads all rows for one.
        query = {"live.campaignId": campaign_id, "minute": {"$gte": until}}
        found = Counter(known)
        for row in self._find(query, {"minute": 1, "live": 1}):
            found[row["minute"]] += sum(
                each["number"] for each in row["live"] if each["campaignId"] == campaign_id
            )
        if len(self._live) >= _MOST_READ:
            self._live.clear()
        over = max(until, over)
        kept = {minute: number for minute, number in found.items() if minute < over}
        self._live[campaign_id] = (begin, over, Counter(kept))
        return Counter({minute: number for minute, number in found.items() if minute >= start})

    def lags(self, start: str, campaign_id: str | None = None) -> dict[str, dict[str, float]]:
        """The longest lag of each campaign in seconds, in each minute from `start` on in which one was measured; with
        `campaign_id` that one is among them if it has any.
        """
        found: dict[str, dict[str, float]] = {}
        query: Document = {"minute": {"$gte": start}}
        query |= {} if campaign_id is None else {"live.campaignId": campaign_id}
        for row in self._find(query, {"minute": 1, "live": 1}):
            for each in row.get("live", ()):
                if (lag := each.get("lagSeconds")) is not None:
                    keep_longest(found.setdefault(each["campaignId"], {}), {row["minute"]: lag})
        return found

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
        found = self._first({"drain": drain}, {"live": 0}, sort=[("minute", -1)])
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


log = structlog.get_logger()


def operator() -> str:
    """`REGWORKERS_OPERATOR` where a job or a proxy sets it, else the account on this machine."""
    named = os.environ.get("REGWORKERS_OPERATOR")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


@dataclass(frozen=True, slots=True)
class Action:
    """What an operator did."""

    action_id: str
    who: str  # the operator
    what: str  # a command such as `dlq redrive`
    target: str  # what it changed
    started_at: str  # an ISO time
    arguments: Mapping[str, Any] = field(default_factory=dict)  # its options
    ended_at: str | None = None  # None while it runs, and for one that was killed
    outcome: str = "running"  # running, or how it ended
    result: Mapping[str, Any] = field(default_factory=dict)  # its counts

    def as_dict(self) -> dict[str, Any]:
        names = ("who", "what", "target", "started_at", "ended_at", "outcome", "arguments", "result")
        return {"id": self.action_id, **as_document(self, *names)}


class OperatorActions(Store):
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Documents, dependency: Dependency, *, clock: Callable[[], float]) -> None:
        super().__init__(collection, dependency)
        self._clock = clock

    def begins(self, what: str, target: str, arguments: Mapping[str, Any], *, who: str = "") -> str:
        """Record an action before it changes anything; returns its id. The caller does not act if this raises."""
        action_id = uuid.uuid4().hex
        action = Action(action_id, who or operator(), what, target, iso(self._clock()), arguments)
        document = as_document(action)
        self._dependency.call(self._collection.insert_one, {"_id": document.pop("actionId"), **document})
        return action_id

    def join(self, what: str, target: str, *, who: str, within_seconds: float) -> str | None:
        """End the running action that another person began within this time: `who` is its second person. Returns who
        began it; `who`, if only this person did; None without such an action.
        """
        now = self._clock()
        begun = {"$gte": iso(now - within_seconds)}
        query = {"what": what, "target": target, "outcome": "running", "startedAt": begun}
        ends = {"outcome": "done", "endedAt": iso(now), "result": {"secondPerson": who}}
        call, collection = self._dependency.call, self._collection
        found = call(collection.find_one_and_update, {**query, "who": {"$ne": who}}, {"$set": ends})
        if found is not None:
            # Two people who asked at the same moment both have a row: one launch answers both.
            call(collection.update_many, query, {"$set": ends})
        found = found or call(collection.find_one, {**query, "who": who})
        return None if found is None else str(found["who"])

    def progress(self, action_id: str, result: Mapping[str, Any]) -> None:
        self._set(action_id, {"result": dict(result)})

    def ends(self, action_id: str, outcome: str, result: Mapping[str, Any]) -> None:
        """`outcome` is `done`, `failed`, `stopped` or `killed`."""
        self._set(action_id, {"outcome": outcome, "endedAt": iso(self._clock()), "result": dict(result)})

    @contextmanager
    def recorded(
        self, what: str, target: str, arguments: Mapping[str, Any] | None = None, *, who: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Around an action; what the block puts into the yielded dictionary is its result."""
        action_id = self.begins(what, target, arguments or {}, who=who)
        result: dict[str, Any] = {}
        try:
            yield result
        except BaseException as error:
            self.try_end(action_id, what, "failed", {**result, "error": type(error).__name__})
            raise
        self.try_end(action_id, what, "done", result)

    def history(self, *, what: str = "", since: str = "", limit: int = 50) -> list[Action]:
        """The latest first. `what` is the beginning of a command's name (`dlq`), empty: all. `since` is an ISO time or
        the beginning of one.
        """
        query: dict[str, Any] = {"what": {"$gte": what, "$lt": what + "\uffff"}} if what else {}
        if since:
            query["startedAt"] = {"$gte": since}
        found = self._find(query, sort=[("startedAt", -1)], limit=limit)
        return [from_document(Action, document, action_id=document["_id"]) for document in found]

    def try_end(self, action_id: str, what: str, outcome: str, result: Mapping[str, Any]) -> None:
        """Record the end without raising: an action whose end cannot be recorded has not failed, and the failure of one
        that did is not hidden.
        """
        try:
            self.ends(action_id, outcome, result)
        except TransientFailure as failure:
            log.warning("end of action not recorded", action=what, outcome=outcome, error=str(failure))

    def _set(self, action_id: str, facts: Mapping[str, Any]) -> None:
        self._update_one({"_id": action_id}, {"$set": dict(facts)})
