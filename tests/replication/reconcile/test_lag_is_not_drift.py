"""The promise of reconcile: a replicator within its objective is never accused, a real difference is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.reconciliation import ReconcileResult
from tests.replication.reconcile.world import OBJECTIVE, World, entry_key

NUMBERS = range(2)


@dataclass(frozen=True)
class Change:
    """At `at` seconds into the reconcile; arrives `lag` seconds later."""

    at: float
    number: int
    what: str
    lag: float | None


CHANGES = st.lists(
    st.builds(
        Change,
        at=st.integers(-60, 240).map(float),
        number=st.sampled_from(NUMBERS),
        what=st.sampled_from(["write", "content", "remove"]),
        lag=st.sampled_from([0.0, 1.0, OBJECTIVE / 2, OBJECTIVE]),
    ),
    min_size=2,
    max_size=12,
)


def busy_world(changes: list[Change]) -> World:
    """Changes go on before, during and after the reads."""
    world = World()
    for number in NUMBERS[::2]:
        world.settle(entry_key(number))
    for change in changes:
        world.after(change.at + 100, action(world, change))
    world.advance(100)
    return world


def action(world: World, change: Change) -> Callable[[], None]:
    key = entry_key(change.number)

    def happen() -> None:
        before = world.items.get(key)
        if change.what == "remove":
            world.remove(key, lag=change.lag)
        elif change.what == "content" and before is not None:
            # Same order, other content: an operator's correction with the flag set by hand.
            order = {name: before[name] for name in ("createdAt", "version", "updatedAt")}
            world.write(key, lag=change.lag, firstName=f"at {world.now}", **order)
        else:
            world.write(key, lag=change.lag)

    return happen


def accusations(result: ReconcileResult) -> dict[Kind, int]:
    """The invariant: empty for a replicator within its objective."""
    assert result.adds_up, result.as_dict()
    return {kind: number for kind, number in result.counts.items() if number and kind is not Kind.NOT_YET}


@pytest.mark.slow
@settings(max_examples=80)
@given(CHANGES)
def test_lag_within_the_objective_is_never_called_drift(changes: list[Change]) -> None:
    assert accusations(busy_world(changes).reconcile()) == {}


def test_a_comparison_that_does_not_wait_is_caught_by_the_same_check() -> None:
    caught = busy_world([Change(-20, 0, "remove", OBJECTIVE), Change(-1, 1, "write", OBJECTIVE)])
    assert accusations(caught.reconcile(objective=0.001)), "the control must be able to accuse lag"


@pytest.mark.parametrize("what", ["write", "content", "remove"])
def test_a_change_that_is_never_replicated_is_found(what: str) -> None:
    world = World()
    world.settle(entry_key(0))
    action(world, Change(0, 0, what, None))()
    assert sum(accusations(world.reconcile()).values()) == 1
