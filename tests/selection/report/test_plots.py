"""The plots of a draw's report can be read, whatever the campaign looks like."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from regworkers_core.reporting import figures
from regworkers_core.selection.report import plots
from regworkers_core.selection.report.build import build_report
from regworkers_core.selection.report.inputs import ReportContext
from tests.selection.report.world import OPENED, Fan, Seats, World, by_lot
from tests.support.figures import unreadable

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("pictures")]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that are drawn meanwhile."""
    made: list[Figure] = []

    def figure(rows: float, panels: int = 1) -> tuple[Figure, Any]:
        begun = figures.figure(rows, panels)
        made.append(begun[0])
        return begun

    monkeypatch.setattr(plots, "figure", figure)
    yield made


def crowd(count: int, seconds: float, markets: tuple[str, ...], seed: int = 1) -> list[Fan]:
    """Fans who register within this time."""
    chance = random.Random(seed)
    return [
        Fan(
            f"{chance.getrandbits(64):016x}",
            f"entry-{number:05d}",
            OPENED + timedelta(seconds=chance.random() * seconds),
            f"{chance.choice('abcd')}{'-'.join(['mail'] * 12)}.example",
            segments=("loyal",) if chance.random() < 0.3 else (),
            preferences=tuple(chance.sample(markets, min(len(markets), chance.randint(1, 3)))),
        )
        for number in range(count)
    ]


def problems(made: list[Figure]) -> list[str]:
    return [text for figure in made for text in unreadable(figure)]


@pytest.mark.parametrize("seconds", [0.5, 40.0, 14 * 86_400.0])
def test_labels_are_distinct_and_do_not_overlap_even_for_a_short_registration(
    tmp_path: Path, drawn: list[Figure], seconds: float
) -> None:
    markets = ("north", "east")
    world = World(
        tmp_path,
        crowd(900, seconds, markets),
        {"north": Seats(150, (("loyal", 30),)), "east": Seats(90)},
        by_lot(3),
        waitlist=100,
    )
    build_report(world.draw(), ReportContext(), memory_mib=200)
    assert len(drawn) >= 6
    assert problems(drawn) == []


def test_many_markets_of_long_and_equal_names_and_many_weights_can_be_read(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    markets = tuple(f"m{number:02d}" for number in range(34))
    fans = [
        replace(fan, weight=1 + number % 40, unit="") for number, fan in enumerate(crowd(1_500, 9e5, markets))
    ]
    world = World(tmp_path, fans, {market: Seats(12) for market in markets}, by_lot(3))
    names = dict.fromkeys(markets, "Waldbühne, an evening with everybody")
    build_report(world.draw(), ReportContext(market_names=names), memory_mib=200)
    assert problems(drawn) == []


def test_a_name_with_dollar_signs_is_shown_as_it_is_and_not_read_as_a_formula(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    name = "East $x^{$"
    fans = [
        replace(fan, segments=("loyal",), preferences=("east",) if at % 3 else ("west",))
        for at, fan in enumerate(crowd(90, 40.0, ("east",)))
    ]
    world = World(tmp_path, fans, {"east": Seats(9), "west": Seats(9)}, by_lot(3))
    build_report(world.draw(), ReportContext(market_names={"east": name}), memory_mib=200)
    assert sum(name.encode() in figures.svg(made) for made in drawn) == 2, "demand, and win rates"
    made = figures.stacked_columns(name, name, [name], {name: [1], "$a$": [2]})
    assert made.startswith(b"\x89PNG")


def test_equal_labels_are_numbered() -> None:
    assert figures.distinct(["north", "north", "east"]) == ["north (1)", "north (2)", "east"]
    assert figures.distinct(["a" * 40, "a" * 41], 5) == ["aaaa… (1)", "aaaa… (2)"]
