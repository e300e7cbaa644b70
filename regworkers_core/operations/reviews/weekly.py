"""The weekly review: dead letters, alerts, budgets, alarms, durations, errors and log lines that are new or growing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from regworkers_core.adapters.mongo.dead_letters import RecordedFailure, RecordedFailures
from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.snapshot import Budget, QueueState, Severity
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.operation import Remark, Report, Table
from regworkers_core.operations.alerts.conditions.availability import new_lines
from regworkers_core.operations.alerts.conditions.drains import batch_time, error_rate
from regworkers_core.operations.alerts.conditions.objectives import budget_left
from regworkers_core.operations.alerts.conditions.work import expiry
from regworkers_core.operations.cloudwatch import (
    MOST_ERROR_LINES,
    AlarmState,
    ErrorLines,
    alarm_states,
    error_lines,
)
from regworkers_core.operations.health.activity import DAY_SECONDS, Activity, Days, Window, together
from regworkers_core.operations.health.objectives import read_budgets
from regworkers_core.operations.health.snapshot import read_campaigns
from regworkers_core.operations.health.sources import read_queue
from regworkers_core.operations.reviews.sections import (
    SectionReader,
    level_of,
    lines_of,
    no_drains,
    rounded,
    section_report,
)
from regworkers_core.reporting import counted
from regworkers_core.reporting.figures import bars, lines, stacked_columns
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings
from regworkers_core.settings.operations import AlertSeverities

# Where no period is named.
DAYS = 7
_MOST_FAILURES = 50_000
_MOST_ROWS = 15
_MOST_CAUSES = 5
_LONG_OPEN_SECONDS = DAY_SECONDS
# Growth by these factors is a trend; smaller differences between weeks are normal.
_GROWN = 1.25
_MORE = 2.0
_SHORT_SECONDS = 0.1
# Limits of the alerts, which look at minutes, as they are for a week.
_WARNS = AlertSeverities(error_rate=Severity.WARNING)
_OVER_A_WEEK = {"error_rate": 0.01, "error_items": 1, "severity": _WARNS}


class _Weeks(NamedTuple):
    former: Days
    latest: Days


def parts(runtime: Runtime, period: Window) -> Iterator[SectionReader]:
    """The sections. Dead letters and the drain log are read once for all sections that need them."""
    settings, since, now = runtime.settings, period.since, period.until
    before, end = since - period.seconds, iso(now)

    @cache
    def failures() -> RecordedFailures:
        found = runtime.dead_letters.since(iso(before), most=_MOST_FAILURES)
        known = tuple(each for each in found.failures if each.first_failed_at < end)
        return RecordedFailures(known, found.cut)

    @cache
    def days() -> _Weeks:
        activity = Activity(runtime)
        return _Weeks(activity.by_day(Window(before, since)), activity.by_day(Window(since, now)))

    def of_dead_letters() -> Report:
        names = map(runtime.names.dead_letter_queue, runtime.names.queues)
        queues = [read_queue(runtime, name) for name in names]
        return dead_letters(queues, failures(), settings, period)

    def of_alerts() -> Report:
        return alerts([each for each in runtime.incidents.all() if each.opened_at < end], period)

    def of_objectives() -> Report:
        return objectives(read_budgets(runtime, read_campaigns(runtime)), settings, now)

    def of_errors() -> Report:
        return errors(failures(), *days(), settings, period)

    def of_logs() -> Report:
        return logs(error_lines(runtime, before, since), error_lines(runtime, since, now), settings, now)

    yield SectionReader("dead_letters", "Dead letters", of_dead_letters)
    yield SectionReader("alerts", "Alerts", of_alerts)
    yield SectionReader("objectives", "Objectives", of_objectives)
    yield SectionReader("durations", "Duration of batches", lambda: durations(*days(), settings, period))
    yield SectionReader("errors", "Error patterns", of_errors)
    yield SectionReader("alarms", "CloudWatch alarms", lambda: alarms(alarm_states(runtime), now=now))
    yield SectionReader("logs", "Error lines", of_logs)


def dead_letters(
    queues: Sequence[QueueState], recorded: RecordedFailures, settings: Settings, period: Window
) -> Report:
    """Compare each dead-letter queue with the open documents about its queue."""
    start, now = iso(period.since), period.until
    of_queue = defaultdict[str, list[RecordedFailure]](list)
    for failure in recorded.failures:
        of_queue[failure.queue + "-dlq"].append(failure)
    remarks, rows = list[Remark](), []
    for queue in queues:
        failures = of_queue[queue.name]
        open_ = [each for each in failures if each.open]
        oldest = min((each.first_failed_at for each in open_), default=None)
        age = now - (seconds(oldest) or now) if oldest else None
        left = None if age is None else queue.retention_seconds - age
        new = sum(each.first_failed_at >= start for each in failures)
        rows.append((queue.name, queue.waiting, len(open_), new, _days(age), _days(left)))
        expires = lines_of(expiry, settings, now, queues=(replace(queue, oldest_seconds=age),))
        remarks += expires
        if queue.waiting and not expires:
            text = f"{queue.name}: {counted(queue.waiting, 'message')} to review; `regworkers dlq groups` shows them"
            remarks.append(Remark("warning", text))
        if queue.waiting > len(open_):
            unknown = counted(queue.waiting - len(open_), "message")
            text = (
                f"{queue.name}: {unknown} without an open dead-letter document: put there by another system"
            )
            remarks.append(Remark("warning", text))
    closed = [each for each in recorded.failures if not each.open and (each.closed_at or "") >= start]
    statuses = sorted(Counter(each.status for each in closed).items())
    how = f" ({', '.join(f'{number} {status}' for status, number in statuses)})" if closed else ""
    if recorded.cut:
        text = f"there are more than {_MOST_FAILURES:,} dead letters: all counts are lower bounds"
        remarks.append(Remark("note", text))
    total = sum(each.open for each in recorded.failures)
    days = [iso(each.since)[:10] for each in period.days()]
    by_day = {
        reason: [
            sum(e.reason == reason and e.first_failed_at[:10] == day for e in recorded.failures)
            for day in days
        ]
        for reason in sorted({e.reason for e in recorded.failures if e.first_failed_at >= start})
    }
    names = ("queue", "messages", "open", "new this week", "oldest, days", "days until it expires")
    return section_report(
        f"{total:,} open; within the week {len(closed):,} closed{how}.",
        remarks,
        [Table("By queue", names, rows)],
        {"by_day": stacked_columns("New dead letters by day (UTC)", "dead letters", days, by_day)}
        if by_day
        else {},
        {
            "open": total,
            "closed": len(closed),
            "queues": {row[0]: {"messages": row[1], "open": row[2]} for row in rows},
        },
    )


def alerts(incidents: Sequence[Incident], period: Window) -> Report:
    """The incidents that are open or changed. The collection has one document per alert: its latest incident."""
    start, now = iso(period.since), period.until
    open_ = [each for each in incidents if each.open]
    opened = [each for each in incidents if each.opened_at >= start]
    closed = [each for each in incidents if not each.open and (each.resolved_at or "") >= start]
    remarks = []
    for each in open_:
        open_seconds = _open_seconds(each, now)
        level = level_of(each.alert.severity)
        if level == "finding" or open_seconds >= _LONG_OPEN_SECONDS:
            alert, open_hours = each.alert, f"{open_seconds / 3600:.1f}"
            text = f"{alert.key} is open for {open_hours} hours: {alert.summary}; {alert.runbook}"
            remarks.append(Remark(level, text))
    changed = {each.alert.key: each for each in (*open_, *closed, *opened)}
    shown = sorted(changed.values(), key=lambda each: each.opened_at)
    hours = {each.alert.key: _open_seconds(each, now) / 3600 for each in shown[-_MOST_ROWS:]}
    mean = sum(_open_seconds(each, now) for each in closed) / len(closed) / 3600 if closed else None
    took = "" if mean is None else f", open for {mean:.1f} hours on average"
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
    names = ("alert", "severity", "state", "opened", "closed", "times in total", "notified")
    texts = [f"{each:.1f} h" for each in hours.values()]
    red = frozenset(each.alert.key for each in open_)
    title = "Duration of incidents (red: still open)"
    return section_report(
        f"{len(open_)} open, {len(opened)} opened and {len(closed)} closed within the week{took}.",
        remarks,
        [Table("Open, or changed within the week", names, rows)] if rows else [],
        {"open_hours": bars(title, "hours", hours, texts=texts, red=red)} if hours else {},
        {"open": len(open_), "opened": len(opened), "closed": len(closed), "meanHours": rounded(mean)},
    )


def _open_seconds(incident: Incident, now: float) -> float:
    end = now if incident.open else seconds(incident.resolved_at or "") or now
    return max(0.0, end - (seconds(incident.opened_at) or end))


def objectives(budgets: Sequence[Budget], settings: Settings, now: float) -> Report:
    """What is left of the budgets of the last days."""
    days, rows = settings.objectives.budget_days, []
    for each in budgets:
        share, left = each.share, 100 * each.left
        good = None if not share.events else f"{100 * (1 - share.bad / share.events):.3f} %"
        rows.append(
            (each.objective, f"{100 * each.target:g} %", good, share.events, share.bad, f"{left:.1f} %")
        )
    least = min(budgets, key=lambda each: each.left)
    names = ("objective", "target", "good", "events", "bad", "budget left")
    shown = {each.objective: 100 * each.left for each in budgets}
    return section_report(
        f"The least is left of {least.objective}: {100 * least.left:.1f} % of its budget of {days} days.",
        lines_of(budget_left, settings, now, budgets=tuple(budgets)),
        [Table(f"Of the last {days} days", names, rows)],
        {
            "budgets": bars(
                "Error budget left (red: overdrawn)",
                "% of the budget",
                {name: max(0.0, left) for name, left in shown.items()},
                texts=[f"{left:.1f} %" for left in shown.values()],
                red=frozenset(name for name, left in shown.items() if left <= 0),
            )
        },
        {name: {"budgetLeft": rounded(left)} for name, left in shown.items()},
    )


def durations(before: Days, now: Days, settings: Settings, period: Window) -> Report:
    """The median of the minutes' p95 of batch durations, this week and the week before."""
    if not now:
        return no_drains(period.since)
    earlier, drains, remarks, rows = together(before.values()), together(now.values()), list[Remark](), []
    for name, each in drains.items():
        typical = each.typical_seconds
        was = earlier[name].typical_seconds if name in earlier else None
        grown = typical / was if typical is not None and was else None
        longest, limit = each.batch_max_seconds, each.batch_limit_seconds
        change = None if grown is None else f"{100 * (grown - 1):+.0f} %"
        lag = rounded(each.lag_p95_seconds)
        rows.append(
            (name, each.batches, rounded(was), rounded(typical), change, rounded(longest), limit, lag)
        )
        if typical is not None and grown is not None and grown >= _GROWN and typical >= _SHORT_SECONDS:
            waits = each.waited_seconds
            text = (
                f"{name}: batches take {typical:.2f} s, {100 * (grown - 1):.0f} % more than the week before"
            )
            text += f"; they mostly waited for {max(waits, key=waits.__getitem__, default='no dependency')}"
            remarks.append(Remark("warning", text))
    remarks += lines_of(batch_time, settings, period.until, drains=tuple(drains.values()))
    dates = sorted({*before, *now})
    days = [together([before.get(date, {}), now.get(date, {})]) for date in dates]
    series = {name: [day[name].typical_seconds if name in day else None for day in days] for name in drains}
    received = sum(each.received for each in drains.values())
    names = ("drain", "batches", "week before", "this week", "change", "longest", "limit", "max. lag p95")
    return section_report(
        f"{received:,} items in {sum(each.batches for each in drains.values()):,} batches.",
        remarks,
        [Table("p95 of batches in seconds, median over minutes", names, rows)],
        {"trend": lines("p95 of batches by day (UTC)", "seconds", dates, series)},
        {row[0]: {"p95Seconds": row[3], "before": row[2], "longestSeconds": row[5]} for row in rows},
    )


def errors(recorded: RecordedFailures, before: Days, now: Days, settings: Settings, period: Window) -> Report:
    """Causes by fingerprint, and failed items as a share of those received, this week and the week before."""
    start = iso(period.since)
    causes = defaultdict[str, list[RecordedFailure]](list)
    for failure in recorded.failures:
        causes[failure.fingerprint].append(failure)
    counts = {
        cause: (sum(e.last_failed_at < start for e in of), sum(e.last_failed_at >= start for e in of))
        for cause, of in causes.items()
    }
    ranked = sorted((c for c in counts if counts[c][1]), key=lambda c: (-counts[c][1], c))
    total = sum(counts[cause][1] for cause in ranked)
    remarks, rows = [], []
    for cause in ranked:
        first = causes[cause][0]
        was, is_ = counts[cause]
        text = f"{first.reason} ({first.error}), {counted(is_, 'time')}"
        if all(each.first_failed_at >= start for each in causes[cause]):
            remarks.append(Remark("warning", f"new this week: {text}"))
        elif was and is_ >= _MORE * was:
            remarks.append(Remark("warning", f"more than the week before ({was:,}): {text}"))
        still_open = sum(each.open for each in causes[cause])
        rows.append((first.reason, first.error, first.queue, was, is_, still_open, cause))
    earlier, rates, grown = together(before.values()), [], []
    for name, each in together(now.values()).items():
        rate, was_rate = each.error_rate, earlier[name].error_rate if name in earlier else None
        down = each.ends["dependency_down"]
        rates.append((name, each.received, each.failed, _percent(rate), _percent(was_rate), down))
        if rate is not None and rate >= _GROWN * (was_rate or 0.0):
            grown.append(each)
        if down:
            runs = counted(down, "run")
            remarks.append(Remark("note", f"{name}: {runs} ended because a dependency was down"))
    limits = settings.model_copy(update={"alerts": settings.alerts.model_copy(update=_OVER_A_WEEK)})
    remarks += lines_of(error_rate, limits, period.until, drains=tuple(grown))
    tables = []
    if rows:
        names = ("reason", "error", "queue", "week before", "this week", "still open", "fingerprint")
        tables.append(Table("Causes, the most frequent first", names, rows[:_MOST_ROWS]))
    if rates:
        names_ = ("drain", "received", "failed or returned", "share", "week before", "ended: dependency down")
        tables.append(Table("Items that failed", names_, rates))
    drawn = {f"{reason}: {error}": float(is_) for reason, error, _, _, is_, *_ in rows[:_MOST_CAUSES]}
    texts = [f"{value:,.0f}" for value in drawn.values()]
    title = "The most frequent causes of the week"
    return section_report(
        f"{counted(total, 'dead letter')} of {counted(len(ranked), 'cause')} within the week."
        if ranked
        else "Nothing became a dead letter within the week.",
        remarks,
        tables,
        {"causes": bars(title, "dead letters", drawn, texts=texts)} if drawn else {},
        {"causes": len(ranked), "letters": total},
    )


def alarms(states: Sequence[AlarmState], *, now: float) -> Report:
    """The alarms that are not OK, and since when."""
    if not states:
        text = "no alarm exists: Terraform publishes them"
        return section_report("No alarm exists.", [Remark("note", text)])
    numbers = Counter(each.state for each in states)
    remarks, rows = list[Remark](), []
    for each in sorted(states):
        if each.state == "OK":
            continue
        open_seconds = max(0.0, now - (seconds(each.since) or now))
        hours = f"{open_seconds / 3600:.1f}"
        rows.append((each.name, each.severity, each.state, each.since, hours))
        if each.state == "ALARM":
            text = f"{each.name} is in ALARM for {hours} hours: see docs/aws.md"
            remarks.append(Remark(level_of(each.severity), text))
        elif open_seconds >= _LONG_OPEN_SECONDS:
            days = f"{open_seconds / DAY_SECONDS:.1f}"
            remarks.append(
                Remark("warning", f"{each.name} has had no data for {days} days: it watches nothing")
            )
    names = ("alarm", "severity", "state", "since", "hours")
    states_ = ", ".join(f"{number} {state}" for state, number in sorted(numbers.items()))
    return section_report(
        f"{counted(len(states), 'alarm')}: {states_}.",
        remarks,
        [Table("Alarms that are not OK", names, rows)] if rows else [],
        numbers=dict(numbers),
    )


def logs(before: ErrorLines, now: ErrorLines, settings: Settings, at: float) -> Report:
    """Error and warning lines by pattern, this week and the week before."""
    rows = [
        (*(each or None for each in pattern), before.patterns[pattern], number)
        for pattern, number in now.patterns.most_common()
    ]
    remarks = lines_of(new_lines, settings, at, patterns=now.patterns, patterns_before=before.patterns)
    if now.cut or before.cut:
        text = f"of {now.lines:,} lines ({before.lines:,} the week before) the newest {MOST_ERROR_LINES:,} were grouped"
        remarks.append(Remark("note", text))
    names = ("level", "worker", "event", "about", "week before", "this week")
    return section_report(
        f"{counted(now.lines, 'line')} of {counted(len(now.patterns), 'pattern')} within the week, "
        f"{before.lines:,} the week before.",
        remarks[:_MOST_ROWS],
        [Table("Patterns, the most frequent first", names, rows[:_MOST_ROWS])] if rows else [],
        numbers={"lines": now.lines, "patterns": len(now.patterns)},
    )


def _days(value: float | None) -> str | None:
    return None if value is None else f"{value / DAY_SECONDS:.1f}"


def _percent(rate: float | None) -> str | None:
    return None if rate is None else f"{100 * rate:.2f} %"
