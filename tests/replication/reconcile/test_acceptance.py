"""Where the replica is ahead: which entries the source may win in, and what stops it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from regworkers_core.domain.entry import Entry, Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import Op
from regworkers_core.replication.reconcile.acceptance import Accept, refusal
from regworkers_core.replication.reconcile.classify import Kind
from tests.replication.reconcile.world import World, entry_key


def ahead(entries: int, of: int, campaign_id: str = "summer", world: World | None = None) -> World:
    """A number of entries of a campaign are ahead, by two versions."""
    world = world or World(read_seconds=0.0, deliver_sent_after=0.5)
    for number in range(of):
        key = EntryKey(campaign_id, f"e{number}")
        world.settle(key, version=1)
        if number < entries:
            stored = world.stored[key]
            order = stored.order._replace(version=3)
            fields = {**(stored.fields or {}), "version": 3}
            world.stored[key] = replace(stored, order=order, fields=fields, custody=order.as_fields())
    return world


def versions(world: World) -> set[int]:
    return {stored.order.version for stored in world.stored.values()}


def test_the_source_wins_once_the_number_is_typed_and_not_before() -> None:
    world = ahead(1, of=5)
    before = world.stored[entry_key(0)]
    dry = world.reconcile(accept=Accept())
    assert dry.acceptance is not None and dry.repair is None
    assert [each.key for each in dry.acceptance.entries] == [entry_key(0)]
    assert "--accept-source 1" in dry.acceptance.advice and not dry.clean
    assert world.stored[entry_key(0)] == before and world.kept == {} and world.sent == []
    for typed in (0, 2):
        wrong = world.reconcile(repair=True, accept=Accept(typed))
        assert wrong.acceptance is not None and not wrong.clean
        assert f"1 entries are ahead, and {typed} were typed" in wrong.acceptance.advice
        assert world.stored[entry_key(0)] == before and world.kept == {}
    done = world.reconcile(repair=True, accept=Accept(1))
    assert done.clean and done.acceptance is not None and done.repair is not None
    assert (done.acceptance.accepted, done.acceptance.changed, done.repair.healed) == (1, 0, 1)
    assert "reconcile undo" in done.acceptance.advice
    assert world.kept == {(entry_key(0), before.order): before}
    assert [(wish.key, wish.op) for wish in world.sent] == [(entry_key(0), Op.UPSERT)]
    assert versions(world) == {1} and world.reconcile().clean


def test_a_repair_without_the_number_leaves_them_alone() -> None:
    world = ahead(1, of=1)
    result = world.reconcile(repair=True)
    assert result.acceptance is None and world.kept == {} and world.sent == []
    assert "--accept-source" in result.explanations[Kind.AHEAD]


@pytest.mark.parametrize("part", ["replica", "source", "removed", "refused", "content"])
def test_what_is_not_as_it_was_found_any_more_is_left_alone(part: str) -> None:
    world, key = ahead(1, of=3), entry_key(0)
    stored = world.stored[key]

    def change(phase: str) -> None:
        if not phase.startswith("letting"):
            return
        if part == "replica":
            order = stored.order._replace(version=4)
            world.stored[key] = replace(stored, order=order, custody=order.as_fields())
        elif part == "source":
            world.write(key, lag=None)
        elif part == "removed":
            world.remove(key, lag=None)
        elif part == "refused":
            world.refused[key] = {stored.order._replace(version=1)}
        elif stored.fields is not None:
            world.stored[key] = replace(stored, fields={**stored.fields, "firstName": "other"})

    result = world.reconcile(repair=True, accept=Accept(1), on_phase=change)
    assert result.acceptance is not None
    assert (result.acceptance.accepted, result.acceptance.changed) == (0, 1) and world.kept == {}
    assert "1 changed meanwhile" in result.acceptance.in_words


def test_a_source_that_is_set_back_and_removed_meanwhile_buries_the_entry_it_was_lowered_for() -> None:
    world, key = ahead(1, of=3), entry_key(0)

    def remove(phase: str) -> None:
        # After the lowering; its removal had met the higher order before and was refused.
        if phase.startswith("repairing"):
            world.remove(key, lag=None)

    result = world.reconcile(repair=True, accept=Accept(1), on_phase=remove)
    assert result.clean and world.stored[key].fields is None


def test_a_state_that_cannot_be_saved_is_not_accepted_nor_counted_but_named() -> None:
    world = ahead(2, of=400)
    world.items[entry_key(0)] |= {"email": ""}
    world.refused[entry_key(1)] = {world.order(entry_key(1))._replace(version=1)}
    result = world.reconcile(repair=True, accept=Accept(0))
    assert result.acceptance is not None
    assert (result.acceptance.found, result.acceptance.unsavable) == (0, 2)
    assert {entry_key(0).shown, entry_key(1).shown} == set(result.acceptance.to_correct)
    assert (
        f"such as {', '.join(result.acceptance.to_correct)}: correct them there first"
        in result.acceptance.in_words
    )
    assert result.counts[Kind.AHEAD] == 2 and world.kept == {} and world.sent == []


def test_many_entries_ahead_look_like_a_restored_table_and_need_a_word_more() -> None:
    world = ahead(3, of=200)
    refused = world.reconcile(repair=True, accept=Accept(3))
    assert refused.acceptance is not None
    for text in ("3 of 200 in summer", "restored from a backup", "After a restore", "--after-restore"):
        assert text in refused.acceptance.advice
    assert world.kept == {} and 3 in versions(world)
    assert world.reconcile(repair=True, accept=Accept(3, after_restore=True)).clean
    assert versions(world) == {1}


def test_one_campaign_that_looks_restored_stops_the_acceptance_of_all() -> None:
    world = ahead(2, of=10, campaign_id="winter", world=ahead(1, of=300))
    result = world.reconcile(repair=True, accept=Accept(3))
    assert result.acceptance is not None and "2 of 10 in winter" in result.acceptance.advice
    assert world.kept == {}


@pytest.mark.parametrize(
    ("found", "entries", "refused"),
    [
        ({}, {}, False),
        ({"summer": 1}, {"summer": 1}, False),
        ({"summer": 2}, {"summer": 199}, True),
        ({"summer": 2}, {"summer": 200}, False),
        ({"summer": 1, "winter": 1}, {"summer": 3, "winter": 3}, False),
        ({"summer": 100}, {"summer": 10_000}, False),
        ({"summer": 101}, {"summer": 1_000_000}, True),
        ({"summer": 51, "winter": 50}, {"summer": 1_000_000, "winter": 1_000_000}, True),
    ],
)
def test_more_than_a_share_of_a_campaign_or_than_a_hundred_is_refused(
    found: dict[str, int], entries: dict[str, int], refused: bool
) -> None:
    number = sum(found.values())
    assert ("restored" in refusal(found, entries, Accept(number))) is refused
    assert refusal(found, entries, Accept(number, after_restore=True)) == ""
    assert "were typed" in refusal(found, entries, Accept(number + 1, after_restore=True))


ORDERS = st.builds(
    Order,
    st.sampled_from([f"202{year}-01-01T00:00:00.000Z" for year in range(4)]),
    st.integers(1, 4),
    st.sampled_from([f"202{year}-06-01T00:00:00.000Z" for year in range(4)]),
)


@settings(max_examples=15)
@given(
    source=ORDERS,
    stored=ORDERS,
    held=st.lists(ORDERS, max_size=4),
    key_at=st.integers(0, 4),
    end=st.sampled_from(["stays", "removed"]),
)
def test_whenever_drains_that_were_held_up_write_the_source_s_state_is_what_stays(
    source: Order, stored: Order, held: list[Order], key_at: int, end: str
) -> None:
    """`held` are states that drains read before the acceptance and write after it, the source's key among them."""
    assume(source != stored)
    source, stored = sorted((source, stored))
    world, key = World(read_seconds=0.0, deliver_sent_after=None), entry_key(0)
    world.settle(key, **source.as_fields(), firstName="source")
    fields = {**Entry.parse(key, world.items[key]).fields, **stored.as_fields(), "firstName": "former"}
    world.stored[key] = replace(world.stored[key], order=stored, fields=fields, custody=stored.as_fields())
    # The key is held up, too, so nothing is waited for.
    result = world.reconcile(repair=True, accept=Accept(1), objective=0.01)
    assert result.acceptance is not None and result.acceptance.accepted == 1
    assert world.order(key) == source and world.stored[key].fields == fields, "readable as it was"
    (sent,) = world.sent
    older = [order for order in held if order < source]
    for number, order in enumerate([*older, None]):
        if number == min(key_at, len(older)):
            world.replicate(sent)
        if order is not None:
            world.store(key, order, {**fields, **order.as_fields(), "firstName": "held up"})
    if end == "removed":
        world.remove(key, lag=0.0)
        world.advance(1.0)
        assert world.stored[key].fields is None and world.order(key) == source
    else:
        assert world.stored[key].fields == Entry.parse(key, world.items[key]).fields
