"""The weekly review: dead letters, alerts, batch durations, and errors that are new or growing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from regworkers_core.adapters.mongo.dead_letters import RecordedFailure, RecordedFailures
from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.alert import Severity
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.operations.reviews.history import (
    DAY_SECONDS,
    Day,
    QueueFacts,
    by_drain,
    read_days,
    read_queues,
)
from regworkers_core.operations.reviews.plots import bars, columns, lines
from regworkers_core.operations.reviews.sections import Level, Part, Remark, Section, Table, counted
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


_MOST_CAUSES = 5
# Slower or more by so much is a trend; below it weeks differ by themselves.
_GROWN = 1.25
_MORE = 2.0
_SHORT_SECONDS = 0.1
# Of the time for which a batch is its own without a heartbeat.
_NEAR_LIMIT = 0.8
_ERROR_RATE = 0.01


def durations(before: Sequence[Day], now: Sequence[Day], *, since: float) -> Section:
    """The median of the minutes' p95, this week against the one before."""
    if not now:
        text = f"no drain has been recorded since {iso(since)}: none ran, or none wrote its log"
        return Section(
            "durations", "Duration of batches", f"No data since {iso(since)}.", (Remark("note", text),)
        )
    earlier, remarks, rows = by_drain(before), [], []
    for name, each in by_drain(now).items():
        typical = each.typical_seconds
        was = earlier[name].typical_seconds if name in earlier else None
        grown = typical / was if typical is not None and was else None
        lag = max(each.lags, default=None)
        rows.append(
            (
                name,
                each.batches,
                _rounded(was),
                _rounded(typical),
                None if grown is None else f"{100 * (grown - 1):+.0f} %",
                _rounded(each.longest_seconds),
                each.batch_limit_seconds,
                _rounded(lag),
            )
        )
        if grown is not None and grown >= _GROWN and (typical or 0.0) >= _SHORT_SECONDS:
            remarks.append(
                Remark(
                    "warning",
                    f"{name}: batches take {typical:.2f} s, {100 * (grown - 1):.0f} % more than the week before; "
                    f"most of the waiting was for {_waited_for(each)}",
                )
            )
        limit = each.batch_limit_seconds
        if limit and each.longest_seconds >= _NEAR_LIMIT * limit:
            remarks.append(
                Remark(
                    "finding",
                    f"{name}: a batch took {each.longest_seconds:.1f} s and is its own for {limit:g} s without a "
                    "heartbeat: make batches smaller or its visibility longer",
                )
            )
    every = [*before, *now]
    places = sorted({each.day for each in every})
    series = {
        name: [_typical(each for each in every if (each.drain, each.day) == (name, day)) for day in places]
        for name in sorted({each.drain for each in now})
    }
    received = sum(each.received for each in now)
    return Section(
        "durations",
        "Duration of batches",
        f"{received:,} items in {sum(each.batches for each in now):,} batches.",
        tuple(remarks),
        (
            Table(
                "p95 of batches in seconds, median over minutes",
                (
                    "drain",
                    "batches",
                    "week before",
                    "this week",
                    "change",
                    "longest",
                    "limit",
                    "lag p95, most",
                ),
                rows,
            ),
        ),
        {"trend": lines("p95 of batches by day (UTC)", "seconds", places, series)}
        if any(series.values())
        else {},
        {row[0]: {"p95Seconds": row[3], "before": row[2], "longestSeconds": row[5]} for row in rows},
    )


def errors(letters: RecordedFailures, before: Sequence[Day], now: Sequence[Day], *, since: float) -> Section:
    """Causes by fingerprint, this week against the one before; and items that failed, of those received."""
    start = iso(since)
    causes: dict[str, list[RecordedFailure]] = defaultdict(list)
    for letter in letters.failures:
        causes[letter.fingerprint].append(letter)
    counts = {
        cause: (sum(e.last_failed_at < start for e in of), sum(e.last_failed_at >= start for e in of))
        for cause, of in causes.items()
    }
    ranked = sorted((c for c in counts if counts[c][1]), key=lambda c: (-counts[c][1], c))
    remarks = []
    for cause in ranked:
        was, is_ = counts[cause]
        told = f"{causes[cause][0].reason} ({causes[cause][0].error}), {counted(is_, 'time')}"
        if all(each.first_failed_at >= start for each in causes[cause]):
            remarks.append(Remark("warning", f"new this week: {told}"))
        elif was and is_ >= _MORE * was:
            remarks.append(Remark("warning", f"more than the week before ({was:,}): {told}"))
    rows = [
        (
            causes[c][0].reason,
            causes[c][0].error,
            causes[c][0].queue,
            *counts[c],
            sum(e.open for e in causes[c]),
            c,
        )
        for c in ranked[:_MOST_ROWS]
    ]
    earlier, rates = by_drain(before), []
    for name, each in by_drain(now).items():
        rate = each.failed / each.received if each.received else None
        was_rate = (
            earlier[name].failed / earlier[name].received
            if name in earlier and earlier[name].received
            else None
        )
        down = each.ends["dependency_down"]
        rates.append((name, each.received, each.failed, _percent(rate), _percent(was_rate), down))
        if rate is not None and rate >= _ERROR_RATE and rate >= _GROWN * (was_rate or 0.0):
            remarks.append(Remark("warning", f"{name}: {100 * rate:.1f} % of its items failed or went back"))
        if down:
            remarks.append(
                Remark("note", f"{name}: {counted(down, 'run')} ended because a dependency was down")
            )
    tables = []
    if rows:
        columns_ = ("reason", "error", "queue", "week before", "this week", "still open", "fingerprint")
        tables.append(Table("Causes, the most frequent first", columns_, rows))
    if rates:
        names = ("drain", "received", "failed or back", "share", "week before", "ended: dependency down")
        tables.append(Table("Items that failed", names, rates))
    drawn = {
        f"{causes[c][0].reason}: {causes[c][0].error}": float(counts[c][1]) for c in ranked[:_MOST_CAUSES]
    }
    texts = [f"{value:,.0f}" for value in drawn.values()]
    return Section(
        "errors",
        "Error patterns",
        f"{counted(sum(counts[c][1] for c in ranked), 'letter')} of {counted(len(ranked), 'cause')} within the week."
        if ranked
        else "Nothing became a dead letter within the week.",
        tuple(remarks),
        tuple(tables),
        {"causes": bars("The most frequent causes of the week", "letters", drawn, texts=texts)}
        if drawn
        else {},
        {"causes": len(ranked), "letters": sum(counts[c][1] for c in ranked)},
    )


def _typical(days: Iterable[Day]) -> float | None:
    merged = by_drain(days)
    return next((each.typical_seconds for each in merged.values()), None)


def _waited_for(day: Day) -> str:
    return max(day.waited, key=lambda name: day.waited[name], default="nobody")


def _percent(rate: float | None) -> str | None:
    return None if rate is None else f"{100 * rate:.2f} %"
