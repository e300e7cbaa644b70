"""Registrations hold whatever happens to the drain that logs them, and to the entries meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from regworkers_core.selection.registrations.freeze import Freezing
from tests.simulation.coverage import REGISTERED
from tests.simulation.faults import Fault
from tests.simulation.plan import Change, Plan, registering_plan
from tests.simulation.play import Outcome, Play, play
from tests.simulation.scheduler import Process

# Seeds. What is below is reached by few of them; the thirtieth play reaches most of it.
_FEW, _MANY = (*range(1, 9), 30), range(31, 101)
# What the few plays must have reached.
_REACHED = (
    *REGISTERED,
    "killed",
    "taken over",
    "leases_lost",
    "fault freeze",
)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("regworkers_core.engine.drain.log.info", lambda *_, **__: None, raising=False)
    return


def _hold(seeds: Iterable[int]) -> Counter[str]:
    reached: Counter[str] = Counter()
    for seed in seeds:
        outcome = play(registering_plan(seed))
        assert not outcome.broken, f"seed {seed}: {outcome.broken[:3]}"
        reached.update(outcome.reached)
    return reached


def test_each_live_entry_has_one_registration_whatever_happens() -> None:
    reached = _hold(_FEW)
    assert not [name for name in _REACHED if not reached[name]]


@pytest.mark.slow
def test_many_more_plays_of_registrations_hold() -> None:
    _hold(_MANY)


def _played(changes: list[Change], faults: list[Fault], order: int = 1) -> Counter[str]:
    outcome = play(Plan(1, False, changes, faults, order, registering=True))
    assert not outcome.broken, outcome.broken[:3]
    return outcome.reached


def test_an_entry_that_goes_and_comes_back_is_registered_again() -> None:
    gone_and_back = [Change(1.0, "put", 1), Change(8.0, "remove", 1), Change(16.0, "put", 1)]
    reached = _played(gone_and_back, [])
    assert (reached["registrations"], reached["notices"], reached["salts gone"]) == (3, 1, 1)


def test_an_erased_entry_leaves_a_leaf_that_says_nothing() -> None:
    reached = _played([Change(1.0, "put", 1), Change(12.0, "erase", 1)], [])
    assert (reached["registrations"], reached["notices"], reached["salts gone"]) == (2, 1, 1)


def test_two_that_believe_that_they_hold_a_campaign_register_each_entry_once() -> None:
    # Longer than the lease: the one that wakes up appends what the other one has appended.
    frozen = [Fault("freeze", at, "register", seconds=25.0) for at in (4.0, 9.0, 14.0)]
    changes = [Change(1.0 + number, "put", number) for number in range(1, 10)]
    # In this order the one that works is hit, and not the one that stands by.
    reached = _played(changes, frozen, order=10)
    assert reached["taken over"] and reached["registrations"] == 9 - 2


def test_a_manifest_that_takes_the_place_of_another_counts_the_list_that_the_log_has() -> None:
    made = Play(Plan(20, True, (), (), order=5))
    drawing = made.drawing
    assert drawing is not None

    def jump(process: Process) -> None:
        # The manifest is in the log in time, and its publication looks late.
        process.skew = 400.0

    def die(process: Process) -> None:
        # Until the next run comes, right before the round, the drain has a notice to append, and its size becomes due.
        drawing.pause = 635.0
        made.scheduler.kill(process)

    drawing.at_step = {"draw.after_leaf": jump, "draw.after_notice": die}
    outcome = made.run()
    assert not outcome.broken, outcome.broken[:3]
    assert outcome.reached["manifests replaced"] == 1
    assert outcome.reached["notices"]


def _set_back() -> Outcome:
    return play(Plan(30, True, (), [Fault("rewind", 9.0, seconds=6.0)], order=1))


def test_after_a_restore_of_the_replica_each_registration_counts_once() -> None:
    outcome = _set_back()
    assert not outcome.broken, outcome.broken[:3]
    assert outcome.reached["registrations lost"]


def test_a_freeze_that_keeps_lost_registrations_turns_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Freezing, "_withdraw_lost", lambda _self: 0)
    assert any("and no entry has it" in text for text in _set_back().broken)
