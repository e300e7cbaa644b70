"""The lag in virtual time: what hand-overs and killed drains cost, and that the figures come from the seed alone."""

from __future__ import annotations

import pytest

from tests.simulation.lag import Figures, Lag, Scenario
from tools.write_tables import lease_reads, lease_writes


def measured(**more: object) -> Figures:
    return Lag(Scenario("short", 20.0, 30.0, **more), shards=2, seed=1).run()  # type: ignore[arg-type]


def test_a_hand_over_loses_nothing_and_delays_nothing() -> None:
    found = measured(hand_over=10.0).as_dict()
    assert found["entries"] > 500 and found["lost"] == 0
    # Two hand-overs in half a minute: a sixth of the entries meet one.
    assert found["p50"] <= 0.3 and found["worst"] <= 2.0


def test_killed_drains_cost_their_leases_and_lose_nothing() -> None:
    found = measured(kills=(10.0, 20.0)).as_dict()
    assert found["lost"] == 0
    assert 2.0 < found["worst"] <= 8.0


def test_an_idle_stream_is_read_within_the_limits_and_a_first_entry_arrives_soon() -> None:
    found = Lag(Scenario("first", 1 / 20, 100.0, idle=20.0), shards=40, seed=1).run().as_dict()
    assert found["worst"] <= 2.0
    assert found["readsASecond"] <= 102.0 and found["refusedReads"] == 0
    # Two residents of `publish` are missing here: each writes once a second and reads twice.
    assert found["leaseWritesASecond"] == pytest.approx(lease_writes(0) - 2, rel=0.15)
    assert found["leaseReadUnitsASecond"] == pytest.approx(lease_reads(40) - 4, rel=0.15)


def test_the_same_seed_gives_the_same_figures() -> None:
    first, second = (Lag(Scenario("short", 20.0, 5.0), shards=2, seed=3).run() for _ in range(2))
    assert first.lags == second.lags and first.calls == second.calls
