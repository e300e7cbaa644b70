"""The monthly review: memory and batches against their limits, retention against the settings, cost, certificates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import orjson

from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.adapters.aws.objects import MissingObject
from regworkers_core.adapters.mongo.activity import DRAIN_LOG_DAYS
from regworkers_core.domain.messages import MAX_ITEMS
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.infrastructure.desired import desired
from regworkers_core.operations.certificates import State, check_certificate
from regworkers_core.operations.reviews.history import (
    DAY_SECONDS,
    Day,
    by_drain,
    by_week,
    read_days,
    read_queues,
)
from regworkers_core.operations.reviews.plots import bars, lines
from regworkers_core.operations.reviews.sections import (
    REPORT,
    Kind,
    Part,
    Remark,
    Section,
    Table,
    report_key,
    reports,
)
from regworkers_core.operations.runbooks import cost as costs
from regworkers_core.operations.runbooks.runbook import DrainWork
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

# Not above DRAIN_LOG_DAYS.
DAYS = 30
_NEAR_LIMIT = 0.8
_NO_ROOM = 0.95


def parts(runtime: Runtime, now: float) -> Iterator[Part]:
    since = now - DAYS * DAY_SECONDS

    @cache
    def days() -> list[Day]:
        return read_days(runtime.drain_log, since, now)

    settings = runtime.settings
    yield Part("sizes", "Memory and batches", lambda: sizes(days(), settings, since=since))
    yield Part("retention", "Retention", lambda: retention(runtime))
    yield Part(
        "cost",
        "Cost",
        lambda: cost(days(), earlier_costs(runtime, iso(now)[:10]), since=since, days_of_period=DAYS),
    )
    yield Part("certificates", "Certificates", lambda: certificates(runtime))


def sizes(days: Sequence[Day], settings: Settings, *, since: float) -> Section:
    """What processes and batches took of what they may take."""
    if not days:
        text = f"no drain has been recorded since {iso(since)}: none ran, or none wrote its log"
        return Section("sizes", "", f"No data since {iso(since)}.", (Remark("note", text),))
    memory_limit = settings.reviews.memory_limit_mib
    most_items = {
        "enqueue": settings.enqueue.batch_records,
        "save": settings.save.batch_messages * MAX_ITEMS,
        "selections": settings.selection.batch_messages * MAX_ITEMS,
        "publish": settings.analytics.batch_messages * MAX_ITEMS,
    }
    remarks, rows, shares = [], [], dict[str, float]()
    for name, each in by_drain(days).items():
        items = each.received / each.batches if each.batches else None
        most = most_items.get(name)
        limit = each.batch_limit_seconds
        rows.append(
            (
                name,
                _rounded(each.memory_mib),
                _share(each.memory_mib, memory_limit),
                _rounded(items),
                most,
                _share(items, most),
                _rounded(each.longest_seconds),
                limit,
                _share(each.longest_seconds, limit),
            )
        )
        if each.memory_mib is not None:
            shares[f"{name}: memory"] = 100 * each.memory_mib / memory_limit
            if each.memory_mib >= _NEAR_LIMIT * memory_limit:
                remarks.append(
                    Remark(
                        "finding" if each.memory_mib >= _NO_ROOM * memory_limit else "warning",
                        f"{name}: a process took {each.memory_mib:,.0f} MiB of {memory_limit:,}: lower its "
                        "concurrency, prefetch or batches, or give it more memory",
                    )
                )
        if limit:
            shares[f"{name}: longest batch"] = 100 * each.longest_seconds / limit
            if each.longest_seconds >= _NEAR_LIMIT * limit:
                remarks.append(
                    Remark(
                        "finding",
                        f"{name}: a batch took {each.longest_seconds:.1f} s of {limit:g} s: make them smaller",
                    )
                )
    if all(row[1] is None for row in rows):
        remarks.append(
            Remark("note", "no drain has recorded its memory: this release wrote none of the minutes")
        )
    red = frozenset(name for name, share in shares.items() if share >= 100 * _NEAR_LIMIT)
    texts = [f"{share:.0f} %" for share in shares.values()]
    return Section(
        "sizes",
        "",
        f"{sum(each.batches for each in days):,} batches; a process may take {memory_limit:,} MiB "
        "(reviews.memoryLimitMib).",
        tuple(remarks),
        (
            Table(
                "The most that was taken, against limits",
                (
                    "drain",
                    "MiB",
                    "of limit",
                    "items a batch",
                    "at most",
                    "of limit",
                    "longest batch, s",
                    "limit",
                    "of limit",
                ),
                rows,
            ),
        ),
        {"shares": bars("Of the limit", "percent", shares, texts=texts, red=red)} if shares else {},
        {row[0]: {"memoryMib": row[1], "itemsABatch": row[3], "longestSeconds": row[6]} for row in rows},
    )


def retention(runtime: Runtime) -> Section:
    """What is kept for how long, as it stands and as the settings want it. Each thing that is missing is a row."""
    wanted = desired(runtime.settings)
    rows: list[tuple[str, str, object, object]] = []
    for queue in wanted.queues:
        name = queue.name
        stands = _or_missing(lambda name=name: _days(read_queues(runtime, [name])[0].retention_seconds))  # type: ignore[misc]
        rows.append(("queue", name, stands, _days(queue.retention_seconds)))
    group = wanted.log_group
    rows.append(
        (
            "log group",
            group.name,
            _or_missing(lambda: _log_days(runtime, group.name)),
            f"{group.retention_days} days",
        )
    )
    for table in wanted.tables:
        if table.stream_view:
            name = table.name
            stands = _or_missing(lambda name=name: _stream(runtime, name))  # type: ignore[misc]
            # AWS keeps every stream for a day; what can differ is what it carries.
            rows.append(("stream", name, stands, f"{table.stream_view}, 1 day"))
    oldest = runtime.drain_log.oldest()
    rows.append(
        ("drain log", "drain_log", f"since {oldest[:10]}" if oldest else "empty", f"{DRAIN_LOG_DAYS} days")
    )
    remarks = [
        Remark(
            "finding",
            f"{kind} {name} has {stands}, the settings want {want}: `regworkers provision` mends it",
        )
        for kind, name, stands, want in rows
        if kind != "drain log" and stands != want
    ]
    if oldest and oldest < iso(runtime.clock() - (DRAIN_LOG_DAYS + 2) * DAY_SECONDS):
        text = f"the drain log reaches back to {oldest[:10]}: `regworkers housekeeping --yes` deletes what is older"
        remarks.append(Remark("warning", text))
    return Section(
        "retention",
        "",
        f"{len(rows)} things that keep data, {len(remarks)} remarks.",
        tuple(remarks),
        (Table("As it stands, and as the settings want it", ("kind", "name", "stands", "wanted"), rows),),
        {},
        {f"{kind} {name}": str(stands) for kind, name, stands, _ in rows},
    )


def certificates(runtime: Runtime) -> Section:
    """Of this environment; the material of others cannot be read from here."""
    environment = runtime.settings.environment
    report = check_certificate(runtime, environment)
    found = report.inspection
    others = "`regworkers certs check` looks at all environments from a terminal that can read them."
    if report.state is State.NONE or found is None:
        return Section(
            "certificates", "", f"Kafka is spoken without a certificate in {environment}. {others}"
        )
    remarks = tuple(Remark("finding", each.text) for each in found.findings)
    row = (environment, report.state.value, _rounded(found.days_left), found.subject, found.not_after)
    return Section(
        "certificates",
        "",
        others,
        remarks,
        (
            Table(
                "Kafka's client certificate", ("environment", "state", "days left", "subject", "ends"), (row,)
            ),
        ),
        {},
        {"state": report.state.value, "daysLeft": _rounded(found.days_left)},
    )


def _or_missing(read: Callable[[], str]) -> str:
    try:
        return read()
    except UsageError:
        return "is missing"


def _log_days(runtime: Runtime, name: str) -> str:
    client, call = runtime.aws.client("logs"), runtime.dependency("logs").call
    groups = call(client.describe_log_groups, logGroupNamePrefix=name)["logGroups"]
    group = next((group for group in groups if group["logGroupName"] == name), None)
    if group is None:
        return "is missing"
    days = group.get("retentionInDays")
    return "no end" if days is None else f"{days} days"


def _stream(runtime: Runtime, table: str) -> str:
    call = runtime.dependency("dynamodb").call
    try:
        found = call(runtime.dynamodb.describe_table, TableName=table)["Table"]
    except runtime.dynamodb.exceptions.ResourceNotFoundException as error:
        raise UsageError(f"table {table}: {error_code(error)}") from None
    view = found.get("StreamSpecification", {}).get("StreamViewType")
    return f"{view}, 1 day" if view else "off"


def _days(kept: float | None) -> str:
    return "does not say" if kept is None else f"{kept / DAY_SECONDS:g} days"


def _share(value: float | None, limit: float | None) -> str | None:
    return None if value is None or not limit else f"{100 * value / limit:.0f} %"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


_GROWN = 1.2
_REPORTS = 12


def cost(
    days: Sequence[Day], earlier: Mapping[str, float], *, since: float, days_of_period: float
) -> Section:
    """Dollars for a million entries by list prices: of the month, of its weeks, and of the reviews before (`earlier`,
    by date).
    """
    if not days:
        text = f"no drain has been recorded since {iso(since)}: there is nothing to bill"
        return Section("cost", "", f"No data since {iso(since)}.", (Remark("note", text),))
    report = costs.assess(_worked(days), days_of_period)
    month = _number(report.facts["dollarsPerMillionEntries"])
    weeks = {
        date: _number(costs.assess(_worked(of), 7).facts["dollarsPerMillionEntries"])
        for date, of in by_week(days, since).items()
    }
    remarks = [Remark("note", f"{each.text}: {each.advice}") for each in report.findings]
    before = next((earlier[date] for date in sorted(earlier, reverse=True)), None)
    if month is not None and before and month >= _GROWN * before:
        growth = 100 * (month / before - 1)
        remarks.append(
            Remark(
                "warning",
                f"a million entries cost {month:.2f} dollars, {growth:.0f} % more than in the review before "
                f"({before:.2f})",
            )
        )
    services = [
        (each["service"], each["calls"], each["callsPerMillion"], each["dollars"], each["dollarsPerMillion"])
        for each in report.tables["services"]
    ]
    trend: list[tuple[str, str, float | None]] = [
        ("review", date, value) for date, value in sorted(earlier.items())
    ]
    trend += [("week", date, value) for date, value in weeks.items()]
    plots = {}
    if any(value is not None for *_, value in trend):
        series = {"list price": [value for *_, value in trend]}
        plots["trend"] = lines(
            "Dollars for a million entries", "dollars", [date for _, date, _ in trend], series
        )
    return Section(
        "cost",
        "",
        f"{report.summary}. Prices of {report.facts['pricesOf']}; not in it: {report.facts['notIn']}.",
        tuple(remarks),
        (
            Table(
                "By service",
                ("service", "calls", "calls a million", "dollars", "dollars a million"),
                services,
            ),
            Table("Dollars for a million entries", ("of", "since", "dollars"), trend),
        ),
        plots,
        {"dollarsPerMillionEntries": month, "weeks": weeks, "entries": report.facts["entries"]},
    )


def earlier_costs(runtime: Runtime, today: str) -> dict[str, float]:
    """What monthly reviews before today said, by date; one that cannot be read is left out."""
    found: dict[str, float] = {}
    for date in [date for date in reports(runtime.objects, Kind.MONTHLY) if date < today][-_REPORTS:]:
        try:
            document: Any = orjson.loads(runtime.objects.get_bytes(report_key(Kind.MONTHLY, date, REPORT)))
            numbers = next(each["numbers"] for each in document["sections"] if each["name"] == "cost")
            value = _number(numbers.get("dollarsPerMillionEntries"))
        except (MissingObject, orjson.JSONDecodeError, KeyError, TypeError, StopIteration):
            continue
        if value is not None:
            found[date] = value
    return found


def _worked(days: Iterable[Day]) -> dict[str, DrainWork]:
    """As the runbook of cost takes it."""
    return {
        name: DrainWork(
            name, minutes=each.minutes, counts=each.counts, batches=each.batches, calls=each.calls
        )
        for name, each in by_drain(days).items()
    }


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
