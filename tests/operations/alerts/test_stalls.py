"""Work that no drain works off, on real servers: reported once, by the second evaluation, and closed once done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from pydantic import SecretStr

from regworkers_core.domain.snapshot import PausedDrain
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import beats
from regworkers_core.drains.runner import Life, drain_limits, run_drain
from regworkers_core.engine.defects import remove_hold, store_pause
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.drains import SAVE
from regworkers_core.runtime import Runtime
from tests.operations.alerts.test_evaluate import World, world
from tests.support.drains import replicate_all, run
from tests.support.entries import key, put
from tests.support.waiting import wait_until

__all__ = ["world"]
# Any two looks are far enough apart. Events wait for Kafka meanwhile.
SOON = {"drain_stalled_seconds": 0.001}


def looks(world: World, number: int = 2) -> None:
    for _ in range(number):
        world.look(world.runtime(alerts=SOON))


def paged_once(world: World, key: str) -> None:
    """Work everything off: the incident closes, and there was one page."""

    def is_over() -> bool:
        # A cleared flag may be a record, too, which is unread for a moment.
        replicate_all(world.base)
        looks(world)
        return key not in world.open()

    wait_until(is_over)
    assert [(action, incident.partition("#")[0]) for action, incident in world.receiver.actions()] == [
        ("trigger", key),
        ("resolve", key),
    ]


@contextmanager
def resident(runtime: Runtime, **steps: Event) -> Iterator[None]:
    """A resident of `save` alone, which waits for the event of a step."""
    stop = StopSignal()

    def at(step: str) -> None:
        if (event := steps.get(step.partition(".")[2])) is not None:
            event.wait(60)

    limits = drain_limits(runtime.settings, SAVE, idle_seconds=600.0)
    thread = Thread(
        target=lambda: run_drain(
            runtime, SAVE, limits, stop=stop, life=Life(resident=True, patient=True), on_step=at
        )
    )
    thread.start()
    try:
        yield
    finally:
        for event in steps.values():
            event.set()
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def test_no_drain_saves(world: World) -> None:
    put(world.base, key("waits"))
    run(world.base, "enqueue")
    looks(world, 1)
    assert world.open() == set(), "one evaluation shows no standstill"
    looks(world)
    assert world.open() == {"drain-stalled:save"}
    (event,) = world.receiver.events
    assert "the drain save has acknowledged nothing" in event["payload"]["summary"]
    assert event["links"][0]["href"].endswith("runbooks/stream-lag.md")
    paged_once(world, "drain-stalled:save")


def test_no_drain_reads_the_stream(world: World) -> None:
    put(world.base, key("waits"))
    looks(world)
    wait_until(lambda: looks(world) or world.open())
    assert world.open() == {"stream-lag:demand-table"}
    (event,) = world.receiver.events
    assert "the drain enqueue has acknowledged nothing" in event["payload"]["summary"]
    paged_once(world, "stream-lag:demand-table")


def test_a_deep_queue_that_is_worked_off_is_no_page(world: World) -> None:
    for number in range(3):
        put(world.base, key(f"waits{number}"))
        replicate_all(world.base)
        put(world.base, key(f"after{number}"))
        run(world.base, "enqueue")
        looks(world, 1)
    assert world.receiver.events == []


def test_a_resident_without_standby_that_cannot_reach_mongodb_from_its_host(world: World) -> None:
    uri = SecretStr("mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=500")
    unreachable = world.base.settings.mongo.model_copy(update={"uri": uri})
    blind = Runtime(world.base.settings.model_copy(update={"mongo": unreachable}))
    put(world.base, key("waits"))
    run(world.base, "enqueue")
    with resident(blind):
        wait_until(lambda: beats(world.base.leases, "save"))
        looks(world)
        assert world.open() == {"drain-stalled:save"}
        assert [action for action, _ in world.receiver.actions()] == ["trigger"]
    paged_once(world, "drain-stalled:save")


def test_a_thread_that_hangs_in_its_batch(world: World) -> None:
    put(world.base, key("waits"))
    run(world.base, "enqueue")
    with resident(world.base, before_delete=(hangs := Event())):
        depth = world.base.queue(world.base.names.replication_queue).depth
        wait_until(lambda: depth().in_flight == 1)
        looks(world)
        assert world.open() == {"drain-stalled:save"}
        (event,) = world.receiver.events
        assert "1 messages wait on replication-queue, 1 of them in flight" in event["payload"]["summary"]
        hangs.set()
        wait_until(lambda: depth().total == 0)
    paged_once(world, "drain-stalled:save")


def test_a_pause_ends_no_work_in_silence(world: World) -> None:
    now = world.base.clock()
    put(world.base, key("waits"))
    run(world.base, "enqueue")
    store_pause(world.base.leases, PausedDrain("save", iso(now), "ada", "a restore", iso(now + 600)), now)
    looks(world, 3)
    assert world.open() == set(), "an operator wants that"
    over = PausedDrain("save", iso(now - 60), "ada", "a restore", iso(now - 1))
    remove_hold(world.base.leases, PausedDrain, "save")
    store_pause(world.base.leases, over, now)
    looks(world, 1)
    assert world.open() == {"drain-paused:save"}
    remove_hold(world.base.leases, PausedDrain, "save")
    paged_once(world, "drain-paused:save")


def test_what_waits_after_an_outage_of_mongodb_is_a_consequence_of_it(world: World) -> None:
    put(world.base, key("waits"))
    run(world.base, "enqueue")
    looks(world, 1)
    mongo = {"uri": SecretStr("mongodb://127.0.0.1:9/"), "server_selection_timeout_seconds": 0.1}
    down = world.runtime(mongo=mongo, alerts={"patience_seconds": 0})
    world.look(down)
    world.look(down)
    for _ in range(2):
        world.look(world.runtime(alerts={**SOON, "recovery_seconds": 600}))
        assert world.open() == set()
    assert world.receiver.actions() == [("trigger", "mongo-away:mongo#0"), ("resolve", "mongo-away:mongo#0")]
    paged_after_all = {**SOON, "recovery_seconds": 0}
    world.look(world.runtime(alerts=paged_after_all))
    assert world.open() == {"drain-stalled:save"}


def test_what_waited_while_nothing_evaluated_has_begun_just_now(world: World) -> None:
    put(world.base, key("waits"))
    run(world.base, "enqueue")
    looks(world, 1)
    # Everything was switched off over night.
    state, long_ago = world.base.evaluation_state, world.base.clock() - 30_000
    for name, (beat, _) in state.beats().items():
        state.beat(name, beat, long_ago)
    for by in state.evaluations():
        state.record_evaluation(by, long_ago)
    looks(world, 1)
    assert world.open() == set()
    looks(world, 1)
    assert world.open() == {"drain-stalled:save"}
    (event,) = world.receiver.events
    assert event["payload"]["custom_details"]["stalledSeconds"] < 600
