"""However drains crash, pause and overtake each other: the replica becomes the source, and each state has its event."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regworkers_core.adapters.aws import sqs
from regworkers_core.domain.entry import Entry, Order, lenient_order
from regworkers_core.domain.events import EventType, event_id
from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.domain.reasons import Reason, TransientFailure
from regworkers_core.engine.queue import Outgoing
from tests.replication.save.world import VISIBILITY_SECONDS, Crash, World
from tests.support.entries import item, key

E1 = key("e1")


@pytest.fixture
def world() -> World:
    return World()


def reported(world: World) -> list[str]:
    return [event["type"] for event in world.events()]


def at(world: World, step: str, action: Callable[[], object]) -> None:
    """Once, when the next drain comes to this step."""

    def on_step(name: str) -> None:
        if name == step:
            world.on_step = lambda _step: None
            action()

    world.on_step = on_step


def after_the_read(world: World, action: Callable[[], object]) -> None:
    """Once, between a drain's read and its write."""

    def on_read() -> None:
        world.on_read = lambda: None
        action()

    world.on_read = on_read


# A crash between write and event


@pytest.mark.parametrize("flag", [True, False], ids=["with the flag", "without it"])
@pytest.mark.parametrize(
    "step", ["save.after_write", "save.after_event", "save.after_clear", "save.before_delete"]
)
def test_an_entry_has_its_event_whatever_step_its_drain_died_at(world: World, flag: bool, step: str) -> None:
    world.put(E1, flag=flag)
    world.dies(step)
    world.drain()
    assert set(reported(world)) == {"entry.replicated"}
    assert len({event["id"] for event in world.events()}) == 1


def test_another_message_for_a_saved_entry_makes_no_event_of_its_own(world: World) -> None:
    world.put(E1, flag=False)
    world.drain()
    world.send(ReplicationItem(E1, Op.UPSERT))
    world.drain()
    assert reported(world) == ["entry.replicated"] and world.counts["unchanged"] == 1


def test_the_message_that_wrote_is_known_among_others_for_the_same_key(world: World) -> None:
    world.put(E1, flag=False)
    world.send(ReplicationItem(E1, Op.UPSERT))
    world.dies("save.after_write")
    world.sleep(VISIBILITY_SECONDS)
    world.replication.show()
    # This time the other one comes first.
    ready = world.replication.stored.ready
    ready[next(iter(ready))] = ready.pop(next(iter(ready)))
    world.drain()
    assert reported(world) == ["entry.replicated"]


@pytest.mark.parametrize("permanent", [False, True])
def test_an_event_that_was_refused_comes_although_its_key_goes_on_in_another_message(
    world: World, permanent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [key("e1"), key("e2")]
    for each in keys:
        world.put(each, flag=False)
    world.replication.clear()
    world.send(*(ReplicationItem(each, Op.UPSERT) for each in keys))
    # One event a message.
    monkeypatch.setattr(sqs, "chunks", lambda events: [[event] for event in events])
    world.analytics.fail = {0: permanent}
    first = world.batch()
    assert first is not None and first.counts["resent"] == 1 and first.counts["applied"] == 1
    world.drain()
    assert sorted(event["subject"] for event in world.events()) == ["summer:e1", "summer:e2"]


# A writer whose clock is behind


def test_an_entry_that_was_created_again_by_a_clock_behind_leaves_no_data_once_it_is_removed(
    world: World,
) -> None:
    world.put(E1, createdAt="2026-01-01T00:00:02.000Z")
    world.drain()
    world.remove(E1)
    world.replication.clear()
    world.put(E1, createdAt="2026-01-01T00:00:01.000Z")
    world.remove(E1)
    world.drain()
    document = world.document(E1)
    assert document is not None and "deletedAt" in document and "email" not in document
    assert world.counts["removed_again"] == 1 and reported(world)[-1] == "entry.removed"


def test_a_stale_removal_whose_follow_up_is_not_confirmed_stays_on_the_queue(world: World) -> None:
    world.put(E1, createdAt="2026-01-01T00:00:02.000Z")
    world.drain()
    del world.items[E1]
    world.send(ReplicationItem(E1, Op.REMOVE, Order("2026-01-01T00:00:01.000Z", 1, "")))
    world.replication.fail = {0: False}
    world.drain()
    document = world.document(E1)
    assert document is not None and "deletedAt" in document


def test_a_second_late_removal_behind_a_tombstone_sends_nothing(world: World) -> None:
    world.put(E1, createdAt="2026-01-01T00:00:02.000Z")
    world.drain()
    world.remove(E1)
    world.send(ReplicationItem(E1, Op.REMOVE, Order("2026-01-01T00:00:01.000Z", 1, "")))
    world.drain()
    assert not world.counts["removed_again"]


# A drain whose message came to another one, which its clock did not show


def another_saves_without_an_event(world: World, change: Callable[[], object]) -> None:
    """The change of a state without a flag, saved by a drain that received all messages and died."""
    change()
    world.replication.show()
    world.dies("save.after_write")


@pytest.mark.parametrize("read", ["stale", "gone", "removed"])
@pytest.mark.parametrize("others", [0, 2], ids=["alone", "beside others"])
def test_a_state_behind_one_that_the_same_message_wrote_is_read_again(
    world: World, read: str, others: int
) -> None:
    first = world.put(E1)
    world.replication.clear()
    keys = [E1, *(key(f"other{number}") for number in range(others))]
    for each in keys[1:]:
        world.items[each] = item(each)
    op = Op.REMOVE if read == "removed" else Op.UPSERT
    world.send(*(ReplicationItem(each, op, lenient_order(first)) for each in keys))
    if read != "stale":
        del world.items[E1]

    def change() -> None:
        world.put(E1, **{**first, "version": 2, "needsReplication": False})

    after_the_read(world, lambda: another_saves_without_an_event(world, change))
    settlement = world.batch()
    assert settlement is not None
    assert settlement.counts["resent" if others else "returned"] == 1
    world.sleep(VISIBILITY_SECONDS)
    world.drain()
    sent = {event["id"] for event in world.events()}
    assert _event(world.items[E1], EventType.ENTRY_REPLICATED) in sent
    assert not world.dead.sent


def test_a_stale_state_of_a_source_that_stays_as_it_was_is_done(world: World) -> None:
    first = world.put(E1)
    world.dies("save.after_write")
    # Restored to a state before.
    world.items[E1] = {**first, "version": 0}
    world.sleep(VISIBILITY_SECONDS)
    world.drain()
    assert world.counts["stale"] == 1 and not world.replication.depth().total


# A drain that was paused between its read and its write


def test_a_paused_drain_that_heals_backwards_sends_the_key_again(world: World) -> None:
    first = world.put(E1, firstName="first")

    def overtake() -> None:
        # Other content, no new version, and all of it saved meanwhile.
        world.put(E1, **{**first, "firstName": "second"})
        world.drain_visible()

    after_the_read(world, overtake)
    world.batch()
    assert (world.document(E1) or {})["firstName"] == "first"
    world.drain()
    assert (world.document(E1) or {})["firstName"] == "second"
    assert world.items[E1]["needsReplication"] is False


def test_the_flag_of_a_state_that_a_healing_did_not_read_is_not_cleared(world: World) -> None:
    first = world.put(E1, firstName="first")
    world.drain()
    world.items[E1] = {**first, "firstName": "second", "needsReplication": True}
    world.send(ReplicationItem(E1, Op.UPSERT))
    # Not on its way yet: what clears the flag of this third state must have read it.
    third = {**first, "firstName": "third", "needsReplication": True}
    after_the_read(world, lambda: world.items.update({E1: third}))
    world.batch()
    assert world.items[E1]["needsReplication"] is True
    world.drain()
    assert (world.document(E1) or {})["firstName"] == "third"
    assert world.items[E1]["needsReplication"] is False


def test_a_source_that_cannot_be_read_after_a_healing_has_its_key_sent_again(world: World) -> None:
    first = world.put(E1)
    world.drain()
    world.items[E1] = {**first, "firstName": "other"}
    world.send(ReplicationItem(E1, Op.UPSERT))
    reads = itertools.count()

    def unavailable() -> None:
        if 1 <= next(reads) <= 4:
            raise ConnectionError

    world.on_read = unavailable
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.dynamodb, "_classify", _unreachable)
        world.batch()
    assert world.replication.depth().total == 1
    world.on_read = lambda: None
    world.drain()
    assert world.items[E1]["needsReplication"] is False


def _unreachable(error: Exception) -> Exception:
    return TransientFailure("dynamodb", "unavailable") if isinstance(error, ConnectionError) else error


def test_a_healing_of_a_source_that_stays_as_it_was_sends_nothing_again(world: World) -> None:
    world.put(E1)
    world.drain()
    world.collection.update_one({"_id": E1.document_id}, {"$set": {"firstName": "drift"}})
    sent = len(world.replication.sent)
    world.put(E1, **{**world.items[E1], "needsReplication": True})
    world.drain()
    assert world.counts["healed"] == 1 and len(world.replication.sent) == sent + 1


def test_an_entry_that_a_paused_drain_wrote_after_its_removal_is_buried_again(world: World) -> None:
    world.put(E1)

    def removed_and_forgotten() -> None:
        image = world.items[E1]
        world.remove(E1)
        world.drain_visible()
        # A repair saw an entry that lives behind the tombstone, and deleted that.
        assert world.replica.delete_tombstone(E1, lenient_order(image))

    after_the_read(world, removed_and_forgotten)
    world.batch()
    assert "deletedAt" not in (world.document(E1) or {})
    (again,) = world.replication.sent[2:]
    assert b'"op":"remove"' in again.body
    world.drain()
    assert "deletedAt" in (world.document(E1) or {})
    assert reported(world)[-1] == "entry.removed"


def test_a_key_whose_clear_failed_saves_the_newer_state_although_it_is_sent_as_a_removal(
    world: World,
) -> None:
    first = world.put(E1)
    at(world, "save.after_event", lambda: world.items.update({E1: {**first, "version": 2}}))
    world.batch()
    assert b'"op":"remove"' in world.replication.sent[-1].body
    world.drain()
    document = world.document(E1)
    assert document is not None and document["version"] == 2 and "deletedAt" not in document


# Any history

WRITES = ("change", "change without a version", "remove", "create", "send")
STEPS = ("read", "save.after_write", "save.after_event", "save.after_clear", "save.before_delete")
Move = tuple[str, Any]
write_moves = st.tuples(st.sampled_from(WRITES), st.booleans())
moves = st.recursive(
    write_moves,
    # A drain passes a step, where others do something; it goes on after that, or it is gone.
    lambda inner: st.tuples(
        st.just("drain"), st.tuples(st.sampled_from(STEPS), st.lists(inner, max_size=3), st.booleans())
    ),
    max_leaves=12,
)


class History:
    """One entry, its writers and its drains, which are paused by what happens inside of them."""

    def __init__(self) -> None:
        self.world = World()
        self.number = 0
        self.states: set[str] = set()

    def play(self, moves: Sequence[Move]) -> None:
        for name, how in moves:
            if name == "drain":
                self._drain(*how)
            else:
                self._write(name, how)

    def _write(self, name: str, flag: bool) -> None:
        world, self.number = self.world, self.number + 1
        before = world.items.get(E1)
        stamp = f"2026-01-01T00:{self.number // 60:02}:{self.number % 60:02}.000Z"
        fresh = {"firstName": f"n{self.number}", "needsReplication": flag}
        if name == "create" and before is None:
            world.put(E1, **fresh, createdAt=stamp, updatedAt=stamp)
        elif name == "change" and before is not None:
            world.put(E1, **{**before, **fresh, "version": before["version"] + 1, "updatedAt": stamp})
        elif name == "change without a version" and before is not None:
            world.put(E1, **{**before, **fresh, "needsReplication": True})
        elif name == "remove" and before is not None:
            world.remove(E1)
        elif name == "send" and before is not None:
            world.send(ReplicationItem(E1, Op.UPSERT))
        if E1 in world.items:
            self.states.add(_event(world.items[E1], EventType.ENTRY_REPLICATED))
            self.states.add(_event(world.items[E1], EventType.ENTRY_REMOVED))

    def _drain(self, step: str, inner: Sequence[Move], dies: bool) -> None:
        """One batch; whatever was hidden by one that is gone may have become visible before."""
        world = self.world
        before = world.on_read, world.on_step
        done: list[int] = []

        def pause() -> None:
            if done:
                return
            done.append(1)
            own = world.on_read, world.on_step
            world.on_read, world.on_step = before
            try:
                self.play(inner)
            finally:
                world.on_read, world.on_step = own
            if dies:
                raise Crash

        world.on_read = pause if step == "read" else lambda: None
        world.on_step = lambda name: pause() if name == step else None
        try:
            world.batch()
        except Crash:
            world.sleep(VISIBILITY_SECONDS)
        finally:
            world.on_read, world.on_step = before


def _event(image: dict[str, Any], kind: EventType) -> str:
    return event_id(E1, lenient_order(image), kind)


def _overtaken_at(step: str) -> list[Move]:
    """A drain is paused at a step with the message of the creation. One that received this message again saves a later
    state, whose own message only follows, and dies before its event.
    """
    between: list[Move] = [
        ("change", False),
        ("drain", ("read", [], True)),
        ("drain", ("save.after_write", [], True)),
    ]
    return [("change", False), ("drain", (step, between, False))]


# The entry is created again while a drain that found it gone is paused.
_GONE: list[Move] = [
    ("drain", ("read", [("remove", False), ("drain", ("save.after_event", [], False))], True)),
    (
        "drain",
        (
            "read",
            [("create", False), ("drain", ("read", [], True)), ("drain", ("save.after_write", [], True))],
            False,
        ),
    ),
]


@settings(max_examples=150)
@given(st.lists(moves, min_size=2, max_size=8))
@example(_overtaken_at("read"))
@example(_overtaken_at("save.after_write"))
@example(_overtaken_at("save.after_event"))
@example(_overtaken_at("save.after_clear"))
@example(_overtaken_at("save.before_delete"))
@example(_GONE)
def test_any_history_ends_with_the_source_in_the_replica_and_the_event_of_the_last_state(
    played: list[Move],
) -> None:
    history = History()
    history._write("create", True)
    history.play(played)
    world = history.world
    image = world.items.get(E1)
    world.drain()
    world.sleep(VISIBILITY_SECONDS)
    world.drain()
    # A message whose process died again and again is sent again by an operator.
    dead_letters = list(world.dead.sent)
    assert {dead_letter.attributes["reason"] for dead_letter in dead_letters} <= {Reason.KILLED}
    world.replication.send([Outgoing(dead_letter.body, {"attempt": "1"}) for dead_letter in dead_letters])
    world.drain()
    document = world.document(E1)
    events = {event["id"] for event in world.events()}
    if image is None:
        assert document is not None and "deletedAt" in document
        assert any(each == "entry.removed" for each in reported(world))
    else:
        entry = Entry.parse(E1, world.items[E1])
        assert document is not None and "deletedAt" not in document
        assert document["firstName"] == image["firstName"]
        assert lenient_order(document["_replication"]) == entry.order
        assert not entry.needs_replication
        assert _event(image, EventType.ENTRY_REPLICATED) in events
    assert events <= history.states, "an event of a state that never was"
    assert len(world.dead.sent) == len(dead_letters) and not world.replication.redriven
