"""What no one foresaw: an item that raises lands alone, and a bug that meets all of them blows the fuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from regworkers_core.domain.messages import DeadLetter, ItemSubject
from regworkers_core.domain.reasons import ItemFailure, PermanentFailure, Reason, TransientFailure, UsageError
from regworkers_core.engine.defects import MOST_DEFECTS, WINDOW_ITEMS, Fuse, FuseBlown, bisect, defect_of
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.queue import Received
from tests.engine.message_world import World, items_of, message, reasons_of

SECRET = "zoe@example.com"


def names(number: int, start: int = 0) -> list[str]:
    return [f"i{index}" for index in range(start, start + number)]


def settle(world: World, *messages: Received) -> Settlement[Received]:
    with capture_logs():
        return world.settle(*messages)


# Halving


@settings(max_examples=100)
@given(st.integers(1, 60), st.sets(st.integers(0, 59), max_size=5))
def test_halves_find_every_unit_that_raises_and_do_all_others_in_order(number: int, bad: set[int]) -> None:
    calls = 0

    def do(units: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if bad & set(units):
            raise ValueError
        return list(units)

    found = bisect(range(number), do, lambda unit, _error: [-1 - unit])
    assert [each for part in found for each in part] == [
        -1 - unit if unit in bad else unit for unit in range(number)
    ]
    raising = len(bad & set(range(number)))
    assert calls <= 1 + raising * (2 * number.bit_length() + 2)


@pytest.mark.parametrize("error", [MemoryError, OSError, ImportError, UsageError, FuseBlown])
def test_what_can_be_no_items_fault_is_raised_at_once(error: type[Exception]) -> None:
    calls: list[Sequence[int]] = []

    def do(units: Sequence[int]) -> None:
        calls.append(units)
        raise error("of the machine's")

    with pytest.raises(error):
        bisect([1, 2], do, lambda _unit, _error: None)
    assert calls == [[1, 2]]


def test_a_defect_names_type_and_place_in_the_product_and_never_what_the_exception_says() -> None:
    try:
        PermanentFailure(Reason.DEFECT, "x").reason.value.index(SECRET)
    except ValueError as error:
        outside = defect_of(error)
    try:
        ItemSubject.entry(SECRET, None)  # type: ignore[arg-type]
    except AttributeError as error:
        inside = defect_of(error)
    assert outside.reason is Reason.DEFECT and outside.error.startswith("ValueError at test_defects.py:")
    assert inside.error.startswith("AttributeError at domain/messages.py:")
    assert SECRET not in outside.error + inside.error


# Messages


def test_an_item_that_raises_is_a_dead_letter_and_its_neighbours_are_done() -> None:
    world = World()
    world.handler.errors["b"] = ValueError(SECRET)
    settlement = settle(world, message("a", "b", number=1), message("c", number=2))
    assert [each.message_id for each in settlement.done] == ["m1", "m2"]
    assert (settlement.counts["applied"], settlement.counts["dead_lettered"]) == (2, 1)
    assert items_of(world.dead) == [["b"]] and reasons_of(world.dead) == ["DEFECT"]
    (dead_letter,) = world.history.dead_letters
    assert dead_letter.subject == ItemSubject("b", {"marketId": "b"})
    assert SECRET not in str(world.dead.sent) + str(dead_letter)


def test_one_item_of_five_hundred_is_found_in_a_few_calls() -> None:
    world = World()
    world.handler.errors["i333"] = ValueError()
    settle(world, *(message(*names(100, 100 * number), number=number) for number in range(5)))
    assert items_of(world.dead) == [["i333"]]
    assert world.handler.calls <= 3 + 2 * 10


def test_an_item_that_raised_once_and_not_again_is_done() -> None:
    world = World()
    handle, failures = world.handler.handle, [ValueError()] * 4

    def rarely(asked: Any) -> Any:
        if failures and any(each.item == "b" for each in asked):
            raise failures.pop()
        return handle(asked)

    world.handler.handle = rarely  # type: ignore[method-assign]
    settlement = settle(world, message(*"abcd"))
    assert settlement.counts["applied"] == 4 and not world.dead.sent


def test_a_refusal_that_is_raised_keeps_its_reason_and_what_may_pass_is_tried_again() -> None:
    world = World()
    world.handler.errors = {
        "b": PermanentFailure(Reason.INVALID_ENTRY, "no key"),
        "c": ItemFailure("maybe"),
    }
    settlement = settle(world, message(*"abcd"))
    assert reasons_of(world.dead) == ["INVALID_ENTRY"] and items_of(world.queue) == [["c"]]
    assert settlement.counts["applied"] == 2


def test_a_dependency_that_fails_for_a_half_keeps_all_messages() -> None:
    world = World()
    world.handler.errors = {"a": ValueError(), "d": TransientFailure("mongo", "unavailable")}
    settlement = settle(world, message(*"ab", number=1), message(*"cd", number=2))
    assert not settlement.done and settlement.counts["returned"] == 4 and not world.dead.sent


@pytest.mark.parametrize("error", [MemoryError(), OSError(), ImportError(), UsageError("refused")])
def test_the_machines_and_the_operators_faults_are_not_blamed_on_an_item(error: Exception) -> None:
    world = World()
    world.handler.errors["b"] = error
    with pytest.raises(type(error)):
        world.work([message("a", "b")])
    assert not world.dead.sent and world.handler.calls == 1


@pytest.mark.parametrize("method", ["parse", "key"])
def test_an_item_that_cannot_even_be_read_is_a_dead_letter_alone(method: str) -> None:
    world = World()
    well = getattr(world.handler, method)

    def raising(item: str, *kind: Any) -> Any:
        if item == "b":
            raise RecursionError(SECRET)
        return well(item, *kind)

    setattr(world.handler, method, raising)
    settlement = settle(world, message(*"abc"))
    assert items_of(world.dead) == [["b"]] and reasons_of(world.dead) == ["DEFECT"]
    assert settlement.counts["applied"] == 2


def test_a_dead_letter_needs_no_subject() -> None:
    world = World(b=PermanentFailure(Reason.INVALID_ENTRY, "x"))

    def raising(_item: str) -> ItemSubject:
        raise ValueError(SECRET)

    world.handler.subject = raising  # type: ignore[method-assign]
    settle(world, message("a", "b"))
    assert items_of(world.dead) == [["b"]] and world.history.dead_letters[0].subject is None


def test_a_history_that_cannot_hold_what_a_dead_letter_is_about_has_it_without() -> None:
    world = World(b=PermanentFailure(Reason.INVALID_ENTRY, "x"))
    record = world.history.record

    def strict(dead_letters: Sequence[DeadLetter], *, at: str, run_id: str) -> None:
        if any(dead_letter.subject for dead_letter in dead_letters):
            raise OverflowError(SECRET)
        record(dead_letters, at=at, run_id=run_id)

    world.history.record = strict  # type: ignore[method-assign]
    settle(world, message("a", "b"))
    assert items_of(world.dead) == [["b"]] and len(world.history.dead_letters) == 1


def test_an_item_that_can_be_read_and_not_be_written_is_a_dead_letter_as_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_deep(*_: object) -> bytes:
        raise TypeError("Recursion limit reached")

    monkeypatch.setattr("regworkers_core.engine.settling.encode", too_deep)
    world = World(b=PermanentFailure(Reason.INVALID_ENTRY, "x"), c=ItemFailure("maybe"))
    came = message(*"abc")
    settlement = settle(world, came)
    assert settlement.counts["dead_lettered"] == 2 and not world.queue.sent
    assert {dead_letter.body for dead_letter in world.dead.sent} == {came.body.encode()}


def test_a_body_that_lies_deeper_than_it_can_be_written_does_no_harm_to_its_neighbours() -> None:
    world = World()
    deep = '{"type":"selections.assign","version":1,"items":[' + "[" * 300 + "]" * 300 + "]}"
    settlement = settle(world, Received("m2", "r2", deep, {}, 1), message("a"))
    assert len(settlement.done) == 2 and settlement.counts["applied"] == 1
    (dead_letter,) = world.dead.sent
    assert b"[" * 300 + b"]" * 300 in dead_letter.body


# The fuse


def test_a_fuse_bears_a_number_of_defects_of_one_cause_among_its_last_items_and_not_one_more() -> None:
    one, other = PermanentFailure(Reason.DEFECT, "A at x:1"), PermanentFailure(Reason.DEFECT, "B at x:2")
    fuse = Fuse()
    for _ in range(MOST_DEFECTS):
        fuse.failed(one)
        fuse.failed(other)
    assert fuse.blown is None
    fuse.passed(WINDOW_ITEMS)
    for _ in range(MOST_DEFECTS):
        fuse.failed(one)
    fuse.passed(WINDOW_ITEMS - MOST_DEFECTS - 1)
    with pytest.raises(FuseBlown):
        fuse.failed(one)
    assert fuse.blown is one


def test_one_defect_in_twenty_items_never_blows_the_fuse() -> None:
    fuse = Fuse()
    for _ in range(1000):
        fuse.passed(WINDOW_ITEMS // MOST_DEFECTS - 1)
        fuse.failed(PermanentFailure(Reason.DEFECT, "A at x:1"))
    assert fuse.blown is None


@pytest.mark.parametrize("items", [1, 7, 100])
@pytest.mark.parametrize("where", ["handle", "parse"])
def test_a_bug_in_every_entry_makes_few_dead_letters_and_everything_else_goes_back(
    items: int, where: str
) -> None:
    world = World()

    def bug(_: object) -> Any:
        raise KeyError(SECRET)

    setattr(world.handler, where, bug)
    dead_letters = []
    for number in range(60):
        settlement = settle(
            world,
            message(*names(items, number), number=number),
            message(*names(items, 1000 + number), number=1000 + number),
        )
        dead_letters.append(settlement.counts["dead_lettered"])
        if settlement.blown is not None:
            assert not settlement.done, "what was found in this batch goes back, too"
            break
    assert sum(dead_letters) == len(world.dead.sent) <= MOST_DEFECTS
    assert settlement.blown is not None and settlement.blown.reason is Reason.DEFECT
    calls = world.handler.calls
    assert settle(world, message("z")).counts["returned"] == 1
    assert world.handler.calls == calls, "nothing is handled any more"
