"""The tables of the page of benchmarks say what the records say."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import page
from benchmarks.figures import ratio
from benchmarks.page import Ratio, draws_table

CONDITIONS = {
    "commit": "0123abcd",
    "at": "2026-11-27 10:00 UTC",
    "cores": 2,
    "python": "3.11",
    "loadBefore": 0.1,
}


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


def test_the_table_of_draws_adds_the_steps_and_shows_how_they_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    def pool(factor: float) -> dict[str, Any]:
        seconds = {"leaves": 3.0, "merkle": 2.0, "draw": 1.5, "root": 0.5, "gate": 4.0, "bare": 1.0}
        steps = {name: {"seconds": {"median": each * factor}} for name, each in seconds.items()}
        return {**steps, "ofBare": {"median": 1.5}}

    pools = {"100-mixed": pool(1), "1000-mixed": pool(12), "1000-plain": pool(1)}
    monkeypatch.setattr(page, "newest", lambda: {"draw": record(pools=pools)})
    rows = [line.split(" | ")[1:] for line in draws_table().splitlines() if line.startswith("| ")][2:]
    assert rows == [
        ["3.0", "2.0", "1.5", "4.0", "10.5", "0.5", "1.0", "1.5 |"],
        ["36.0", "24.0", "18.0", "48.0", "126.0", "6.0", "12.0", "1.5 |"],
        ["12.0", "12.0", "12.0", "12.0", "12.0", "12.0", "12.0", " |"],
    ]
