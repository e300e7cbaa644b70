"""The leaves of entries on a real MongoDB: who has one, and what removing, erasing and restoring leave of it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from regworkers_core.adapters.mongo.entry_documents import Write
from regworkers_core.adapters.mongo.registrations import Change, Registered, Registrant, Registrations
from regworkers_core.adapters.mongo.superseded import Lowering
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.timestamps import iso
from regworkers_core.infrastructure.indexes import INDEXES
from regworkers_core.runtime import Runtime

pytestmark = pytest.mark.namespace("module")

_numbers = itertools.count(1)
_campaigns = itertools.count(1)


@pytest.fixture
def campaign() -> str:
    return f"campaign-{next(_campaigns)}"


def at(number: int) -> str:
    return f"2026-03-01T12:00:{number // 1000:02d}.{number % 1000:03d}Z"


def save(runtime: Runtime, key: EntryKey, saved_at: int, *, order: int = 1, live: bool = True) -> None:
    state = Order(at(order), order, at(order))
    fields = {
        "campaignId": key.campaign_id,
        "entryId": key.entry_id,
        "email": "a@example.com",
        "ref": f"ref-{key.entry_id}",
        "unit": "flat-7",
        **state.as_fields(),
    }
    write = Write(key, state, fields if live else None, f"m-{order}")
    runtime.replica.apply([write], at=at(saved_at), run_id="r")


def stored(runtime: Runtime, key: EntryKey) -> dict[str, Any]:
    return dict(runtime.database["entries"].find_one({"_id": key.document_id}) or {})


def saved(runtime: Runtime, campaign_id: str, limit: int = 100) -> list[Registrant]:
    return runtime.registrations.waiting(campaign_id, limit)


def entry(runtime: Runtime, key: EntryKey) -> Registrant:
    """It as it is stored."""
    (found,) = [each for each in saved(runtime, key.campaign_id) if each.key == key]
    return found


def leaf(number: int | None = None) -> Registered:
    number = next(_numbers) if number is None else number
    return Registered(f"{number:064x}", at(1), f"{number:032x}", "u-1")


def register(runtime: Runtime, key: EntryKey, index: int | None = 7) -> Registered:
    """Save an entry and give it a leaf at an index."""
    save(runtime, key, 1)
    ours = leaf()
    assert runtime.registrations.begin([Change(entry(runtime, key), ours)]) == {key}
    ours = replace(ours, index=index)
    if index is not None:
        runtime.registrations.place([Change(entry(runtime, key), ours)])
    return ours


def test_an_entry_that_was_saved_is_read_with_what_its_leaf_depends_on(
    runtime: Runtime, campaign: str
) -> None:
    key = EntryKey(campaign, "e")
    save(runtime, key, 5)
    (found,) = saved(runtime, campaign)
    assert found == Registrant(key, Order(at(1), 1, at(1)), at(5), "ref-e", "flat-7", False, None, None)
    ours = register(runtime, key)
    save(runtime, key, 6, order=2)
    (found,) = saved(runtime, campaign)
    assert (found.registered, found.replicated_at) == (ours, at(6)), "an update leaves its leaf alone"


def test_an_entry_waits_until_it_is_done_as_it_is_saved_whatever_the_clocks_say(
    runtime: Runtime, campaign: str
) -> None:
    times = [3, 1, 2, 2, 5]
    for number, moment in enumerate(times):
        save(runtime, EntryKey(campaign, f"e{number}"), moment)
    save(runtime, EntryKey(f"{campaign}-other", "e"), 1)
    done, waits = runtime.registrations.done, runtime.registrations.waits
    read = saved(runtime, campaign)
    assert sorted(each.key.entry_id for each in read) == [f"e{number}" for number in range(5)]
    assert len(saved(runtime, campaign, limit=2)) == 2
    # Since they were read: the next version of one, by a clock that is behind, and at the same time another is removed
    # and a third one gets other content.
    save(runtime, EntryKey(campaign, "e0"), 0, order=2)
    save(runtime, EntryKey(campaign, "e1"), 1, live=False)
    runtime.database["entries"].update_one(
        {"_id": f"{campaign}:e2"}, {"$set": {"_replication.messageId": "m-other"}}
    )
    done(read)
    assert sorted(each.key.entry_id for each in saved(runtime, campaign)) == ["e0", "e1", "e2"]
    done(saved(runtime, campaign))
    assert not saved(runtime, campaign) and not waits(campaign) and waits(f"{campaign}-other")


def test_an_update_a_removal_an_erasure_and_a_restore_make_it_wait_again(
    runtime: Runtime, campaign: str
) -> None:
    key = EntryKey(campaign, "e")
    save(runtime, key, 1)
    seen = runtime.replica.get([key])[key]
    lowering = Lowering(key, seen.custody, Order(at(0), 1, at(0)))
    runtime.superseded_entries.keep([lowering], acceptance="a", at=iso(runtime.clock()))
    (row,) = runtime.superseded_entries.page("a", campaign, "", 10)
    for change in (
        lambda: save(runtime, key, 1, order=2),
        lambda: runtime.superseded_entries.restore([(row, runtime.replica.get([key])[key].custody)]),
        lambda: save(runtime, key, 3, order=3, live=False),
        lambda: runtime.replica.erase(key, Order(), at=at(50), run_id="erase"),
    ):
        runtime.registrations.done(saved(runtime, campaign))
        assert not runtime.registrations.waits(campaign)
        change()
        assert runtime.registrations.waits(campaign)


def test_entries_are_read_by_id_too_tombstones_among_them(runtime: Runtime, campaign: str) -> None:
    for name in ("b", "a", "c"):
        save(runtime, EntryKey(campaign, name), 1)
    save(runtime, EntryKey(campaign, "b"), 2, order=2, live=False)
    save(runtime, EntryKey(f"{campaign};", "x"), 1)
    pages = list(runtime.registrations.of_campaign(campaign, 2))
    assert [[each.key.entry_id for each in page] for page in pages] == [["a", "b"], ["c"]]
    assert [each.is_removed for each in pages[0]] == [False, True]


class _Asked:
    """A collection that notes what it is asked."""

    def __init__(self, collection: Any) -> None:
        self._collection = collection
        self.queries: list[dict[str, Any]] = []

    def find(self, query: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        self.queries.append(query)
        return self._collection.find(query, *arguments, **options)

    def find_one(self, query: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        self.queries.append(query)
        return self._collection.find_one(query, *arguments, **options)


def test_what_waits_is_found_by_an_index(runtime: Runtime, campaign: str) -> None:
    save(runtime, EntryKey(campaign, "e"), 5)
    entries: Any = _Asked(runtime.database["entries"])
    asked = Registrations(entries, runtime.dependency("mongo"))
    assert asked.waiting(campaign, 10) and asked.waits(campaign)
    declared = {index.fields for index in INDEXES["entries"]}
    assert len(entries.queries) == 2 and {tuple(each) for each in entries.queries} <= declared


def test_an_entry_gets_one_leaf_for_ever(runtime: Runtime, campaign: str) -> None:
    key = EntryKey(campaign, "e")
    save(runtime, key, 1)
    (registrant,) = saved(runtime, campaign)
    first, second = leaf(), leaf()
    begin = runtime.registrations.begin
    assert begin([Change(registrant, first)]) == {key}
    assert begin([Change(registrant, second)]) == set()
    assert begin([Change(registrant, first)]) == {key}, "a call whose answer was lost is repeated"
    assert stored(runtime, key)["_registration"] == first.as_fields()
    assert set(first.as_fields()) == {"leaf", "at", "salt", "unit"}


@pytest.mark.parametrize("live", [True, False], ids=["updated", "removed"])
def test_an_entry_that_changed_since_it_was_read_gets_no_leaf_of_what_was(
    runtime: Runtime, campaign: str, live: bool
) -> None:
    key, other = EntryKey(campaign, "e"), EntryKey(campaign, "f")
    save(runtime, key, 1)
    save(runtime, other, 1)
    both = [Change(each, leaf()) for each in saved(runtime, campaign)]
    save(runtime, key, 2, order=2, live=live)
    assert runtime.registrations.begin(both) == {other}
    assert "_registration" not in stored(runtime, key)


def test_a_tombstone_keeps_leaf_and_index_and_nothing_that_leads_to_the_fan(
    runtime: Runtime, campaign: str
) -> None:
    key = EntryKey(campaign, "e")
    ours = register(runtime, key)
    save(runtime, key, 2, order=2, live=False)
    assert stored(runtime, key)["_registration"] == {"leaf": ours.leaf, "index": 7}
    save(runtime, key, 3, order=3)
    assert stored(runtime, key)["_registration"] == {"leaf": ours.leaf, "index": 7}, "nor its next life"
    early = EntryKey(campaign, "f")
    ours = register(runtime, early, index=None)
    save(runtime, early, 2, order=2, live=False)
    assert stored(runtime, early)["_registration"] == {"leaf": ours.leaf}


def test_a_removal_of_an_entry_without_a_leaf_leaves_no_field(runtime: Runtime, campaign: str) -> None:
    key = EntryKey(campaign, "e")
    save(runtime, key, 1)
    save(runtime, key, 2, order=2, live=False)
    never = EntryKey(campaign, "never")
    save(runtime, never, 2, live=False)
    assert "_registration" not in stored(runtime, key) and "_registration" not in stored(runtime, never)


def test_an_erasure_deletes_the_salt_also_one_that_came_while_it_ran(
    runtime: Runtime, campaign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, late = EntryKey(campaign, "e"), EntryKey(campaign, "late")
    ours = register(runtime, key)
    runtime.database["entries"].update_one(
        {"_id": key.document_id}, {"$set": {"_registration.note": "a@example.com"}}
    )
    runtime.replica.erase(key, Order(), at=at(50), run_id="erase")
    assert stored(runtime, key)["_registration"] == {"leaf": ours.leaf, "index": 7}
    save(runtime, late, 1)
    registrant = entry(runtime, late)
    read, theirs = type(runtime.replica)._first, leaf()

    def registered_meanwhile(*arguments: Any, **options: Any) -> Any:
        found = read(*arguments, **options)
        runtime.registrations.begin([Change(registrant, theirs)])
        return found

    with monkeypatch.context() as patched:
        patched.setattr(type(runtime.replica), "_first", registered_meanwhile)
        runtime.replica.erase(late, Order(), at=at(50), run_id="erase")
    assert stored(runtime, late)["_registration"] == {"leaf": theirs.leaf}
    other = EntryKey(campaign, "other")
    save(runtime, other, 1)
    runtime.database["entries"].update_one(
        {"_id": other.document_id}, {"$set": {"_registration": "a@example.com"}}
    )
    runtime.replica.erase(other, Order(), at=at(50), run_id="erase")
    assert "_registration" not in stored(runtime, other)


def test_a_registration_that_ended_is_forgotten_once_and_no_other(runtime: Runtime, campaign: str) -> None:
    key = EntryKey(campaign, "e")
    ours = register(runtime, key)
    read, note = entry(runtime, key), runtime.registrations.note
    note([Change(replace(read, registered=replace(ours, index=8)), None)])
    note([Change(replace(read, registered=replace(ours, leaf=leaf().leaf)), None)])
    assert stored(runtime, key)["_registration"] == ours.as_fields()
    note([Change(read, None)])
    assert "_registration" not in stored(runtime, key)
    again = register(runtime, key, index=9)
    note([Change(read, None)])
    assert stored(runtime, key)["_registration"] == again.as_fields()


@pytest.mark.parametrize("unit", ["u-2", None], ids=["another", "none"])
def test_the_leaf_of_another_unit_replaces_the_one_before(
    runtime: Runtime, campaign: str, unit: str | None
) -> None:
    key = EntryKey(campaign, "e")
    before = register(runtime, key)
    read, after = entry(runtime, key), replace(before, leaf=leaf().leaf, unit=unit)
    runtime.registrations.note([Change(read, after)])
    assert stored(runtime, key)["_registration"] == after.as_fields()
    runtime.registrations.note([Change(read, replace(before, unit="u-3"))])
    assert stored(runtime, key)["_registration"] == after.as_fields(), "a repeat changes nothing"


def test_a_removed_entry_gets_no_unit_back(runtime: Runtime, campaign: str) -> None:
    key = EntryKey(campaign, "e")
    before = register(runtime, key)
    read = entry(runtime, key)
    save(runtime, key, 2, order=2, live=False)
    runtime.registrations.note([Change(read, replace(before, leaf=leaf().leaf, unit="u-2"))])
    assert stored(runtime, key)["_registration"] == {"leaf": before.leaf, "index": 7}


def test_an_entry_that_was_removed_before_the_tree_had_its_leaf_is_placed_too(
    runtime: Runtime, campaign: str
) -> None:
    key = EntryKey(campaign, "e")
    ours = register(runtime, key, index=None)
    save(runtime, key, 2, order=2, live=False)
    place = runtime.registrations.place
    place([Change(entry(runtime, key), replace(ours, leaf=leaf().leaf, index=6))])
    place([Change(entry(runtime, key), replace(ours, index=7))])
    assert stored(runtime, key)["_registration"] == {"leaf": ours.leaf, "index": 7}


def test_no_repair_deletes_a_tombstone_before_its_notice(runtime: Runtime, campaign: str) -> None:
    key = EntryKey(campaign, "e")
    register(runtime, key)
    save(runtime, key, 2, order=2, live=False)
    removed = Order(at(2), 2, at(2))
    assert not runtime.replica.delete_tombstone(key, removed)
    runtime.registrations.note([Change(entry(runtime, key), None)])
    assert runtime.replica.delete_tombstone(key, removed)


def test_the_copy_of_a_superseded_version_has_no_salt_and_a_restore_leaves_the_leaf(
    runtime: Runtime, campaign: str
) -> None:
    key = EntryKey(campaign, "e")
    ours = register(runtime, key)
    seen = runtime.replica.get([key])[key]
    lowering = Lowering(key, seen.custody, Order(at(0), 1, at(0)))
    now = iso(runtime.clock())
    (kept,) = runtime.superseded_entries.keep([lowering], acceptance="a", at=now)
    assert kept == lowering
    (former,) = runtime.superseded_entries.of_entry(key)
    assert "_registration" not in former and former["ref"] == "ref-e"
    (row,) = runtime.superseded_entries.page("a", campaign, "", 10)
    runtime.superseded_entries.restore([(row, seen.custody)])
    assert stored(runtime, key)["_registration"] == ours.as_fields()


def test_what_another_writer_left_there_is_no_leaf_and_makes_room_for_one(
    runtime: Runtime, campaign: str
) -> None:
    key = EntryKey(campaign, "e")
    save(runtime, key, 1)
    runtime.database["entries"].update_one({"_id": key.document_id}, {"$set": {"_registration": {"x": 1}}})
    (registrant,) = saved(runtime, campaign)
    assert registrant.registered is None
    ours = leaf()
    assert runtime.registrations.begin([Change(registrant, ours)]) == {key}
    assert stored(runtime, key)["_registration"] == ours.as_fields()


def test_a_document_that_names_no_entry_is_left_out_and_waits_no_more(
    runtime: Runtime, campaign: str
) -> None:
    for number in range(3):
        runtime.database["entries"].insert_one(
            {"_id": f"{campaign}:e{number}", "campaignId": campaign, "entryId": "e1", "_toRegister": campaign}
        )
    # The first one alone, then those that are left.
    assert [each.key.entry_id for each in saved(runtime, campaign, limit=1)] == ["e1"]
    assert [each.key.entry_id for each in saved(runtime, campaign)] == ["e1"]
    runtime.registrations.done(saved(runtime, campaign))
    assert not runtime.registrations.waits(campaign)
