"""A demand table that refuses some of the statements that clear flags, as a busy partition does."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.engine.queue import Outgoing, SendFailure
from tests.replication.save.world import World
from tests.support.entries import item, key

ENTRIES = 500
BUSY = "ProvisionedThroughputExceeded"


def burst() -> World:
    """One batch of entries that were registered at once: their flags lie in one partition."""
    world = World()
    keys = [key(f"e{number}") for number in range(ENTRIES)]
    world.items = {each: item(each) for each in keys}
    world.send(*(ReplicationItem(each, Op.UPSERT) for each in keys))
    return world


def busy(share: float, seed: int, code: str = BUSY) -> Callable[[], str | None]:
    chance = random.Random(seed)
    return lambda: code if chance.random() < share else None


def all_cleared(world: World) -> bool:
    return not any(each["needsReplication"] for each in world.items.values())


@pytest.mark.parametrize("share", [0.05, 0.2, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_entries_whose_flags_are_throttled_take_few_passes_and_hardly_an_event_more(
    share: float, seed: int
) -> None:
    random.seed(seed)
    world = burst()
    world.refuse = busy(share, seed)
    assert world.drain() <= 3
    assert all_cleared(world) and world.counts["cleared"] == ENTRIES
    assert ENTRIES <= len(world.events()) <= 1.05 * ENTRIES
    assert not world.dead.sent and not world.replication.redriven
    assert world.dynamodb.throttles >= share * ENTRIES * 0.7 and not world.dynamodb.breaker.is_open


def test_only_the_keys_whose_flags_are_left_come_again() -> None:
    world = burst()
    stubborn = {key("e7"), key("e480")}
    refused = iter([BUSY] * 30)
    plain = world._execute

    def execute(statement: object) -> dict[str, object]:
        named = statement["Parameters"][3]["S"]  # type: ignore[index]
        if any(named == each.sk for each in stubborn) and next(refused, None):
            return {"Error": {"Code": BUSY}}
        return plain(statement)  # type: ignore[arg-type]

    world._execute = execute  # type: ignore[method-assign,assignment]
    first = world.batch()
    assert first is not None and len(first.done) == 5 and not first.again
    assert first.counts["resent"] == 2 and first.counts["applied"] == ENTRIES - 2
    second = world.batch()
    assert second is not None and second.counts["received"] == second.counts["unchanged"] == 2
    assert all_cleared(world) and len(world.events()) == ENTRIES + 2


def test_a_table_that_takes_no_statement_at_all_opens_the_breaker_and_gives_everything_back() -> None:
    random.seed(1)
    world = burst()
    world.refuse = lambda: BUSY
    settlement = world.batch()
    assert settlement is not None and len(settlement.again) == 5 and not settlement.done
    assert world.dynamodb.breaker.is_open
    assert not world.dead.sent and world.replication.depth().total == 5
    world.refuse = lambda: None
    world.sleep(30)
    assert world.drain() <= 1 and all_cleared(world)


def test_keys_that_cannot_be_sent_again_come_again_for_themselves() -> None:
    world = burst()

    def change(step: str) -> None:
        if step == "save.after_event":
            world.items[key("e3")]["version"] = 2
            world.on_step = lambda _step: None

    refused = iter([1])

    def refuse(_index: int, _message: Outgoing) -> SendFailure | None:
        return SendFailure(0, "InternalError", False) if next(refused, None) else None

    world.on_step, world.replication.refuse = change, refuse
    first = world.batch()
    assert first is not None and first.counts["resent"] == 1 and len(first.done) == 5
    world.drain()
    document = world.document(key("e3"))
    assert document is not None and document["version"] == 2 and all_cleared(world)
