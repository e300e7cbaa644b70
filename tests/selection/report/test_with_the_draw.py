"""The report of what the draw's own maths decides: households, weights, reserves, strikes, a waiting list, a top-up."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from fairdraw.large.allocate import compute
from fairdraw.large.columns import write_leaves
from fairdraw.large.engine import Engine
from fairdraw.maths.files import canonical_bytes
from fairdraw.maths.manifest import Manifest, SeedFile
from fairdraw.maths.merkle import root_over
from regworkers_core.selection.report.build import measured
from regworkers_core.selection.report.inputs import ReportContext, ReportFiles
from regworkers_core.selection.report.notes import capacity_respected, win_rates_uniform
from tests.fairdraw.proof.draws import SIGNATURE
from tests.selection.report.world import Fan, Seats, World, by_lot, fans

MARKETS = {
    "east": Seats(60, (("access", 10), ("local", 20))),
    "north": Seats(80, (("local", 15),)),
    "south": Seats(50),
}


def crowd(count: int) -> list[Fan]:
    rng = random.Random(21)
    return [
        replace(
            fan,
            unit=f"home{n // 3}" if n < 150 else "",
            weight=rng.choice([1, 1, 1, 3]),
            segments=tuple(sorted(rng.sample(["access", "local"], rng.choice([0, 0, 1, 2])))),
        )
        for n, fan in enumerate(fans(count, rng, list(MARKETS), choices=2))
    ]


def phase(folder: Path, world: World, engine: Engine, previous: Path | None = None) -> None:
    """Write the artefacts of a phase and let the maths decide."""
    folder.mkdir(parents=True)
    write_leaves(world.folder / "pool.parquet", folder / "leaves.txt", engine=engine)
    strikes = "".join(f"{ref}|TEST\n" for ref in sorted(world.strikes)).encode()
    (folder / "strikes.txt").write_bytes(strikes)
    document: dict[str, Any] = {
        **world.manifest(),
        "strikesHash": hashlib.sha256(strikes).hexdigest(),
        "strikesRoot": root_over(strikes),
    }
    if previous is not None:
        hashes = {"manifestHash": "manifest.json", "resultHash": "result.txt"}
        document["previous"] = {
            key: hashlib.sha256((previous / name).read_bytes()).hexdigest() for key, name in hashes.items()
        }
        (folder / "seed.json").write_bytes((previous / "seed.json").read_bytes())
    (folder / "manifest.json").write_bytes(canonical_bytes(document))
    if previous is None:
        manifest = Manifest.parse(canonical_bytes(document))
        seed = SeedFile.of(manifest.hash, manifest.seed_source, SIGNATURE)
        (folder / "seed.json").write_bytes(seed.to_bytes())
    compute(folder, previous, folder, engine=engine)


def report_of(folder: Path, world: World) -> dict[str, Any]:
    pool, exclusions = (world.folder / f"{name}.parquet" for name in ("pool", "exclusions"))
    files = ReportFiles(folder, pool, exclusions, folder / "outcomes.parquet")
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
    world = World(tmp_path / "pool", members, MARKETS, by_lot(1), wins_per_unit=wins_per_unit, waitlist=200)
    world.strikes = frozenset(fan.ref for fan in members[::90])
    # Only the pool of it is used: the rest is the maths' own.
    world.draw()
    phase(tmp_path / "phase-1", world, engine)
    first = report_of(tmp_path / "phase-1", world)
    check_against(tmp_path / "phase-1", first)
    assert first["funnel"]["outcomes"]["WINNER"] == 190 and first["topUp"] is None
    assert len(first["weights"]) == 2

    more = {"east": Seats(70, (("local", 4),)), "north": Seats(95), "south": Seats(50)}
    winner = (
        (tmp_path / "phase-1" / "result.txt").read_text().split("|WINNER")[0].splitlines()[-1].split("|")[0]
    )
    second = replace(world, markets=more, strikes=world.strikes | {winner}, phase=2, waitlist=None)
    phase(tmp_path / "phase-2", second, engine, tmp_path / "phase-1")
    numbers = report_of(tmp_path / "phase-2", second)
    check_against(tmp_path / "phase-2", numbers)
    changes = numbers["topUp"]
    assert changes["keptWinners"] == 189 and changes["lostWinners"] == changes["struck"] == 1
    assert changes["newWinners"] == 26 and changes["moved"] == 0
