"""Every week: dead letters, alerts, how long batches take, and which errors come and grow."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache

from regworkers_core.adapters.mongo.dead_letters import RecordedFailure, RecordedFailures
from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.alert import Severity
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.operations.reviews.history import DAY_SECONDS, Day, read_days
from regworkers_core.operations.reviews.plots import bars, columns
from regworkers_core.operations.reviews.queues import QueueFacts, read_queues
from regworkers_core.operations.reviews.sections import Level, Part, Remark, Section, Table, counted
from regworkers_core.operations.reviews.trends import durations, errors
from regworkers_core.runtime import Runtime

DAYS = 7
_MOST_LETTERS = 50_000
_MOST_ROWS = 15
# Of the days that a queue keeps a message: whoever is later than that loses it.
_DAYS_LEFT = 4.0
_LONG_OPEN_SECONDS = DAY_SECONDS


def parts(runtime: Runtime, now: float) -> Iterator[Part]:
    """The sections; letters and drains are read once for all that need them."""
    since = now - DAYS * DAY_SECONDS

    @cache
    def letters() -> RecordedFailures:
        return runtime.dead_letters.since(iso(since - DAYS * DAY_SECONDS), most=_MOST_LETTERS)

    @cache
    def days() -> tuple[list[Day], list[Day]]:
        before = read_days(runtime.drain_log, since - DAYS * DAY_SECONDS, since)
        return before, read_days(runtime.drain_log, since, now)

    yield Part(
        "dead_letters",
        "Dead letters",
        lambda: dead_letters(
            read_queues(runtime, map(runtime.names.dead_letter_queue, runtime.names.queues)),
            letters(),
            since=since,
            now=now,
        ),
    )
    yield Part("alerts", "Alerts", lambda: alerts(runtime.incidents.all(), since=since, now=now))
    yield Part("durations", "Duration of batches", lambda: durations(*days(), since=since))
    yield Part("errors", "Error patterns", lambda: errors(letters(), *days(), since=since))


def dead_letters(
    queues: Sequence[QueueFacts], letters: RecordedFailures, *, since: float, now: float
) -> Section:
    """Each dead-letter queue against the open documents about its queue."""
    open_ = defaultdict[str, list[RecordedFailure]](list)
    for letter in letters.failures:
        if letter.open:
            open_[letter.queue + "-dlq"].append(letter)
    remarks: list[Remark] = []
    rows = []
    for queue in queues:
        of_queue = open_[queue.name]
        oldest = min((each.first_failed_at for each in of_queue), default=None)
        kept = None if queue.retention_seconds is None else queue.retention_seconds / DAY_SECONDS
        age = (now - (seconds(oldest) or now)) / DAY_SECONDS if oldest else None
        left = None if age is None or kept is None else kept - age
        new = sum(
            each.first_failed_at >= iso(since)
            for each in letters.failures
            if each.queue + "-dlq" == queue.name
        )
        rows.append((queue.name, queue.depth, len(of_queue), new, _days(age), _days(left)))
        remarks += _of_queue(queue, len(of_queue), left)
    closed = [each for each in letters.failures if not each.open and (each.closed_at or "") >= iso(since)]
    how = ", ".join(
        f"{number} {status}" for status, number in sorted(Counter(e.status for e in closed).items())
    )
    if letters.cut:
        remarks.append(
            Remark("note", f"more than {_MOST_LETTERS:,} letters: the counts of letters are the least")
        )
    total = sum(len(each) for each in open_.values())
    lead = f"{total:,} open; within the week {len(closed):,} closed{f' ({how})' if how else ''}."
    places = [iso(since + number * DAY_SECONDS)[:10] for number in range(DAYS + 1)]
    by_day = {
        reason: [
            sum(e.reason == reason and e.first_failed_at[:10] == day for e in letters.failures)
            for day in places
        ]
        for reason in sorted({e.reason for e in letters.failures if e.first_failed_at >= iso(since)})
    }
    return Section(
        "dead_letters",
        "Dead letters",
        lead,
        tuple(remarks),
        (
            Table(
                "By queue",
                (
                    "queue",
                    "messages",
                    "open letters",
                    "new this week",
                    "oldest, days",
                    "days until it is lost",
                ),
                rows,
            ),
        ),
        {"by_day": columns("New dead letters by day (UTC)", "letters", places, by_day)} if by_day else {},
        {
            "open": total,
            "closed": len(closed),
            "queues": {row[0]: {"messages": row[1], "open": row[2]} for row in rows},
        },
    )


def _of_queue(queue: QueueFacts, open_: int, left: float | None) -> Iterator[Remark]:
    if left is not None and left < _DAYS_LEFT:
        lost = "is lost already" if left <= 0 else f"is lost in {left:.1f} days"
        yield Remark("finding", f"{queue.name}: the oldest message {lost}; `regworkers dlq groups` shows why")
    elif queue.depth:
        waiting = counted(queue.depth, "message")
        yield Remark(
            "warning", f"{queue.name}: {waiting} for somebody to look at; `regworkers dlq groups` shows them"
        )
    if queue.depth > open_:
        yield Remark(
            "warning",
            f"{queue.name}: {counted(queue.depth - open_, 'message')} without an open letter: others put them there",
        )


def alerts(incidents: Sequence[Incident], *, since: float, now: float) -> Section:
    """The collection keeps one document an alert: its latest incident."""
    open_ = [each for each in incidents if each.open]
    opened = [each for each in incidents if each.opened_at >= iso(since)]
    closed = [each for each in incidents if not each.open and (each.resolved_at or "") >= iso(since)]
    remarks = []
    for each in open_:
        hours = _open_seconds(each, now) / 3600
        level: Level = "finding" if each.alert.severity is Severity.CRITICAL else "warning"
        if level == "finding" or hours * 3600 >= _LONG_OPEN_SECONDS:
            told = (
                f"{each.alert.key} is open for {hours:.1f} hours: {each.alert.summary}; {each.alert.runbook}"
            )
            remarks.append(Remark(level, told))
    changed = {each.alert.key: each for each in (*open_, *closed, *opened)}
    shown = sorted(changed.values(), key=lambda each: each.opened_at)
    hours_open = {each.alert.key: _open_seconds(each, now) / 3600 for each in shown[-_MOST_ROWS:]}
    mean = sum(_open_seconds(each, now) for each in closed) / len(closed) / 3600 if closed else None
    took = "" if mean is None else f", open for {mean:.1f} hours in the mean"
    rows = [
        (
            each.alert.key,
            each.alert.severity.value,
            "open" if each.open else "closed",
            each.opened_at,
            each.resolved_at,
            each.serial,
            ", ".join(sorted(each.notified)) or None,
        )
        for each in shown
    ]
    texts = [f"{hours:.1f} h" for hours in hours_open.values()]
    red = frozenset(each.alert.key for each in open_)
    return Section(
        "alerts",
        "Alerts",
        f"{len(open_)} open, {len(opened)} opened and {len(closed)} closed within the week{took}.",
        tuple(remarks),
        (
            Table(
                "Open, or changed within the week",
                ("alert", "severity", "now", "opened", "closed", "times in all", "told"),
                rows,
            ),
        )
        if rows
        else (),
        {
            "open_hours": bars(
                "How long they were open (red: still)", "hours", hours_open, texts=texts, red=red
            )
        }
        if hours_open
        else {},
        {"open": len(open_), "opened": len(opened), "closed": len(closed), "meanHours": _rounded(mean)},
    )


def _open_seconds(incident: Incident, now: float) -> float:
    end = now if incident.open else seconds(incident.resolved_at or "") or now
    return max(0.0, end - (seconds(incident.opened_at) or end))


def _days(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
