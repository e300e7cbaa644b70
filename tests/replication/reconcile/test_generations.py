"""The recheck: what waits, how long, and what becomes of it."""

from __future__ import annotations

from typing import Any

from regworkers_core.domain.entry import Order
from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.reconciliation import ReconcileResult
from tests.replication.reconcile.world import OBJECTIVE, World, entry_key

KEY = entry_key(0)


def found(result: ReconcileResult) -> dict[Kind, int]:
    assert result.adds_up, result.as_dict()
    return {kind: number for kind, number in result.counts.items() if number}


def world_without_reading_time() -> World:
    return World(read_seconds=0.0)


def test_an_old_entry_that_is_missing_needs_no_wait() -> None:
    world = World()
    world.settle(KEY)
    world.stored.clear()
    result = world.reconcile()
    assert found(result) == {Kind.MISSING: 1} and world.slept == [] and result.generations == 0


def test_a_young_difference_is_looked_at_again_after_the_objective_and_dropped_when_it_healed() -> None:
    world = world_without_reading_time()
    world.write(KEY, lag=OBJECTIVE)
    result = world.reconcile()
    assert found(result) == {} and result.clean
    assert world.slept == [OBJECTIVE] and result.generations == 1
    assert result.totals["matched"] == result.totals["replica"] == 1, "totals are as last read"


def test_an_entry_that_is_older_than_the_objective_at_the_second_look_needs_no_wait() -> None:
    world = World(read_seconds=OBJECTIVE)
    world.write(KEY, lag=None)
    result = world.reconcile()
    assert found(result) == {Kind.MISSING: 1} and world.slept == []


def test_an_entry_that_keeps_changing_is_not_yet_and_no_finding() -> None:
    world = World()

    def change() -> None:
        world.write(KEY, lag=OBJECTIVE)
        world.after(OBJECTIVE / 2, change)

    change()
    result = world.reconcile(generations=3)
    assert found(result) == {Kind.NOT_YET: 1} and result.clean and result.generations == 3
    assert len(world.slept) == 3


def test_an_entry_that_comes_to_rest_in_a_later_generation_is_judged_then() -> None:
    world = world_without_reading_time()
    world.write(KEY, lag=None)
    world.after(OBJECTIVE / 2, lambda: world.write(KEY, lag=None))
    result = world.reconcile()
    assert found(result) == {Kind.MISSING: 1} and result.generations == 2


def test_a_state_that_came_and_went_between_two_looks_is_not_taken_for_an_orphan() -> None:
    world = World()
    world.settle(KEY)
    world.remove(KEY, lag=None)

    def back_and_gone() -> None:
        world.write(KEY, lag=0.0)
        world.after(1.0, lambda: world.remove(KEY, lag=OBJECTIVE))

    world.after(OBJECTIVE - 1.0, back_and_gone)
    assert found(world.reconcile()) == {}


def test_other_content_under_the_same_order_waits_whatever_its_age() -> None:
    world = World()
    world.settle(KEY)
    before = world.items[KEY]
    world.write(KEY, lag=None, **{**before, "firstName": "corrected"})
    result = world.reconcile()
    assert found(result) == {Kind.STALE: 1} and result.generations == 1


def test_an_entry_without_any_time_is_judged_all_the_same() -> None:
    world = World()
    world.write(KEY, lag=None, createdAt=None, updatedAt=None, version=None)
    result = world.reconcile()
    assert found(result) == {Kind.MISSING: 1} and result.generations == 1


def test_an_entry_dated_in_the_future_is_judged_all_the_same() -> None:
    world = World()
    future: dict[str, Any] = {
        "createdAt": "2126-01-01T00:00:00.000Z",
        "updatedAt": "2126-01-01T00:00:00.000Z",
    }
    world.write(KEY, lag=None, **future)
    world.replicate(ReplicationItem(KEY, Op.UPSERT))
    world.remove(KEY, lag=None)
    assert found(world.reconcile()) == {Kind.ORPHANED: 1}


def test_a_dead_letter_counts_only_for_the_very_state_that_was_refused() -> None:
    for refused, kind in ((1, Kind.REJECTED), (2, Kind.MISSING)):
        world = World()
        world.settle(KEY, email=None)
        order = world.items[KEY]
        world.refused[KEY] = {Order(order["createdAt"], refused, order["updatedAt"])}
        assert found(world.reconcile()) == {kind: 1}


def test_progress_counts_every_entry_and_each_further_look() -> None:
    world, seen, phases = World(), [], []
    world.settle(entry_key(1))
    world.write(KEY, lag=None)
    world.reconcile(on_progress=seen.append, on_phase=phases.append)
    assert seen[-1] == 2 + 1 + 1 and seen == sorted(seen)
    assert phases[0] == "comparing both sides" and "1 may be on their way" in phases[-1]
