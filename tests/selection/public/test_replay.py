"""The draw replayed in JavaScript gives what Python's gave, and names the file that was changed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairdraw.large.engine import Engine
from fairdraw.maths.files import ARTEFACTS, sha256_hex
from fairdraw.maths.leaves import unit_of
from tests.fairdraw.maths import draws, oracle
from tests.fairdraw.maths.oracle import OracleLeaf
from tests.fairdraw.proof.draws import CAMPAIGN, UNIT_KEY
from tests.fairdraw.verifier.node import Node


@st.composite
def first_phases(draw: st.DrawFn) -> tuple[list[OracleLeaf], draws.Terms, st.DataObject]:
    leaves = draw(draws.pools(most=40))
    wins = draw(st.integers(1, 3))
    waiting = draw(st.none() | st.integers(0, 8))
    first = draws.Terms(draw(draws.first_terms()), waitlist_size=waiting, wins_per_unit=wins)
    return leaves, first, draw(st.data())


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(first_phases())
def test_random_draws_with_two_top_ups_are_replayed_byte_for_byte(
    node: Node,
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[list[OracleLeaf], draws.Terms, st.DataObject],
) -> None:
    leaves, first, data = drawn
    root = tmp_path_factory.mktemp("draw")
    engine = Engine(root / "scratch", threads=1, memory_mib=256)
    folders = [draws.write_phase(root / "phase-1", leaves, first)]
    terms, strikes = [[*map(oracle.market_terms, first.markets)]], dict(first.strikes)
    summaries = [draws.compute_phase(folders[0], engine)]
    for number in (2, 3):
        won = {ref for ref, (market, _, _) in draws.outcomes_of(folders[-1]).items() if market}
        for ref in (
            sorted(data.draw(st.sets(st.sampled_from([leaf[0] for leaf in leaves])))) if leaves else ()
        ):
            reasons = ["BOT", *(["UNCLAIMED"] if ref in won else [])]
            strikes.setdefault(ref, data.draw(st.sampled_from(reasons)))
        terms.append(data.draw(draws.later_terms(terms, draws.taken_seats(folders[-1], strikes))))
        later = draws.Terms(terms[-1], dict(strikes), first.waitlist_size, first.wins_per_unit)
        folders.append(draws.write_phase(root / f"phase-{number}", leaves, later, previous=folders[-1]))
        summaries.append(draws.compute_phase(folders[-1], engine, folders[-2]))

    found = node.ask("replay", folder=str(root))

    assert found["findings"] == []
    assert found["count"] == len(leaves)
    assert [each["resultHash"] for each in found["phases"]] == [each.result_hash for each in summaries]
    assert [each["outcomes"] for each in found["phases"]] == [dict(each.outcomes) for each in summaries]


@pytest.mark.parametrize("phase", [1, 2])
@pytest.mark.parametrize("name", ARTEFACTS)
def test_one_changed_byte_names_its_file(
    node: Node, beaconed: Path, tmp_path: Path, phase: int, name: str
) -> None:
    path = tmp_path / "draw" / f"phase-{phase}" / name
    shutil.copytree(beaconed, tmp_path / "draw", ignore=shutil.ignore_patterns("scratch"))
    data, rng = path.read_bytes(), random.Random(name)

    for at in rng.sample(range(len(data)), min(len(data), 12)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        found = node.ask("replay", folder=str(tmp_path / "draw"))
        artefacts = {each["artefact"] for each in found["findings"]}
        assert found["verdict"] == "fails"
        assert f"phase-{phase}/{name}" in artefacts, found["findings"]
        # Of manifest and summary of the last phase nothing says which one is at fault.
        assert artefacts <= {f"phase-{phase}/{name}", "phase-2/manifest.json", "phase-2/summary.json"}


def test_a_missing_file_is_named(node: Node, beaconed: Path, tmp_path: Path) -> None:
    shutil.copytree(beaconed, tmp_path / "draw", ignore=shutil.ignore_patterns("scratch"))
    (tmp_path / "draw" / "phase-2" / "result.txt").unlink()
    found = node.ask("replay", folder=str(tmp_path / "draw"))
    assert found["findings"] == [{"artefact": "phase-2/result.txt", "message": "is missing"}]


def test_a_signature_that_was_not_checked_is_a_note(node: Node, beaconed: Path) -> None:
    found = node.ask("replay", folder=str(beaconed))
    assert found["verdict"] == "incomplete"
    assert "the signature was not checked here" in found["notes"][0]


def test_one_unit_with_two_weights_is_refused(node: Node, tmp_path: Path) -> None:
    unit = unit_of(UNIT_KEY, CAMPAIGN, "u")
    leaves: list[OracleLeaf] = [("r1", unit, 1, (), ("east",)), ("r2", unit, 2, (), ("east",))]
    draws.write_phase(tmp_path / "phase-1", leaves, draws.Terms([("east", 1, [])]))
    for name in ("summary.json", "result.txt", "cutoffs.json"):
        (tmp_path / "phase-1" / name).write_text(
            '{"manifestHash":"' + manifest_hash(tmp_path / "phase-1") + '"}'
        )
    found = node.ask("replay", folder=str(tmp_path))
    assert found["findings"] == [
        {"artefact": "phase-1/leaves.txt", "message": "line 2: one unit, several weights"}
    ]


def test_equal_heads_of_keys_are_decided_by_the_whole_keys(node: Node) -> None:
    keys = ["d", "a", "c", "b", "e"]
    # Two heads differ in one half only.
    high, low = [7, 7, 2**31, 7, 1], [5, 5, 0, 2**32 - 1, 9]
    expected = sorted(range(5), key=lambda number: (high[number], low[number], keys[number]))
    assert node.ask("sorted", high=high, low=low, keys=keys) == expected


def manifest_hash(phase: Path) -> str:
    return sha256_hex((phase / "manifest.json").read_bytes())
