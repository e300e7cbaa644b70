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
from tests.fairdraw.maths import draws
from tests.fairdraw.maths.oracle import OracleLeaf
from tests.fairdraw.verifier.node import Node


@st.composite
def two_phases(draw: st.DrawFn) -> tuple[list[OracleLeaf], draws.Terms, st.DataObject]:
    leaves = draw(draws.pools(most=40))
    wins = draw(st.integers(1, 3))
    waiting = draw(st.none() | st.integers(0, 8))
    first = draws.Terms(draw(draws.market_terms()), waitlist_size=waiting, wins_per_unit=wins)
    return leaves, first, draw(st.data())


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(two_phases())
def test_random_draws_with_a_top_up_are_replayed_byte_for_byte(
    node: Node,
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[list[OracleLeaf], draws.Terms, st.DataObject],
) -> None:
    leaves, first, data = drawn
    root = tmp_path_factory.mktemp("draw")
    engine = Engine(root / "scratch", threads=1, memory_mib=256)
    one = draws.write_phase(root / "phase-1", leaves, first)
    draws.compute_phase(one, engine)
    struck = data.draw(st.sets(st.sampled_from([leaf[0] for leaf in leaves]))) if leaves else set()
    strikes = dict.fromkeys(sorted(struck), "BOT")
    more = data.draw(draws.market_terms(least=draws.taken_seats(one, strikes)))
    second = draws.Terms(more, strikes, None, first.wins_per_unit)
    two = draws.write_phase(root / "phase-2", leaves, second, previous=one)
    summaries = [draws.compute_phase(one, engine), draws.compute_phase(two, engine, one)]

    found = node.ask("replay", folder=str(root), phases=2)

    assert found["findings"] == []
    assert found["count"] == len(leaves)
    assert [each["resultHash"] for each in found["phases"]] == [each.result_hash for each in summaries]
    assert [each["outcomes"] for each in found["phases"]] == [dict(each.outcomes) for each in summaries]


@pytest.mark.parametrize("phase", [1, 2])
@pytest.mark.parametrize("name", ARTEFACTS)
def test_one_changed_byte_names_its_file(
    node: Node, revealed: Path, tmp_path: Path, phase: int, name: str
) -> None:
    path = tmp_path / "draw" / f"phase-{phase}" / name
    shutil.copytree(revealed, tmp_path / "draw", ignore=shutil.ignore_patterns("scratch"))
    data, rng = path.read_bytes(), random.Random(name)

    for at in rng.sample(range(len(data)), min(len(data), 12)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        found = node.ask("replay", folder=str(tmp_path / "draw"), phases=2)
        artefacts = {each["artefact"] for each in found["findings"]}
        assert not found["passed"]
        assert f"phase-{phase}/{name}" in artefacts, found["findings"]
        # Of manifest and summary of the last phase nothing says which one is at fault.
        assert artefacts <= {f"phase-{phase}/{name}", "phase-2/manifest.json", "phase-2/summary.json"}


def test_a_missing_file_is_named(node: Node, revealed: Path, tmp_path: Path) -> None:
    shutil.copytree(revealed, tmp_path / "draw", ignore=shutil.ignore_patterns("scratch"))
    (tmp_path / "draw" / "phase-2" / "result.txt").unlink()
    found = node.ask("replay", folder=str(tmp_path / "draw"), phases=2)
    assert found["findings"] == [{"artefact": "phase-2/result.txt", "message": "is missing"}]


def test_a_signature_that_was_not_checked_is_a_note(node: Node, beaconed: Path) -> None:
    found = node.ask("replay", folder=str(beaconed), phases=2)
    assert found["passed"]
    assert "the signature was not checked here" in found["notes"][0]


def test_one_unit_with_two_weights_is_refused(node: Node, tmp_path: Path) -> None:
    leaves: list[OracleLeaf] = [("r1", "u", 1, (), ("east",)), ("r2", "u", 2, (), ("east",))]
    draws.write_phase(tmp_path / "phase-1", leaves, draws.Terms([("east", 1, [])]))
    for name in ("summary.json", "result.txt", "cutoffs.json"):
        (tmp_path / "phase-1" / name).write_text(
            '{"manifestHash":"' + manifest_hash(tmp_path / "phase-1") + '"}'
        )
    found = node.ask("replay", folder=str(tmp_path), phases=1)
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
