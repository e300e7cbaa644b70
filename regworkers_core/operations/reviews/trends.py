"""How the work of the drains changes from week to week: how long batches take, which errors come and grow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from regworkers_core.adapters.mongo.dead_letters import RecordedFailure, RecordedFailures
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.reviews.history import Day, by_drain
from regworkers_core.operations.reviews.plots import bars, lines
from regworkers_core.operations.reviews.sections import Remark, Section, Table, counted

_MOST_ROWS = 15
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


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _percent(rate: float | None) -> str | None:
    return None if rate is None else f"{100 * rate:.2f} %"
