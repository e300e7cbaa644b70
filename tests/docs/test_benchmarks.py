"""The tables of the page of benchmarks say what the records say."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.figures import ratio
from benchmarks.page import Ratio

CONDITIONS = {"commit": "0123abcd", "at": "2026-11-27 10:00 UTC", "loadBefore": 0.1}


def record(**figures: Any) -> dict[str, Any]:
    return {**CONDITIONS, "figures": figures}


@pytest.mark.parametrize(
    ("aim", "found", "shown"),
    [
        ({"most": 1.5}, 1.5, "**1.5**"),
        ({"most": 1.5}, 1.51, "**1.51**, missed"),
        ({"least": 0.8}, 0.8, "**0.8**"),
        ({"least": 0.8}, 0.79, "**0.79**, missed"),
        ({}, 7, "**7**"),
    ],
)
def test_a_figure_beyond_its_aim_is_called_missed(aim: dict[str, float], found: float, shown: str) -> None:
    row = Ratio("time", "draw", "pools.ofBare", **aim).row(record(pools={"ofBare": found}))
    assert row[2:] == [shown, "", "0123abcd, 2026-11-27", "0.1"]


def test_the_median_decides_and_the_spread_is_shown() -> None:
    rounds = {"median": 1.4, "low": 1.2, "high": 1.6}
    row = Ratio("time", "draw", "ofBare", most=1.5).row(record(ofBare=rounds))
    assert row[1:4] == ["at most 1.5", "**1.4**", "1.2 to 1.6"]


def test_a_suite_without_a_record_is_not_measured() -> None:
    assert Ratio("time", "draw", "ofBare", most=1.5).row(None)[:3] == ["time", "at most 1.5", "not measured"]


def test_a_ratio_is_of_what_was_measured_in_the_same_round() -> None:
    assert ratio([2, 8, 4], [1, 2, 4]) == {"median": 2.0, "low": 1.0, "high": 4.0}
