"""The cycle: segment by segment, the oldest first, by several workers, and on from where a killed one stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.replication.reconcile import reconciliation
from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.reconciliation import ReconcileResult
from regworkers_core.replication.reconcile.segments import Segment, Segments
from tests.replication.reconcile.world import World, entry_key

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three entries a segment, and nine before a cycle stores its progress."""
    monkeypatch.setattr(reconciliation, "SEGMENT_ENTRIES", 3)
    monkeypatch.setattr(reconciliation, "GROUP_ENTRIES", 9)
    monkeypatch.setattr("regworkers_core.replication.reconcile.segments.GROUP_ENTRIES", 9)


def world_of(entries: int, campaign: str = "summer") -> World:
    world = World(read_seconds=0.0)
    for number in range(entries):
        world.settle(EntryKey(campaign, f"e{number:02}"))
    return world


def segments_of(world: World) -> Segments:
    return Segments(world.leases, lease_seconds=30, monotonic=world.clock, sleep=world.sleep)


def found(result: ReconcileResult) -> dict[Kind, int]:
    assert result.adds_up, result.as_dict()
    return {kind: number for kind, number in result.counts.items() if number}


def test_a_cycle_covers_every_campaign_in_segments_and_says_since_when() -> None:
    world = world_of(20)
    world.settle(EntryKey("winter", "e"))
    began = iso(world.now)
    result = world.reconcile(cycle=True)
    assert found(result) == {} and result.totals["matched"] == 21 and result.verified_as_of == began
    listed = [(each.campaign_id, each.first, each.end) for each in segments_of(world).listed()]
    assert listed[:2] == [("summer", "", "e03"), ("summer", "e03", "e06")]
    assert listed[-2:] == [("summer", "e18", None), ("winter", "", None)]


def test_a_cycle_repeats_nothing_that_is_verified_and_reports_all_of_it() -> None:
    world = world_of(10)
    del world.stored[EntryKey("summer", "e04")]
    assert found(world.reconcile(cycle=True)) == {Kind.MISSING: 1}
    del world.stored[EntryKey("summer", "e05")]
    world.advance(HOUR)
    again = world.reconcile(cycle=True)
    assert found(again) == {Kind.MISSING: 1} and not again.clean, "as it was found an hour before"
    world.advance(DAY)
    assert found(world.reconcile(cycle=True)) == {Kind.MISSING: 2}


class Killed(Exception):
    pass


def test_a_killed_cycle_goes_on_behind_what_it_had_verified() -> None:
    world = world_of(30)
    phases = iter(range(10))

    def kill(text: str) -> None:
        if text == "comparing both sides" and next(phases) == 2:
            raise Killed

    with pytest.raises(Killed):
        world.reconcile(cycle=True, on_phase=kill)
    verified = [each for each in segments_of(world).listed() if each.verified_at]
    assert len(verified) == 6, "two groups of three segments"
    read: list[int] = []
    result = world.reconcile(cycle=True, on_progress=read.append)
    assert read[-1] == 30 - 18 and result.totals["matched"] == 30 and result.clean


@pytest.mark.parametrize("stored", [0, 1, 2])
def test_a_kill_while_a_result_is_stored_never_verifies_what_was_not_compared(
    stored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, calls, verified = world_of(8), iter(range(9)), Segments.verified

    def kill(self: Segments, segment: Segment) -> None:
        if next(calls) == stored:
            raise Killed
        verified(self, segment)

    monkeypatch.setattr(Segments, "verified", kill)
    with pytest.raises(Killed):
        world.reconcile()
    for each in segments_of(world).listed():
        within = [key.entry_id for key in world.items if each.first <= key.entry_id < (each.end or "~")]
        assert not each.verified_at or each.numbers["matched"] == len(within)


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lambda world, key: world.stored.pop(key), Kind.MISSING),
        (lambda world, key: world.items.pop(key), Kind.ORPHANED),
        (lambda world, key: ordered(world, key, version=0), Kind.STALE),
        (lambda world, key: ordered(world, key, version=9), Kind.AHEAD),
        (lambda world, key: entombed(world, key), Kind.RESURRECTED),
        (lambda world, key: entombed(world, key, erased_at="2999"), Kind.ERASED),
        (lambda world, key: world.items.__setitem__(EntryKey("summer", "e\x1b"), {}), Kind.REJECTED),
    ],
    ids=["missing", "orphaned", "stale", "ahead", "resurrected", "erased", "rejected"],
)
def test_a_planted_difference_is_found_within_the_cycle_by_its_class(plant: Any, kind: Kind) -> None:
    world = world_of(20)
    world.reconcile(cycle=True)
    plant(world, EntryKey("summer", "e13"))
    world.advance(DAY)
    result = world.reconcile(cycle=True)
    assert found(result) == {kind: 1}
    (segment,) = [each for each in segments_of(world).listed() if each.numbers[kind.value]]
    assert segment.first <= result.samples[kind][0].partition(":")[2]


def ordered(world: World, key: EntryKey, version: int) -> None:
    stored = world.stored[key]
    order = stored.order._replace(version=version)
    world.stored[key] = replace(stored, order=order, custody=order.as_fields())


def entombed(world: World, key: EntryKey, erased_at: str | None = None) -> None:
    world.stored[key] = replace(world.stored[key], fields=None, deleted_at="2026", erased_at=erased_at)


def test_a_comparison_keeps_to_its_budget_of_read_units() -> None:
    world = world_of(20)
    began, budget = world.now, TokenBucket(0.5, clock=world.clock, sleep=world.sleep)
    assert world.reconcile(budget=budget).clean
    # Each entry of this table is a unit, and the first is free.
    assert world.now - began == pytest.approx((20 - 1) / 0.5)


def test_a_segment_that_has_grown_is_split_and_one_that_is_large_enough_is_not() -> None:
    world = world_of(6)
    world.reconcile(cycle=True)
    assert [each.first for each in segments_of(world).listed()] == ["", "e03"]
    world.settle(EntryKey("summer", "e031"))
    world.advance(DAY)
    world.reconcile(cycle=True)
    assert [each.first for each in segments_of(world).listed()] == ["", "e03"], "four are not yet too many"
    for number in range(4):
        world.settle(EntryKey("summer", f"e0{number}2"))
    for number in range(3):
        world.settle(EntryKey("summer", f"e03{number}5"))
    world.advance(DAY)
    result = world.reconcile(cycle=True)
    assert len(segments_of(world).listed()) == 4 and result.totals["matched"] == 14


def test_two_workers_never_have_the_same_segment() -> None:
    world = world_of(20)
    world.reconcile(cycle=True)
    world.advance(DAY)
    due = iso(world.now - HOUR)
    one, other = (segments_of(world).due(due) for _ in range(2))
    mine, yours = next(one), next(other)
    assert mine and yours and not {each.first for each in mine} & {each.first for each in yours}
    one.close()
    other.close()
    assert all(not row.owner for row in world.leases.rows("SEGMENTS")), "freed at the end"


def test_what_a_dead_worker_held_is_taken_over_after_its_lease_and_a_live_one_is_left_alone() -> None:
    world = world_of(4)
    world.reconcile(cycle=True)
    world.advance(DAY)
    dead = LeaseHolder(world.leases, "dead", lease_seconds=30, clock=world.clock)
    first = world.leases.rows("SEGMENTS")[0]
    lease = dead.take(first.key, first)
    assert lease is not None
    beats = iter(range(60))

    def beat() -> None:
        if next(beats, None) is not None:
            lease.renew()
            world.after(1.0, beat)

    world.after(1.0, beat)
    yesterday = iso(world.now - HOUR)
    assert (world.reconcile(cycle=True).verified_as_of or "") < yesterday, "left to the living"
    assert next(beats, None) is not None, "it lived through that"
    world.advance(60)
    assert (world.reconcile(cycle=True).verified_as_of or "") > yesterday, "taken from the dead"


def test_a_campaign_that_is_gone_on_both_sides_has_no_segments_any_more() -> None:
    world = world_of(1)
    world.reconcile(cycle=True)
    world.items.clear()
    world.stored.clear()
    world.settle(EntryKey("winter", "e"))
    assert world.reconcile().verified_as_of is not None
    assert [each.campaign_id for each in segments_of(world).listed()] == ["winter"]


def test_a_repair_leaves_what_it_could_not_heal_in_its_segment() -> None:
    world = World(read_seconds=0.0, deliver_sent_after=1.0)
    for number in range(2):
        world.settle(entry_key(number))
    del world.stored[entry_key(0)]
    ordered(world, entry_key(1), version=9)
    assert not world.reconcile(repair=True).clean
    assert found(world.reconcile(cycle=True)) == {Kind.AHEAD: 1}


def test_a_part_has_what_changed_since_on_either_side_and_is_no_verification() -> None:
    world = world_of(5)
    since = iso(world.now)
    world.advance(1.0)
    world.write(EntryKey("summer", "e01"), lag=None)
    world.write(EntryKey("summer", "e02"), lag=0.0)
    world.write(EntryKey("summer", "new"), lag=None)
    del world.stored[EntryKey("summer", "e03")]
    result = world.reconcile(since=since)
    assert found(result) == {Kind.STALE: 1, Kind.MISSING: 1} and result.totals["matched"] == 1
    assert result.verified_as_of is None and world.leases.rows("SEGMENTS") == []


def test_a_comparison_of_one_campaign_verifies_only_its_segments() -> None:
    world = world_of(2)
    world.settle(EntryKey("winter", "e"))
    world.reconcile(campaign_id="summer")
    assert [(each.campaign_id, bool(each.verified_at)) for each in segments_of(world).listed()] == [
        ("summer", True)
    ]


def test_a_row_under_the_longest_ids_fits_a_key() -> None:
    longest = Segment("c" * 2000, "e" * 2000)
    assert len(longest.key.sk) < 100 and longest.key != Segment("c" * 2000).key
