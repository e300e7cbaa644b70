"""What a repair sends, what it leaves alone, and how it waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from regworkers_core.adapters.mongo.entry_documents import Stored
from regworkers_core.domain.entry import Entry, Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import Op
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.comparison import Range
from regworkers_core.replication.reconcile.reconciliation import ReconcileResult, RepairReport
from regworkers_core.replication.reconcile.repair import Orphans, limit_removals
from tests.replication.reconcile.world import OBJECTIVE, ReplicaSide, Replication, World, entry_key

KEY = entry_key(0)


def world_with(kind: Kind) -> World:
    """One entry that differs in this way for long enough."""
    world = World(deliver_sent_after=1.0)
    world.settle(KEY, version=2)
    order = world.order(KEY)
    if kind is Kind.MISSING:
        del world.stored[KEY]
    elif kind is Kind.STALE:
        lower = order._replace(version=1)
        world.stored[KEY] = replace(world.stored[KEY], order=lower)
    elif kind is Kind.ORPHANED:
        # A source without any entry of the campaign would be taken for the wrong one.
        world.settle(entry_key(1))
        world.remove(KEY, lag=None)
    elif kind is Kind.RESURRECTED:
        world.stored[KEY] = Stored(order, None, {}, "2026-01-01T00:00:00.000Z")
    elif kind is Kind.AHEAD:
        world.stored[KEY] = replace(world.stored[KEY], order=order._replace(version=3))
    elif kind is Kind.REJECTED:
        world.items[KEY] |= {"email": ""}
        del world.stored[KEY]
        world.refused[KEY] = {order}
    return world


def repaired(world: World) -> tuple[ReconcileResult, RepairReport]:
    result = world.reconcile(repair=True)
    assert result.repair is not None
    return result, result.repair


@pytest.mark.parametrize(
    "kind",
    [Kind.MISSING, Kind.STALE, Kind.ORPHANED, Kind.RESURRECTED],
)
def test_what_a_key_can_heal_is_sent_and_watched_until_it_agrees(kind: Kind) -> None:
    world = world_with(kind)
    before = dict(world.items)
    result, repair = repaired(world)
    assert result.counts[kind] == 1, "counts are what was found"
    assert repair.healed == repair.sent == 1 and result.clean
    assert not any(repair.remaining.values()) and repair.advice == ""
    assert world.items == before, "the demand table is never written"
    assert world.reconcile().clean


@pytest.mark.parametrize("kind", [Kind.AHEAD, Kind.REJECTED])
def test_what_no_key_can_heal_is_left_alone_and_explained(kind: Kind) -> None:
    world = world_with(kind)
    result, repair = repaired(world)
    assert world.sent == [] and repair.sent == 0
    assert not result.clean and repair.remaining[kind] == 1
    assert result.explanations[kind]


@pytest.mark.parametrize("kind", [Kind.MISSING, Kind.STALE, Kind.ORPHANED, Kind.AHEAD])
@pytest.mark.parametrize("cycle", [False, True])
def test_what_waits_for_the_end_of_a_pause_is_no_finding_and_is_not_sent(kind: Kind, cycle: bool) -> None:
    world = world_with(kind)
    lost = entry_key(2)
    world.settle(lost)
    del world.stored[lost]
    asked: list[Range] = []

    def parked(of: Range) -> Iterator[list[str]]:
        asked.append(of)
        yield [KEY.entry_id]
        yield ["unknown"]

    result = world.reconcile(repair=not cycle, cycle=cycle, parked=parked)
    is_parked = kind is not Kind.AHEAD
    assert (result.counts[Kind.PARKED], result.counts[Kind.AHEAD]) == (is_parked, not is_parked)
    assert result.counts[Kind.MISSING] == 1 and result.adds_up
    # The repair has healed what is lost.
    assert result.clean is (is_parked and not cycle)
    assert {each.key for each in world.sent} == (set() if cycle else {lost})
    assert {each.campaign_id for each in asked} == {"summer"}
    if result.repair and is_parked:
        world.advance(2 * OBJECTIVE)
        again = world.reconcile(parked=parked)
        assert again.clean and again.explanations.keys() == {Kind.PARKED}


def test_an_orphan_is_buried_under_the_order_that_is_stored() -> None:
    world = world_with(Kind.ORPHANED)
    order = world.order(KEY)
    _, repair = repaired(world)
    assert [(wish.op, wish.order) for wish in world.sent] == [(Op.REMOVE, order)]
    assert repair.removals == 1


def test_exactly_the_tombstone_in_the_way_is_deleted_and_then_the_key_is_sent() -> None:
    world = world_with(Kind.RESURRECTED)
    order = world.order(KEY)
    _, repair = repaired(world)
    assert world.deleted_tombstones == [(KEY, order)] and repair.tombstones_deleted == 1
    assert [(wish.op, wish.order) for wish in world.sent] == [(Op.REMOVE, order)]


@pytest.mark.parametrize(("visibility", "delay"), [(60, 120), (43_200, 900)])
def test_the_key_of_a_deleted_tombstone_goes_out_again_when_a_drain_that_was_held_up_has_lost_its_messages(
    visibility: int, delay: int
) -> None:
    world = world_with(Kind.RESURRECTED)
    assert world.reconcile(repair=True, visibility_seconds=visibility).clean
    assert world.sent_later == [(world.sent[0], delay)]
    missing = world_with(Kind.MISSING)
    assert missing.reconcile(repair=True).clean and missing.sent_later == []


def test_what_a_drain_writes_that_read_an_entry_before_it_was_removed_is_buried_by_the_second_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = world_with(Kind.RESURRECTED)
    tombstone = world.order(KEY)
    read = Entry.parse(KEY, world.items[KEY])
    delete = ReplicaSide.delete_tombstone

    def removed_meanwhile(side: ReplicaSide, key: EntryKey, order: Order) -> bool:
        # Its removal met the tombstone that was still there. The first key's message is lost with a purged queue.
        world.remove(KEY, lag=None)
        world.deliver_sent_after = None
        world.after(30.0, lambda: world.store(KEY, read.order, read.fields))
        return delete(side, key, order)

    monkeypatch.setattr(ReplicaSide, "delete_tombstone", removed_meanwhile)
    world.reconcile(repair=True)
    world.advance(30.0)
    assert world.stored[KEY].fields == read.fields, "a removed fan's entry is back"
    world.advance(2 * 60.0)
    assert world.stored[KEY].fields is None and world.order(KEY) == tombstone


def test_a_crash_right_after_a_tombstone_was_deleted_is_healed_by_the_key_that_was_queued_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = world_with(Kind.RESURRECTED)
    delete = ReplicaSide.delete_tombstone

    def killed(side: ReplicaSide, key: EntryKey, order: Order) -> bool:
        delete(side, key, order)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ReplicaSide, "delete_tombstone", killed)
        world.reconcile(repair=True)
    assert KEY not in world.stored and world.sent == []
    world.advance(2 * 60 + 1.0)
    assert world.reconcile().clean


def test_what_healed_since_it_was_found_is_not_sent() -> None:
    world = world_with(Kind.MISSING)
    sound = world_with(Kind.NOT_YET).stored[KEY]

    def heal(phase: str) -> None:
        if phase.startswith("repairing"):
            world.stored[KEY] = sound

    result = world.reconcile(repair=True, on_phase=heal)
    assert result.repair is not None
    assert world.sent == [] and result.clean and result.repair.healed == 1


def test_an_entry_that_was_removed_meanwhile_loses_no_tombstone() -> None:
    world = world_with(Kind.RESURRECTED)

    def remove(phase: str) -> None:
        if phase.startswith("repairing"):
            world.remove(KEY, lag=None)

    result = world.reconcile(repair=True, on_phase=remove)
    assert world.deleted_tombstones == [] and world.sent == [] and result.clean


def test_keys_are_sent_no_faster_than_the_rate() -> None:
    world = World(read_seconds=0.0, deliver_sent_after=0.0)
    for number in range(40):
        world.settle(entry_key(number))
    world.stored.clear()
    began = world.now
    result = world.reconcile(repair=True, rate=2.0)
    assert result.clean and len(world.sent) == 40
    # Two seconds' worth may go at once.
    assert world.now - began >= (40 - 2) / 2.0


def test_without_a_drain_the_wait_ends_and_says_what_must_run() -> None:
    world = world_with(Kind.MISSING)
    world.deliver_sent_after = None
    began = world.now
    result, repair = repaired(world)
    assert not result.clean and repair.remaining[Kind.MISSING] == 1
    assert "regworkers drain save" in repair.advice
    assert OBJECTIVE <= world.now - began <= 4 * OBJECTIVE


def test_a_drain_that_is_slow_but_moving_is_waited_for() -> None:
    world = World(read_seconds=0.0)
    keys = [entry_key(number) for number in range(5)]
    for key in keys:
        world.settle(key)
    sound = dict(world.stored)
    world.stored.clear()
    for number, key in enumerate(keys):
        # Each on its own is within the patience, all together are far beyond it.
        world.after(OBJECTIVE * 1.5 * (number + 1), lambda key=key: world.stored.update({key: sound[key]}))
    assert world.reconcile(repair=True).clean


def test_a_key_that_the_drain_refuses_after_all_ends_the_wait_as_rejected() -> None:
    world = world_with(Kind.MISSING)
    world.deliver_sent_after = None
    world.after(100.0, lambda: world.refused.update({KEY: {Order(**_order(world))}}))
    _, repair = repaired(world)
    assert repair.remaining[Kind.REJECTED] == 1 and repair.remaining[Kind.MISSING] == 0


def test_a_send_that_is_not_confirmed_ends_the_repair() -> None:
    world = world_with(Kind.MISSING)
    queue = Replication(world)
    queue.gate.down = True
    with pytest.raises(TransientFailure):
        world.reconcile(repair=True, queue=queue)


def orphaned(orphans: int, kept: int) -> World:
    """A number of entries that the source lost, and a number of that both sides have."""
    world = World(read_seconds=0.0, deliver_sent_after=0.0)
    for number in range(orphans + kept):
        world.settle(entry_key(number))
    for number in range(orphans):
        world.remove(entry_key(number), lag=None)
    return world


def live(world: World) -> int:
    return sum(stored.fields is not None for stored in world.stored.values())


def test_an_empty_source_removes_nothing_until_the_number_is_typed() -> None:
    world = orphaned(orphans=3, kept=0)
    result, repair = repaired(world)
    assert live(world) == 3 and world.sent == []
    assert not result.clean and (repair.withheld, repair.removals) == (3, 0)
    assert "the source holds no entry of summer" in repair.advice and "--yes-remove 3" in repair.advice
    assert "drain save" not in repair.advice
    assert not world.reconcile(repair=True, yes_remove=2).clean and live(world) == 3
    assert world.reconcile(repair=True, yes_remove=3).clean and live(world) == 0


def test_what_else_differs_is_repaired_while_removals_are_refused() -> None:
    world = orphaned(orphans=0, kept=1)
    del world.stored[entry_key(0)]
    elsewhere = EntryKey("winter", "e0")
    world.settle(elsewhere)
    world.remove(elsewhere, lag=None)
    _, repair = repaired(world)
    assert entry_key(0) in world.stored and world.stored[elsewhere].fields is not None
    assert (repair.healed, repair.withheld) == (1, 1) and "winter" in repair.advice


def test_a_source_that_empties_during_a_repair_costs_no_more_than_what_needs_no_confirmation() -> None:
    world = orphaned(orphans=0, kept=120)
    for number in range(120):
        world.stored[entry_key(number)] = replace(
            world.stored[entry_key(number)], order=world.order(entry_key(number))._replace(version=0)
        )

    def recreate(phase: str) -> None:
        if phase.startswith("repairing"):
            world.items.clear()

    result = world.reconcile(repair=True, on_phase=recreate)
    assert live(world) == 20 and result.repair is not None and result.repair.withheld == 20
    assert "while they were repaired" in result.repair.advice


CAMPAIGN = [Orphans("summer", 101, True)]


@pytest.mark.parametrize(
    ("orphans", "replica", "confirmed", "allowed"),
    [
        ([], 0, None, 100),
        ([Orphans("summer", 100, True)], 100, None, 100),
        (CAMPAIGN, 1009, None, 0),
        (CAMPAIGN, 1010, None, 101),
        (CAMPAIGN, 200, 100, 0),
        (CAMPAIGN, 200, 101, 101),
        ([Orphans("summer", 5, True)], 1000, 4, 0),
        ([Orphans("summer", 1, True), Orphans("winter", 1, False)], 10_000, None, 0),
        ([Orphans("winter", 1, False)], 10_000, 1, 1),
    ],
)
def test_removals_are_refused_beyond_a_share_and_a_number_or_without_a_source_unless_confirmed(
    orphans: list[Orphans], replica: int, confirmed: int | None, allowed: int
) -> None:
    judged = limit_removals(orphans, replica=replica, share=0.1, always=100, confirmed=confirmed)
    assert judged.allowed == allowed
    assert (judged.reason is None) == bool(allowed)


def _order(world: World) -> dict[str, object]:
    item = world.items[KEY]
    return {"created_at": item["createdAt"], "version": item["version"], "updated_at": item["updatedAt"]}
