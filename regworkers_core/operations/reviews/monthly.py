"""The monthly review: memory and batches against their limits, retention against the settings, cost, certificates."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import orjson

from regworkers_core.adapters.aws.objects import MissingObject
from regworkers_core.adapters.mongo.activity import DRAIN_LOG_DAYS
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.flows import DRAIN
from regworkers_core.infrastructure.desired import desired
from regworkers_core.operation import Level, Remark, Report, Table
from regworkers_core.operations.alerts.conditions.availability import certificates as kafka_certificate
from regworkers_core.operations.alerts.conditions.drains import batch_time
from regworkers_core.operations.certificates import RenewalState, certificate_state, check_certificate
from regworkers_core.operations.cloudwatch import WatchingCost, log_group
from regworkers_core.operations.health.activity import DAY_SECONDS, Activity, Days, Drains, Window, together
from regworkers_core.operations.health.sources import read_queue
from regworkers_core.operations.reviews.sections import (
    REPORT,
    ReviewKind,
    SectionReader,
    lines_of,
    no_drains,
    report_key,
    reports,
    rounded,
    section_report,
)
from regworkers_core.operations.runbooks import cost as costs
from regworkers_core.reporting.figures import bars, lines
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

# Where no period is named: at most DRAIN_LOG_DAYS.
DAYS = 30
_NEAR_LIMIT = 0.8
_AT_LIMIT = 0.95
_GROWN = 1.2
_REPORTS = 12
_MISSING = "is missing"


def parts(runtime: Runtime, period: Window) -> Iterator[SectionReader]:
    """The sections. The drain log is read once for all sections that need it."""
    settings = runtime.settings

    @cache
    def days() -> Days:
        return Activity(runtime).by_day(period)

    def costs_() -> Report:
        watching, unread = costs.readable_watching(runtime, period.seconds / DAY_SECONDS)
        earlier = earlier_costs(runtime, iso(period.until)[:10])
        return cost(days(), earlier, period, watching=watching, unread=unread)

    yield SectionReader("sizes", "Memory and batches", lambda: sizes(days(), settings, period))
    yield SectionReader("retention", "Retention", lambda: retention(runtime))
    yield SectionReader("cost", "Cost", costs_)
    yield SectionReader("certificates", "Certificates", lambda: certificates(runtime))


def sizes(days: Days, settings: Settings, period: Window) -> Report:
    """Memory of processes and sizes of batches against their limits."""
    if not days:
        return no_drains(period.since)
    drains, memory_limit = together(days.values()), settings.reviews.memory_limit_mib
    remarks, rows, shares = [], [], dict[str, float]()
    for name, each in drains.items():
        memory, longest, limit = each.memory_mib, each.batch_max_seconds, each.batch_limit_seconds
        items = each.items_of_a_batch
        most = DRAIN[name].most_items(settings) if name in DRAIN else None
        rows.append(
            (
                name,
                *(rounded(memory, 1), _share(memory, memory_limit)),
                *(rounded(items, 1), most, _share(items, most)),
                *(rounded(longest, 1), limit, _share(longest, limit)),
            )
        )
        if memory is not None:
            shares[f"{name}: memory"] = 100 * memory / memory_limit
            if memory >= _NEAR_LIMIT * memory_limit:
                text = f"{name}: a process took {memory:,.0f} MiB of {memory_limit:,}: lower its concurrency,"
                text += " prefetch or batches, or give it more memory"
                level: Level = "finding" if memory >= _AT_LIMIT * memory_limit else "warning"
                remarks.append(Remark(level, text))
        if limit:
            shares[f"{name}: longest batch"] = 100 * longest / limit
    remarks += lines_of(batch_time, settings, period.until, drains=tuple(drains.values()))
    red = frozenset(name for name, share in shares.items() if share >= 100 * _NEAR_LIMIT)
    texts = [f"{share:.0f} %" for share in shares.values()]
    batch = ("items per batch", "limit", "of limit", "longest batch, s", "limit", "of limit")
    return section_report(
        f"{sum(each.batches for each in drains.values()):,} batches; a process may take {memory_limit:,} MiB "
        "(reviews.memoryLimitMib).",
        remarks,
        [Table("Maximum against limit", ("drain", "MiB", "of limit", *batch), rows)],
        {"shares": bars("Share of the limit", "percent", shares, texts=texts, red=red)} if shares else {},
        {row[0]: {"memoryMib": row[1], "itemsABatch": row[3], "longestSeconds": row[6]} for row in rows},
    )


def retention(runtime: Runtime) -> Report:
    """Compare the actual retention of queues, logs and streams with the settings. A missing resource is a row."""
    wanted = desired(runtime.settings)
    rows: list[tuple[str, str, str, str]] = []
    for queue in wanted.queues:
        rows.append(("queue", queue.name, _queue(runtime, queue.name), _days(queue.retention_seconds)))
    group = wanted.log_group
    rows.append(("log group", group.name, _log_group(runtime), f"{group.retention_days} days"))
    for table in wanted.tables:
        if table.stream_view:
            # AWS keeps every stream for a day; only its content can differ.
            rows.append(("stream", table.name, _stream(runtime, table.name), f"{table.stream_view}, 1 day"))
    oldest = runtime.drain_log.oldest()
    remarks = [
        Remark(
            "finding",
            f"{kind} {name} has {actual}, expected is {expected}: `regworkers provision --apply` repairs it",
        )
        for kind, name, actual, expected in rows
        if actual != expected
    ]
    rows.append(
        ("drain log", "drain_log", f"since {oldest[:10]}" if oldest else "empty", f"{DRAIN_LOG_DAYS} days")
    )
    if oldest and oldest < iso(runtime.clock() - (DRAIN_LOG_DAYS + 2) * DAY_SECONDS):
        text = (
            f"the drain log starts at {oldest[:10]}: `regworkers housekeeping --apply` deletes older entries"
        )
        remarks.append(Remark("warning", text))
    return section_report(
        f"{len(rows)} stores checked, {len(remarks)} remarks.",
        remarks,
        [Table("Actual and expected retention", ("kind", "name", "actual", "expected"), rows)],
        numbers={f"{kind} {name}": actual for kind, name, actual, _ in rows},
    )


def _queue(runtime: Runtime, name: str) -> str:
    try:
        return _days(read_queue(runtime, name).retention_seconds)
    except UsageError:
        return _MISSING


def _log_group(runtime: Runtime) -> str:
    group = log_group(runtime)
    if group is None:
        return _MISSING
    days = group.get("retentionInDays")
    return "no limit" if days is None else f"{days} days"


def _stream(runtime: Runtime, table: str) -> str:
    call = runtime.dependency("dynamodb").call
    try:
        found = call(runtime.dynamodb.describe_table, TableName=table)["Table"]
    except runtime.dynamodb.exceptions.ResourceNotFoundException:
        return _MISSING
    view = found.get("StreamSpecification", {}).get("StreamViewType")
    return f"{view}, 1 day" if view else "off"


def _days(kept: float) -> str:
    return f"{kept / DAY_SECONDS:g} days"


def _share(value: float | None, limit: float | None) -> str | None:
    return None if value is None or not limit else f"{100 * value / limit:.0f} %"


def certificates(runtime: Runtime) -> Report:
    """The client certificate of this environment; those of other environments cannot be read from here."""
    environment = runtime.settings.environment
    report = check_certificate(runtime, environment)
    found = report.inspection
    others = "`regworkers certs check` checks all environments from a terminal that can read them."
    if report.state is RenewalState.NONE or found is None:
        return section_report(f"The connection to Kafka uses no certificate in {environment}. {others}")
    state, days_left = certificate_state(environment, report), rounded(found.days_left, 1)
    row = (environment, report.state.value, days_left, found.subject, found.not_after)
    names = ("environment", "state", "days left", "subject", "expires")
    return section_report(
        others,
        lines_of(kafka_certificate, runtime.settings, runtime.clock(), certificates=(state,)),
        [Table("Kafka's client certificate", names, [row])],
        numbers={"state": report.state.value, "daysLeft": days_left},
    )


def cost(
    days: Days,
    earlier: Mapping[str, float],
    period: Window,
    *,
    watching: WatchingCost | None = None,
    unread: str = "",
) -> Report:
    """Dollars for a million entries at list prices: of the month, its weeks, and `earlier` reviews by date."""
    if not days:
        return no_drains(period.since, "there is nothing to bill")
    report = costs.assess(together(days.values()), period.seconds / DAY_SECONDS, watching, unread)
    month = _number(report.values["dollarsPerMillionEntries"])
    weeks = {
        date: _number(costs.assess(together(of), 7, watching).values["dollarsPerMillionEntries"])
        for date, of in by_week(days, period.since).items()
    }
    remarks = [Remark("note", f"{each.text}: {each.advice}") for each in report.remarks]
    before = next((earlier[date] for date in sorted(earlier, reverse=True)), None)
    if month is not None and before and month >= _GROWN * before:
        text = (
            f"a million entries cost {month:.2f} dollars, {100 * (month / before - 1):.0f} % more than in the"
        )
        remarks.append(Remark("warning", f"{text} previous review ({before:.2f})"))
    services = [
        (each["service"], each["calls"], each["callsPerMillion"], each["dollars"], each["dollarsPerMillion"])
        for each in report.document["tables"]["services"]
    ]
    trend: list[tuple[str, str, float | None]] = [
        ("review", date, value) for date, value in sorted(earlier.items())
    ]
    trend += [("week", date, value) for date, value in weeks.items()]
    kept = watching.facts() if watching else {}
    plots, title = {}, "Dollars for a million entries"
    if any(value is not None for *_, value in trend):
        series = {"list price": [value for *_, value in trend]}
        plots["trend"] = lines(title, "dollars", [date for _, date, _ in trend], series)
    names = ("service", "calls", "calls per million", "dollars", "dollars per million")
    return section_report(
        f"{report.document['summary']}. Prices of {report.values['pricesOf']}; not included: {report.values['notIn']}.",
        remarks,
        [Table("By service", names, services), Table(title, ("of", "since", "dollars"), trend)]
        + ([Table("CloudWatch", ("what", "value"), [*kept.items()])] if kept else []),
        plots,
        {"dollarsPerMillionEntries": month, "weeks": weeks, "entries": report.values["entries"]},
    )


def by_week(days: Days, start: float) -> dict[str, list[Drains]]:
    """The days in weeks from `start` on, by the date on which each week begins."""
    weeks: dict[str, list[Drains]] = defaultdict(list)
    starts = [iso(start + number * 7 * DAY_SECONDS)[:10] for number in range(60)]
    for date, drains in days.items():
        weeks[max(each for each in starts if each <= date)].append(drains)
    return weeks


def earlier_costs(runtime: Runtime, today: str) -> dict[str, float]:
    """The costs in monthly reviews before today, by date. Reviews that cannot be read are left out."""
    found: dict[str, float] = {}
    for date in [date for date in reports(runtime.objects, ReviewKind.MONTHLY) if date < today][-_REPORTS:]:
        try:
            document: Any = orjson.loads(
                runtime.objects.get_bytes(report_key(ReviewKind.MONTHLY, date, REPORT))
            )
            numbers = next(each["numbers"] for each in document["sections"] if each["name"] == "cost")
            value = _number(numbers.get("dollarsPerMillionEntries"))
        except (MissingObject, orjson.JSONDecodeError, KeyError, TypeError, StopIteration):
            continue
        if value is not None:
            found[date] = value
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
