"""The lag in virtual time: what hand-overs and killed drains cost, and that the figures come from the seed alone."""

from __future__ import annotations

from tests.simulation.lag import Figures, Lag, Scenario

RATE = 20.0


def measured(**more: object) -> Figures:
    return Lag(Scenario("short", RATE, 40.0, **more), shards=2, seed=1).run()  # type: ignore[arg-type]


def test_a_hand_over_loses_nothing_and_delays_nothing() -> None:
    found = measured(hand_over=10.0).as_dict()
    assert found["entries"] > 600 and found["lost"] == 0
    assert found["p99"] <= 0.5 and found["worst"] <= 2.0


def test_killed_drains_cost_their_leases_and_lose_nothing() -> None:
    found = measured(kills=(10.0, 20.0)).as_dict()
    assert found["lost"] == 0
    assert 2.0 < found["worst"] <= 8.0


def test_an_idle_stream_is_read_within_the_limits_and_a_first_entry_arrives_within_a_second() -> None:
    found = Lag(Scenario("first", 0.2, 60.0, idle=600.0), shards=40, seed=1).run().as_dict()
    assert found["worst"] <= 1.5
    assert found["readsASecond"] <= 41.0 and found["refusedReads"] == 0


def test_the_same_seed_gives_the_same_figures() -> None:
    assert measured().as_dict() == measured().as_dict()
