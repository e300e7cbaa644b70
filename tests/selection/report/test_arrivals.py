"""Curves of arrival name no group of fewer than fifty entries, also not by the difference of two."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regworkers_core.reporting.figures import svg
from regworkers_core.selection.report.arrivals import ALL, Bin, bins, pooled_sizes
from regworkers_core.selection.report.build import measured
from regworkers_core.selection.report.inputs import LEAST_GROUP, ReportContext
from regworkers_core.selection.report.plots import ARRIVALS, plots
from tests.selection.report.world import OPENED, Seats, World, by_lot, fans

HOURS = st.dictionaries(
    st.integers(0, 40),
    st.dictionaries(st.sampled_from(["1", "2", "3", "7"]), st.integers(1, 120), min_size=1),
)


@given(HOURS)
def test_each_class_of_each_bin_has_none_or_enough_and_none_is_lost(counts: Any) -> None:
    found = bins(counts)
    total = sum(sum(each.values()) for each in counts.values())
    assert all(not n or n >= LEAST_GROUP for each in found for n in each.entries.values())
    assert sum(sum(each.entries.values()) for each in found) == (total if found else 0)
    ends = [(each.from_, each.hours) for each in found]
    assert ends == sorted(ends)


@given(HOURS)
def test_large_households_are_one_class_until_each_class_is_large_enough(counts: Any) -> None:
    totals: dict[str, int] = {}
    for classes in pooled_sizes(counts).values():
        for name, entries in classes.items():
            totals[name] = totals.get(name, 0) + entries
    assert sum(totals.values()) == sum(sum(each.values()) for each in counts.values())
    assert len(totals) <= 1 or min(totals.values()) >= LEAST_GROUP


def test_hours_with_too_few_are_joined_and_the_rest_goes_to_the_last_bin() -> None:
    hour = "2026-03-01T{:02}:00:00.000Z"
    first = int(OPENED.timestamp()) // 3600
    counts = {first: 60, first + 1: 20, first + 3: 40, first + 5: 10}
    assert bins({at: {ALL: n} for at, n in counts.items()}) == [
        Bin(hour.format(0), 1, {ALL: 60}),
        Bin(hour.format(1), 5, {ALL: 70}),
    ]
    assert bins({first: {ALL: 49}}) == [] == bins({})


@pytest.fixture
def world(tmp_path: Path) -> World:
    crowd = fans(400, random.Random(3), ["east", "north"], choices=1)
    night = [
        replace(fan, created=OPENED + timedelta(hours=3), voucher="unverified" if n < 300 else "caller")
        for n, fan in enumerate(crowd)
    ]
    return World(tmp_path / "1", night, {"east": Seats(9), "north": Seats(9)}, by_lot(1))


def test_ten_thousand_in_one_night_are_a_peak_that_the_page_shows(world: World, pictures: None) -> None:
    numbers = measured(world.draw(), ReportContext(), memory_mib=200).numbers
    arrivals = numbers["arrivals"]
    assert arrivals["all"] == [{"from": "2026-03-01T03:00:00.000Z", "hours": 1, "entries": {ALL: 400}}]
    listed = {name: each[0]["entries"]["true"] for name, each in arrivals["markets"].items()}
    assert sum(listed.values()) == 400
    assert arrivals["vouchedShares"] == {"caller": 0.25, "unverified": 0.75} and arrivals["undated"] == 0
    assert arrivals["vouchers"][0]["entries"] == {"caller": 100, "unverified": 300}
    drawn = plots(numbers, {"east": "East"}, svg)
    assert ARRIVALS.keys() <= drawn.keys() and b"East" in drawn["arrivals-markets"]


def test_entries_that_say_no_voucher_lower_the_shares_and_one_of_another_hides_no_curve(
    tmp_path: Path,
) -> None:
    crowd = fans(400, random.Random(3), ["east"], choices=1)
    vouchers = ["provider"] + ["caller"] * 339 + [None] * 60
    said = [replace(fan, voucher=each) for fan, each in zip(crowd, vouchers, strict=True)]
    made = World(tmp_path, said, {"east": Seats(9)}, by_lot(1))
    arrivals = measured(made.draw(), ReportContext(), memory_mib=200).numbers["arrivals"]
    assert arrivals["vouchedShares"] == {"caller": 339 / 400, "others": 61 / 400}
    assert arrivals["vouchers"] and {*arrivals["vouchers"][0]["entries"]} == {"caller", "others"}


def test_entries_without_a_time_are_counted_because_no_curve_has_them(world: World) -> None:
    files = world.draw()
    pool = pq.read_table(files.pool)
    place = pool.schema.get_field_index("created_at")
    for without, found in ((60, 60), (49, None), (pool.num_rows, None)):
        times = ["yesterday"] * without + pool["created_at"].to_pylist()[without:]
        pq.write_table(pool.set_column(place, "created_at", pa.array(times, pa.string())), files.pool)
        arrivals = measured(files, ReportContext(), memory_mib=200).numbers["arrivals"]
        assert (arrivals["undated"], bool(arrivals["all"])) == (found, without < pool.num_rows)


def test_a_pool_of_the_release_before_has_no_vouchers(world: World) -> None:
    files = world.draw()
    pq.write_table(pq.read_table(files.pool).drop_columns("vouched_by"), files.pool)
    arrivals = measured(files, ReportContext(), memory_mib=200).numbers["arrivals"]
    assert (arrivals["vouchers"], arrivals["vouchedShares"]) == ([], None) and arrivals["all"]
