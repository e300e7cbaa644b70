"""What the second look at a save finds, sends again, leaves to others, and counts when it cannot look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from threading import Event
from typing import Any

import pytest

from fairdraw import scheduling
from regworkers_core.adapters.mongo.entry_documents import Write
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import Op
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.drains.runner import drain_limits, run_drain
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.health.snapshot import read_drains
from regworkers_core.replication.drains import SAVE
from regworkers_core.replication.reconcile.classify import Sides
from regworkers_core.replication.second_look import SecondLook
from regworkers_core.runtime import Runtime
from regworkers_core.settings import SaveSettings
from tests.replication.reconcile.world import (
    DeadLetters,
    ReplicaSide,
    Replication,
    SourceSide,
    World,
    entry_key,
)
from tests.support.drains import run
from tests.support.entries import document, key, put
from tests.support.waiting import Clock, wait_until

KEY = entry_key(0)
AFTER = 0.04


def a_save(world: World) -> Write:
    stored = world.stored[KEY]
    return Write(KEY, stored.order, stored.fields, "message")


def second_look(world: World, replica: Any = None, source: Any = None, **settings: Any) -> SecondLook:
    sides = Sides(source or SourceSide(world), replica or ReplicaSide(world), DeadLetters(world))
    return SecondLook(sides, Replication(world), SaveSettings(second_look_seconds=AFTER, **settings))


def counted(look: SecondLook, number: int = 1) -> Counter[str]:
    """All counts once this number of saves was looked at or passed over."""
    counts = Counter[str]()

    def done() -> bool:
        counts.update(look.counts())
        return counts["second_look"] + counts["second_look_skipped"] >= number

    wait_until(done)
    return counts


def lose(world: World) -> None:
    del world.stored[KEY]


def overwrite(world: World) -> None:
    stored = world.stored[KEY]
    world.stored[KEY] = replace(stored, fields={**(stored.fields or {}), "firstName": "someone else"})


def bring_back(world: World) -> None:
    world.stored[KEY] = replace(world.stored[KEY], fields={"email": "a@example.com"}, deleted_at=None)


@pytest.mark.parametrize(
    ("happens", "removed", "counts", "sent"),
    [
        (lambda world: None, False, {}, None),
        (lose, False, {"second_look_missing": 1}, Op.UPSERT),
        (overwrite, False, {"second_look_stale": 1}, Op.UPSERT),
        (lambda world: world.write(KEY, lag=None), False, {"second_look_changed": 1}, None),
        (lambda world: world.remove(KEY, lag=None), False, {"second_look_changed": 1}, None),
        (lambda world: None, True, {}, None),
        (bring_back, True, {"second_look_orphaned": 1}, Op.REMOVE),
    ],
    ids=["agrees", "lost", "overwritten", "changed", "removed", "tombstone", "live again"],
)
def test_a_save_that_did_not_stay_is_counted_by_its_class_and_sent_again_and_a_newer_change_is_not(
    happens: Callable[[World], None], removed: bool, counts: dict[str, int], sent: Op | None
) -> None:
    world = World(read_seconds=0)
    world.settle(KEY)
    if removed:
        world.remove(KEY, lag=0.0)
        world.advance(1)
    saved = a_save(world)
    happens(world)
    look = second_look(world)
    look.note([saved])
    assert counted(look) == {"second_look": 1, **counts}
    assert [each.op for each in world.sent] == ([] if sent is None else [sent])
    look.close()


def test_what_differs_from_an_old_read_alone_is_fine() -> None:
    world = World(read_seconds=0)
    world.settle(KEY)
    old = dict(world.items)
    world.write(KEY, lag=0.0)
    world.advance(1)

    class Lags(SourceSide):
        """Shows what was there before, unless it is asked to be consistent."""

        def get(self, keys: Any, *, consistent: bool = True) -> Any:
            return super().get(keys) if consistent else {key: dict(old[key]) for key in keys}

    look = second_look(world, source=Lags(world))
    look.note([a_save(world)])
    assert counted(look) == {"second_look": 1} and world.sent == []
    look.close()


def test_of_several_saves_that_did_not_stay_each_is_counted_and_sent_again() -> None:
    world, keys = World(read_seconds=0), [entry_key(number) for number in range(3)]
    for each in keys:
        world.settle(each)
    saves = [Write(each, world.stored[each].order, world.stored[each].fields, "message") for each in keys]
    del world.stored[keys[0]], world.stored[keys[2]]
    look = second_look(world)
    look.note(saves)
    assert counted(look, 3) == {"second_look": 3, "second_look_missing": 2}
    assert [each.key for each in world.sent] == [keys[0], keys[2]]
    look.close()


def test_during_an_outage_saves_wait_and_are_looked_at_after_it() -> None:
    world = World(read_seconds=0)
    world.settle(KEY)

    class Unavailable(ReplicaSide):
        answers = iter([False, False])

        def get(self, keys: Any) -> Any:
            if not next(self.answers, True):
                raise TransientFailure("mongo", "AutoReconnect")
            return super().get(keys)

    look = second_look(world, Unavailable(world))
    look.note([a_save(world)])
    overwrite(world)
    assert counted(look) == {"second_look": 1, "second_look_stale": 1}
    look.close()


def test_a_save_is_looked_at_after_its_delay_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    world, clock, taken = World(read_seconds=0), Clock(), list[int]()
    world.settle(KEY)
    take = SecondLook._take

    def counting(look: SecondLook) -> Any:
        page = take(look)
        taken.append(len(page))
        return page

    monkeypatch.setattr(SecondLook, "_take", counting)
    monkeypatch.setattr(scheduling, "monotonic", clock)
    look = second_look(world)
    look.note([a_save(world)])
    clock.now += 0.9 * AFTER
    wait_until(lambda: len(taken) >= 3)
    assert not any(taken) and not look.counts()
    clock.now += 0.2 * AFTER
    assert counted(look) == {"second_look": 1}
    look.close()


def test_a_save_that_is_being_looked_at_when_the_drain_ends_counts_as_skipped() -> None:
    world, reading, ended = World(read_seconds=0), Event(), Event()

    class Slow(ReplicaSide):
        def get(self, keys: Any) -> Any:
            reading.set()
            ended.wait()
            return super().get(keys)

    look = second_look(world, Slow(world))
    look.note([Write(KEY, Order("1", 1, "1"), None, "m")])
    reading.wait()
    look.close()
    ended.set()
    assert look.counts() == {"second_look_skipped": 1}


def test_saves_beyond_the_limit_and_those_that_are_left_at_the_end_are_counted() -> None:
    world = World(read_seconds=0)
    look = second_look(world, second_look_entries=3)
    writes = [Write(EntryKey("summer", f"e{number}"), Order("1", 1, "1"), None, "m") for number in range(5)]
    look.note(writes)
    look.close()
    assert look.counts() == {"second_look_skipped": 5}


def test_a_drain_heals_what_another_writer_did_to_its_save(runtime: Runtime) -> None:
    put(runtime, key("e1"))
    run(runtime, "enqueue")
    save = runtime.settings.save.model_copy(update={"second_look_seconds": 0.2})
    hasty = Runtime(runtime.settings.model_copy(update={"save": save}))
    stop, saves = StopSignal(), list[str]()

    def plant(step: str) -> None:
        if step != "save.after_clear":
            return
        saves.append(step)
        if len(saves) == 1:
            change = {"$set": {"firstName": "someone else"}}
            runtime.database["entries"].update_one({"_id": key("e1").document_id}, change)
        else:
            stop.set()

    limits = drain_limits(hasty.settings, SAVE, idle_seconds=60, max_seconds=60)
    report = run_drain(hasty, SAVE, limits, stop=stop, on_step=plant)
    assert report.counts["second_look_stale"] == 1 and report.counts["healed"] == 1
    saved = document(runtime, key("e1"))
    assert saved is not None and saved["firstName"] != "someone else"
    # The drain ends before it looks at the second save.
    assert report.counts["second_look"] + report.counts["second_look_skipped"] == 2
    (state,) = (each for each in read_drains(runtime) if each.name == "save")
    assert state.differing == {"stale": 1}
