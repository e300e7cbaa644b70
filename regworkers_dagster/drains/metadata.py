"""What a drain reports, as metadata that the UI plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from regworkers_core.drains.runner import DrainSpec
from regworkers_core.engine.drain import DrainReport

Metadata = dict[str, dg.MetadataValue]


def of_report(spec: DrainSpec[Any], report: DrainReport, calls: Mapping[str, int]) -> Metadata:
    """Counts of items by outcome, `lag_p50|p95|p99|max_seconds` (absent without a change of order), `seconds`,
    `items_per_second`, `calls_<dependency>` made by this drain, and how it `ended`.
    """
    # Some also when zero, so that a plot has a point for every drain.
    counts = {key: report.counts[key] for key in spec.outcomes}
    counts |= {key: count for key, count in report.counts.items() if count}
    numbers: dict[str, float] = {"seconds": round(report.seconds, 3)}
    if report.seconds:
        numbers["items_per_second"] = round(report.counts["received"] / report.seconds, 1)
    for percentile, seconds in report.lag.summary().items():
        if seconds is not None:
            numbers[f"lag_{percentile}_seconds"] = seconds
    metadata: Metadata = {"ended": dg.MetadataValue.text(report.ended)}
    if report.dependency is not None:
        metadata["away"] = dg.MetadataValue.text(report.dependency)
    metadata |= {key: dg.MetadataValue.int(count) for key, count in counts.items()}
    metadata |= {key: dg.MetadataValue.float(float(number)) for key, number in numbers.items()}
    metadata |= {f"calls_{key}": dg.MetadataValue.int(count) for key, count in sorted(calls.items()) if count}
    metadata["adds_up"] = dg.MetadataValue.bool(report.adds_up)
    return metadata


def in_words(report: DrainReport) -> str:
    """One line for the run's log."""
    parts = [f"{key} {count}" for key, count in sorted(report.counts.items()) if count]
    p95 = report.lag.summary()["p95"]
    if p95 is not None:
        parts.append(f"lag p95 {p95:.2f} s")
    return ", ".join(parts) or "nothing received"
