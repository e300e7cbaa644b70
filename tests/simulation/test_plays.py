"""Plays hold, are repeatable, and turn red when a safeguard is taken out of the product."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fairdraw.terms import CHAIN_FILE
from regworkers_core.selection.campaigns import amending
from regworkers_core.settings import PROJECT_ROOT
from tests.simulation.faults import Fault
from tests.simulation.lag import Figures, Lag, Scenario
from tests.simulation.plan import Change, Plan, plan
from tests.simulation.planted import DEFECTS, OF_ROUNDS, planted
from tests.simulation.play import Outcome, play
from tests.simulation.shrink import shrink
from tests.support.beacon import CHAIN_TEXT
from tools.write_tables import lease_reads, lease_writes

# A play takes nearly half a second of CPU. `make simulate` plays as many as you like.
_FIRST, _FEW, _MANY = 11, 10, 100
# Found within a second or two.
QUICK = ("acknowledged_before_the_write", "no_version_guard")
# All are found by the seventh, the rare ones from a seed on that finds them soon.
_MOST_PLAYS = 400
_FIRST_SEED = {"highest_checkpoint": 2_231, "no_fencing": 241}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # A line for each batch of each drain would cost half of the time.
    monkeypatch.setattr("regworkers_core.engine.drain.log.info", lambda *_, **__: None, raising=False)
    return


def _seeds(name: str) -> Iterator[int]:
    """Without draws, which cost most, but for what only they can find."""
    first = _FIRST_SEED.get(name, 1)
    return (seed for seed in range(first, first + _MOST_PLAYS) if _plays(name, seed))


def _plays(name: str, seed: int) -> bool:
    return plan(seed).passing if name in OF_ROUNDS else seed % 10 != 0


def _first_broken(name: str) -> Outcome | None:
    with planted(name):
        outcomes = (play(plan(seed)) for seed in _seeds(name))
        return next((outcome for outcome in outcomes if outcome.broken), None)


def _hold(plays: int, seed: int, environment: Mapping[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "tests.simulation", "--plays", str(plays), "--seed", str(seed)]
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_plays_hold_beside_a_running_instance_and_wait_for_their_own_beacon(tmp_path: Path) -> None:
    instance = tmp_path / "default"
    (instance / "beacon").mkdir(parents=True)
    (instance / "beacon" / CHAIN_FILE).write_text(CHAIN_TEXT)
    (instance / "state.json").write_text('{"beacon": "http://127.0.0.1:9"}')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REGWORKERS_")}
    assert any(plan(seed).beacon for seed in range(_FIRST, _FIRST + _FEW))
    _hold(_FEW, seed=_FIRST, environment=environment | {"REGWORKERS_LOCAL_DIR": str(tmp_path)})


@pytest.mark.slow
def test_many_more_plays_hold() -> None:
    _hold(_MANY, seed=_FIRST + _FEW)


def test_a_correction_that_acts_before_it_is_logged_turns_red(monkeypatch: pytest.MonkeyPatch) -> None:
    calm = Plan(30, True, (), (), order=1)
    assert not play(calm).broken
    monkeypatch.setattr(amending, "decide", lambda *_, **__: None)
    assert any("seats that the log does not have" in text for text in play(calm).broken)


def test_one_integer_is_one_play() -> None:
    first, second = play(plan(7)), play(plan(7))
    assert (first.steps, first.calls, first.reached) == (second.steps, second.calls, second.reached)
    assert first.steps != play(plan(8)).steps


def test_a_plan_is_the_same_from_its_file() -> None:
    drawn = plan(10)
    assert Plan.of_json(drawn.as_json()) == drawn
    assert drawn.drawing
    assert len(drawn.changes) >= 40
    assert len(drawn.faults) >= 5


def test_an_operator_learns_which_restored_states_cannot_be_saved() -> None:
    valid, refused = ("put", 1), ("invalid", 3)
    changes = [Change(1.0, *valid), Change(5.0, *refused), Change(14.0, *valid), Change(14.0, "put", 3)]
    # To what the table held at 12 s.
    outcome = play(Plan(1, False, changes, [Fault("restore", 22.0, seconds=12.0)], order=1))
    assert not outcome.broken
    assert outcome.reached["to correct"]


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_defect_turns_red(name: str) -> None:
    assert _first_broken(name) is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DEFECTS.keys() - set(QUICK)))
def test_every_planted_defect_turns_red(name: str) -> None:
    assert _first_broken(name) is not None


@pytest.mark.slow
def test_a_failure_is_shrunk_to_a_short_schedule() -> None:
    found = _first_broken("acknowledged_before_the_write")
    assert found is not None
    with planted("acknowledged_before_the_write"):
        short = shrink(found, play, seconds=60.0)
    assert short.broken
    assert len(short.plan.changes) + len(short.plan.faults) <= 6, str(short.plan)


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
