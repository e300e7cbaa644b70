"""The draw replayed in JavaScript gives what Python's gave, and names the file that was changed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regworkers_core.selection.maths.engine import Engine
from regworkers_core.selection.maths.files import ARTEFACTS, canonical_bytes, parse_canonical
from tests.selection.maths import draws
from tests.selection.maths.oracle import OracleLeaf
from tests.selection.site.node import Node


@st.composite
def two_phases(draw: st.DrawFn) -> tuple[list[OracleLeaf], draws.Terms, st.DataObject]:
    leaves = draw(draws.pools(most=40))
    wins = draw(st.integers(1, 3))
    waiting = draw(st.none() | st.integers(0, 8))
    first = draws.Terms(draw(draws.market_terms()), waitlist_size=waiting, wins_per_unit=wins)
    return leaves, first, draw(st.data())


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(two_phases())
def test_random_draws_with_a_top_up_are_replayed_byte_for_byte(
    node: Node, tmp_path_factory: pytest.TempPathFactory, drawn: tuple[list[OracleLeaf], draws.Terms, st.DataObject]
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

    found = node.call("replay", folder=str(root), phases=2)

    assert found["findings"] == []
    assert found["count"] == len(leaves)
    assert [each["resultHash"] for each in found["phases"]] == [each.result_hash for each in summaries]
    assert [each["outcomes"] for each in found["phases"]] == [dict(each.outcomes) for each in summaries]
