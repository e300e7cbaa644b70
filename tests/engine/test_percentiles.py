"""Percentiles in constant memory against a sorted list."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from regworkers_core.engine.drain_report import Percentiles

SECONDS = st.lists(st.floats(-5, 1e6), min_size=1, max_size=200)
SMALLEST = 0.001
TOLERANCE = 1.02 + 1e-9


def filled(values: list[float]) -> Percentiles:
    made = Percentiles()
    for value in values:
        made.add(value)
    return made


@given(SECONDS, st.floats(0.1, 100))
def test_a_percentile_is_that_of_a_sorted_list_or_at_most_two_percent_above(
    values: list[float], percent: float
) -> None:
    exact = sorted(max(0.0, value) for value in values)[max(0, math.ceil(len(values) * percent / 100) - 1)]
    found = filled(values).at(percent)
    assert found is not None
    # Below a millisecond all are one.
    assert exact * (1 - 1e-9) <= found or exact <= SMALLEST
    assert found <= max(exact, SMALLEST) * TOLERANCE


@given(SECONDS)
def test_the_summary_grows_from_median_to_maximum(values: list[float]) -> None:
    summary = filled(values).summary()
    numbers = [summary[name] for name in ("p50", "p95", "p99", "max")]
    assert numbers == sorted(numbers, key=float)  # type: ignore[arg-type]
    assert summary["max"] == round(max(0.0, *values), 3)


def test_without_durations_there_is_no_percentile() -> None:
    assert Percentiles().summary() == {"p50": None, "p95": None, "p99": None, "max": None}


def test_a_day_of_lags_needs_a_few_hundred_buckets() -> None:
    made = filled([number * 0.001 for number in range(0, 86_400_000, 997)])
    assert len(made._buckets) < 1000


@given(SECONDS, st.integers(1, 4))
def test_many_equal_durations_at_once_are_what_each_of_them_would_be(values: list[float], times: int) -> None:
    at_once = Percentiles()
    at_once.add_all(values * times)
    assert at_once.summary() == filled(values * times).summary()
    assert at_once.count == len(values) * times


def test_longer_durations_are_counted_to_within_a_bucket() -> None:
    lags = Percentiles()
    lags.add_all([0.0, 59.0, 60.0, 60.0, 62.0, 3600.0])
    assert (lags.above(60.0), lags.above(10_000.0), lags.above(0.0)) == (2, 0, 5)


def test_what_came_later_has_its_own_maximum() -> None:
    made = filled([5.0])
    before = made.since(None)
    made.add(0.5)
    later = made.since(before).summary()["max"]
    assert later is not None and 0.5 <= later <= 0.5 * TOLERANCE
    made.add(7.0)
    assert made.since(before).summary()["max"] == 7.0
    assert made.since(made.since(None)).summary()["max"] is None
