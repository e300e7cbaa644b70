"""What a million entries cost, and whether that grows: from what drains did, and from the reviews before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from regworkers_core.adapters.aws.objects import MissingObject
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.reviews.history import Day, by_drain, by_week
from regworkers_core.operations.reviews.places import REPORT, report_key, reports
from regworkers_core.operations.reviews.plots import lines
from regworkers_core.operations.reviews.sections import Kind, Remark, Section, Table
from regworkers_core.operations.runbooks import cost as costs
from regworkers_core.operations.runbooks.drain_work import DrainWork
from regworkers_core.runtime import Runtime

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
