"""Holders of a tree that die at each step, or are two: each registration is in the tree once, and nothing is lost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairdraw.maths.registration import NoticeKind
from regworkers_core.engine.stop import no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import opening
from regworkers_core.selection.registrations.appending import Appender
from regworkers_core.selection.registrations.tree import RegistrationLog
from tests.faults.story import take_events
from tests.selection.registrations.world import (
    CAMPAIGN,
    Died,
    Fans,
    Holder,
    check,
    dying_at,
    entries,
    opened,
    tree,
    with_log,
)

STEPS = (
    "registrations.after_salts",
    "registrations.after_bundle",
    "registrations.after_indexes",
    "registrations.after_events",
    "registrations.after_tiles",
    "registrations.after_checkpoint",
    "registrations.after_size",
    "registrations.after_sizes",
    "registrations.after_leaves",
)


@pytest.fixture
def world(runtime: Runtime) -> Runtime:
    mine = with_log(runtime)
    opened(mine)
    opening.log_open(mine)
    return mine


def with_clock(runtime: Runtime, skew: float) -> Runtime:
    """The same namespace for a process whose clock is `skew` seconds ahead."""
    return Runtime(runtime.settings, clock=lambda: runtime.clock() + skew)


def logged_events(runtime: Runtime) -> Counter[tuple[str, int]]:
    events = [each for each in take_events(runtime) if each["type"] == "entry.logged"]
    assert len({each["id"] for each in events}) == len(
        {(each["subject"], each["data"]["index"]) for each in events}
    )
    return Counter((each["data"]["entryId"], each["data"]["index"]) for each in events)


@pytest.mark.parametrize("step", STEPS)
def test_another_holder_goes_on_where_one_died(world: Runtime, step: str) -> None:
    fans = Fans(world)
    fans.save("stays", "moves", "leaves", "fades", unit="flat-7")
    if "size" not in step and "leaves" not in step:
        Holder(world).run()
    fans.save("moves", unit="flat-8")
    fans.remove("leaves")
    fans.erase("fades")
    fans.save("comes", "goes")
    with pytest.raises(Died):
        Holder(world, dying_at(step)).run()
    fans.remove("goes")
    Holder(world).run()
    check(world)
    events = logged_events(world)
    for registrant in entries(world):
        if registrant.registered is not None and registrant.registered.index is not None:
            assert events[registrant.key.entry_id, registrant.registered.index] >= 1


def test_an_entry_that_left_between_the_bundle_and_its_index_is_withdrawn(world: Runtime) -> None:
    fans = Fans(world)
    fans.save("e")
    with pytest.raises(Died):
        Holder(world, dying_at("registrations.after_bundle")).run()
    fans.remove("e")
    fans.save("e")
    Holder(world).run()
    made = check(world)
    first = made.at(0)
    assert first is not None and first.ended is NoticeKind.WITHDRAWN and made.size == 3
    assert [name for name, _ in logged_events(world)] == ["e"]


def test_a_unit_that_changed_twice_around_a_crash_ends_right(world: Runtime) -> None:
    fans = Fans(world)
    fans.save("e", unit="flat-7")
    Holder(world).run()
    for units in (("flat-8", "flat-9"), ("flat-8", "flat-9"), ("flat-7", "flat-9")):
        fans.save("e", unit=units[0])
        with pytest.raises(Died):
            Holder(world, dying_at("registrations.after_bundle")).run()
        fans.save("e", unit=units[1])
        Holder(world).run()
        check(world)


@pytest.mark.parametrize("step", STEPS[:6])
def test_a_holder_that_paused_while_another_went_on_appends_nothing_twice(world: Runtime, step: str) -> None:
    fans = Fans(world)
    fans.save("a", "b", "moves", unit="flat-7")
    Holder(world).run()
    fans.save("c", "d")
    fans.save("moves", unit="flat-8")
    fans.remove("b")
    slow = Holder(world)

    def pause(now: str) -> None:
        if now == step:
            slow.on_step = no_step
            Holder(world).run()
            fans.remove("c")
            fans.save("e", "b")
            Holder(world).run()

    slow.on_step = pause
    # It does not know that its leases are lost.
    slow.source.may_append = lambda: True  # type: ignore[method-assign]
    slow.run()
    Holder(world).run()
    made = check(world)
    assert (made.size, made.withdrawn) == (3 + 2 + 1 + 1 + 1 + 2, 2)
    assert len(logged_events(world)) == 7


CLOCKS = st.sampled_from((-3600.0, -400.0, -100.0, 0.0, 100.0, 400.0, 3600.0))
MOVES = st.one_of(
    st.tuples(st.just("save"), st.sampled_from("abc"), st.sampled_from([None, "flat-7", "flat-8"])),
    st.tuples(st.just("remove"), st.sampled_from("abc"), st.none()),
    st.tuples(st.just("erase"), st.sampled_from("abc"), st.none()),
    st.tuples(st.just("run"), st.just(""), st.none()),
    st.tuples(st.just("die"), st.sampled_from(STEPS), st.none()),
)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(MOVES, min_size=3, max_size=10), clocks=st.lists(CLOCKS, min_size=10, max_size=10))
def test_whatever_fans_do_and_clocks_say_and_wherever_a_holder_dies_the_tree_verifies(
    world: Runtime, moves: list[tuple[str, str, str | None]], clocks: list[float]
) -> None:
    fans = Fans(world)
    for (move, name, unit), skew in zip(moves, clocks, strict=False):
        fans.skew = skew
        if move == "save":
            fans.save(name, unit=unit)
        elif move == "remove":
            fans.remove(name)
        elif move == "erase":
            fans.erase(name)
        else:
            try:
                Holder(with_clock(world, skew), dying_at(name)).run()
            except Died:
                continue
    Holder(with_clock(world, clocks[-1])).run()
    check(world)


def test_an_entry_waits_until_it_is_in_the_tree(runtime: Runtime) -> None:
    mine = with_log(runtime, batch_entries=2)
    opened(mine)
    fans = Fans(mine)
    for number in range(4):
        fans.save(f"a{number}", f"b{number}")
        with pytest.raises(Died):
            Holder(mine, dying_at("registrations.after_salts")).run()
    Holder(mine).run()
    assert check(mine).size == 8
    assert tree(mine, CAMPAIGN).size == 8


@pytest.mark.parametrize("step", ["registrations.after_salts", "registrations.after_bundle"])
def test_after_a_restore_of_the_replica_no_leaf_is_appended_and_no_registration_ended_twice(
    world: Runtime, step: str
) -> None:
    fans = Fans(world)
    fans.save("leaves", "moves", "stays")
    Holder(world).run()
    fans.save("begun")
    with pytest.raises(Died):
        Holder(world, dying_at(step)).run()
    backup = list(world.database["entries"].find({}))
    fans.remove("leaves")
    fans.save("moves", unit="flat-8")
    Holder(world).run()
    size = check(world).size
    assert size == 4 + 2
    world.database["entries"].delete_many({})
    world.database["entries"].insert_many(backup)
    fans.remove("leaves")
    fans.save("moves", unit="flat-8")
    Holder(world).run()
    made = check(world)
    assert (made.size, made.withdrawn) == (size + 1, 1), "the unit again, and nothing else"


def test_leaves_without_an_index_are_looked_for_in_one_pass_over_the_tree(
    world: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    fans = Fans(world)
    for name in "abcd":
        fans.save(name)
        Holder(world).run()
    world.database["entries"].update_many({}, {"$unset": {"_registration.index": ""}})
    log, read = RegistrationLog.open(world, CAMPAIGN), Counter[str]()
    stored = log.files.read

    def counted(path: str) -> bytes | None:
        read[path] += 1
        return stored(path)

    monkeypatch.setattr(log.files, "read", counted)
    appender = Appender(world, log, b"")
    pages = world.registrations.of_campaign(CAMPAIGN, 1)
    found = [each for page in pages for each in appender.placed(page)]
    assert [each.registered and each.registered.index for each in found] == [0, 1, 2, 3]
    assert read == {f"bundles/{number}": 1 for number in range(4)}
    assert entries(world) == found
