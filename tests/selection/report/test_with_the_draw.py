"""The report of what the draw's own maths decides: households, weights, reserves, strikes, a waiting list, a top-up."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from fairdraw.large.allocate import compute
from fairdraw.large.engine import Engine
from fairdraw.maths.leaves import unit_of
from fairdraw.maths.manifest import Manifest, MarketTerms, ReserveTerms
from regworkers_core.selection.report.build import measured
from regworkers_core.selection.report.inputs import ReportContext, ReportFiles
from regworkers_core.selection.report.notes import capacity_respected, win_rates_uniform
from tests.fairdraw.maths.oracle import leaf_line
from tests.fairdraw.proof.draws import CAMPAIGN, UNIT_KEY, Terms, write_inputs
from tests.selection.report.world import Fan, Seats, World, by_lot, fans

FIRST = (
    MarketTerms(
        "east", 60, (ReserveTerms("access", 10), ReserveTerms("local", 20)), (ReserveTerms("local", 6),)
    ),
    MarketTerms("north", 80, (ReserveTerms("local", 15),)),
    MarketTerms("south", 50),
)


def crowd(count: int) -> list[Fan]:
    rng = random.Random(21)
    return [
        replace(
            fan,
            unit=unit_of(UNIT_KEY, CAMPAIGN, f"home{n // 3}") if n < 150 else "",
            weight=random.Random(n // 3).choice([1, 1, 1, 3]),
            segments=tuple(sorted(rng.sample(["access", "local"], rng.choice([0, 0, 1, 2])))),
        )
        for n, fan in enumerate(fans(count, rng, [market.market_id for market in FIRST], choices=2))
    ]


def phase(
    folder: Path, members: Sequence[Fan], terms: Terms, engine: Engine, previous: Path | None = None
) -> None:
    """Write the artefacts of a phase and let the maths decide."""
    leaves = [(fan.ref, fan.household, fan.weight, fan.segments, fan.preferences) for fan in members]
    write_inputs(folder, map(leaf_line, sorted(leaves)), terms, previous)
    compute(folder, previous, folder, engine=engine)


def report_of(folder: Path, pool: Path, *earlier: Path) -> dict[str, Any]:
    exclusions = pool.with_name("exclusions.parquet")
    files = ReportFiles(folder, pool, exclusions, folder / "outcomes.parquet", earlier)
    return measured(files, ReportContext(), memory_mib=200).numbers


def check_against(folder: Path, numbers: Mapping[str, Any]) -> None:
    """The report agrees with what the draw itself wrote down."""
    summary = orjson.loads((folder / "summary.json").read_bytes())
    cutoffs = orjson.loads((folder / "cutoffs.json").read_bytes())["markets"]
    assert numbers["funnel"]["addsUp"]
    assert {name: n for name, n in numbers["funnel"]["outcomes"].items() if n} == {
        name: n for name, n in summary["outcomes"].items() if n
    }
    for market in numbers["markets"]:
        counted = summary["markets"][market["marketId"]]
        assert (market["winners"], market["new"]) == (counted["winners"], counted["new"])
        assert market["new"] == market["admittedOpen"] + sum(r["admitted"] for r in market["reserves"])
        for reserve, cutoff in zip(market["reserves"], cutoffs[market["marketId"]]["reserves"], strict=True):
            # A cut-off says that the reserve is full.
            assert (reserve["admitted"] == reserve["seats"]) is (cutoff["cutoff"] is not None)
    manifest = Manifest.parse((folder / "manifest.json").read_bytes())
    assert capacity_respected(folder / "outcomes.parquet", manifest).passed
    assert win_rates_uniform(numbers).passed
    assert [note for note in numbers["notes"] if note["level"] == "finding"] == []


@pytest.mark.parametrize("wins_per_unit", [1, 2])
def test_the_report_agrees_with_the_draw_in_both_phases(tmp_path: Path, wins_per_unit: int) -> None:
    engine = Engine(scratch=tmp_path / "scratch", memory_mib=300)
    members = crowd(900)
    # Only the pool of it is used: the rest is the maths' own.
    pool = (
        World(tmp_path / "pool", members, dict.fromkeys(("east", "north", "south"), Seats(1)), by_lot(1))
        .draw()
        .pool
    )
    struck = {fan.ref: "BOT" for fan in members[::90]}
    one, two = tmp_path / "phase-1", tmp_path / "phase-2"
    phase(one, members, Terms(FIRST, struck, 200, wins_per_unit), engine)
    first = report_of(one, pool)
    check_against(one, first)
    assert first["funnel"]["outcomes"]["WINNER"] == 190 and first["topUp"] is None
    assert [row["group"] for row in first["weights"]] == ["1", "3"]
    assert [(row["group"], row["entries"]) for row in first["householdSizes"]] == [("1", 750), ("3", 150)]
    assert first["strikes"] == [{"phase": 1, "reason": "BOT", "winners": 0, "others": 10}]

    east = replace(FIRST[0], capacity=70, reserves=(ReserveTerms("local", 4),))
    more = (east, replace(FIRST[1], capacity=95, reserves=()), FIRST[2])
    lines = (one / "result.txt").read_text().splitlines()
    gone, late = [line.split("|")[0] for line in lines if line.endswith("WINNER")][-2:]
    phase(
        two, members, Terms(more, {**struck, gone: "BOT", late: "UNCLAIMED"}, 200, wins_per_unit), engine, one
    )
    numbers = report_of(two, pool, one)
    check_against(two, numbers)
    changes = numbers["topUp"]
    assert changes["keptWinners"] == 188 and changes["lostWinners"] == 2 and changes["struck"] == 1
    assert changes["newWinners"] == 27 and changes["moved"] == 0
    assert numbers["strikes"] == [
        *first["strikes"],
        {"phase": 2, "reason": "BOT", "winners": 1, "others": 0},
        {"phase": 2, "reason": "UNCLAIMED", "winners": 1, "others": 0},
    ]
    assert [row["phase"] for row in numbers["reserves"]] == [1, 1, 1, 2]
    assert numbers["reserves"][:3] == first["reserves"], (
        "what an earlier phase admitted follows from its files"
    )
    assert {"segment": "local", "seats": 4, "declared": 6, "used": 4}.items() <= numbers["reserves"][
        -1
    ].items()
