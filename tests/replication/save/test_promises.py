"""Promises of a save that one wrong word would break, each with that word planted."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MAX_ITEMS, Op, ReplicationItem
from tests.replication.save.world import World
from tests.support.entries import item, key

ENTRIES = MAX_ITEMS + 30


def one_message_of_events_is_refused(permanent: bool) -> None:
    """The flags of its entries stay set, and the events are there after the next run."""
    world = World()
    keys = [key(f"e{number}") for number in range(ENTRIES)]
    world.items.update({each: item(each) for each in keys})
    world.send(*(ReplicationItem(each, Op.UPSERT) for each in keys))
    world.analytics.fail = {1: permanent}
    first = world.batch()
    assert first is not None and first.counts["applied"] == first.counts["cleared"] == MAX_ITEMS
    assert flagged(world) == keys[MAX_ITEMS:], "whose events were not confirmed"
    assert len(world.events()) == MAX_ITEMS
    world.drain()
    assert flagged(world) == [] and not world.dead.sent
    subjects = [event["subject"] for event in world.events()]
    assert sorted(subjects) == sorted(each.document_id for each in keys), "each once"


def flagged(world: World) -> list[EntryKey]:
    return [each for each, found in world.items.items() if found["needsReplication"]]


def of_several_removals_the_highest_order_makes_the_tombstone(versions: tuple[int, ...]) -> None:
    world = World()
    orders = [Order("2026-01-01T00:00:00.000Z", version, "") for version in versions]
    world.items[key("e1")] = item(key("e1"), version=2, createdAt=orders[0].created_at, updatedAt=None)
    world.send(ReplicationItem(key("e1"), Op.UPSERT))
    world.drain()
    del world.items[key("e1")]
    for order in orders:
        world.send(ReplicationItem(key("e1"), Op.REMOVE, order))
    settlement = world.batch()
    assert settlement is not None and settlement.counts["removed"] == 1
    document = world.document(key("e1"))
    assert document is not None and "deletedAt" in document and "email" not in document
    assert document["_replication"]["version"] == max(versions)


def test_an_entry_id_that_names_a_fan_is_saved_and_flagged() -> None:
    world = World()
    for name in ("jane.doe@mail.example", "+491701234567", "e1", "+49", "a@b"):
        world.put(key(name))
    world.drain()
    assert (world.counts["applied"], world.counts["personal_id"]) == (5, 2)


VERSIONS = [(2, 3, 1), (3, 1), (1, 3)]


@pytest.mark.parametrize("permanent", [False, True])
def test_an_event_that_is_not_confirmed_keeps_its_flag_and_comes_later(permanent: bool) -> None:
    one_message_of_events_is_refused(permanent)


@pytest.mark.parametrize("versions", VERSIONS)
def test_the_highest_of_several_removals_buries_the_entry(versions: tuple[int, ...]) -> None:
    of_several_removals_the_highest_order_makes_the_tombstone(versions)


FLAGS = 500


def burst() -> World:
    """One batch of entries that were registered at once: their flags lie in one partition."""
    world = World()
    keys = [key(f"e{number}") for number in range(FLAGS)]
    world.items.update({each: item(each) for each in keys})
    world.send(*(ReplicationItem(each, Op.UPSERT) for each in keys))
    return world


def busy(share: float, seed: int) -> Callable[[str], bool]:
    chance = random.Random(seed)
    return lambda _sk: chance.random() < share


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
    assert all_cleared(world) and world.counts["cleared"] == FLAGS
    assert FLAGS <= len(world.events()) <= 1.05 * FLAGS
    assert not world.dead.sent and not world.replication.redriven
    # A third of what the server refuses is refused for another reason.
    assert world.dynamodb.throttles >= share * FLAGS * 0.45 and not world.dynamodb.breaker.is_open


def test_only_the_keys_whose_flags_are_left_come_again() -> None:
    world = burst()
    refused = iter([True] * 30)
    world.refuse = lambda sk: sk in {key("e7").sk, key("e480").sk} and next(refused, False)
    first = world.batch()
    assert first is not None and len(first.done) == 5 and not first.again
    assert first.counts["resent"] == 2 and first.counts["applied"] == FLAGS - 2
    second = world.batch()
    assert second is not None and second.counts["received"] == second.counts["unchanged"] == 2
    assert all_cleared(world) and len(world.events()) == FLAGS + 2


def test_a_table_that_takes_no_statement_at_all_opens_the_breaker_and_gives_everything_back() -> None:
    random.seed(1)
    world = burst()
    world.refuse = lambda _sk: True
    settlement = world.batch()
    assert settlement is not None and len(settlement.again) == 5 and not settlement.done
    assert world.dynamodb.breaker.is_open
    assert not world.dead.sent and world.replication.depth().total == 5
    world.refuse = lambda _sk: False
    world.sleep(30)
    assert world.drain() <= 1 and all_cleared(world)


def test_keys_that_cannot_be_sent_again_come_again_for_themselves() -> None:
    world = burst()

    def change(step: str) -> None:
        if step == "save.after_event":
            world.items[key("e3")] |= {"version": 2}
            world.on_step = lambda _step: None

    world.on_step, world.replication.fail = change, {0: False}
    first = world.batch()
    assert first is not None and first.counts["resent"] == 1 and len(first.done) == 5
    world.drain()
    document = world.document(key("e3"))
    assert document is not None and document["version"] == 2 and all_cleared(world)
