"""The export in Dagster: the drain as a job, the sensors through a long outage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest

from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.runtime import Runtime
from regworkers_dagster import analytics
from regworkers_dagster.drains import sensing
from tests.analytics.world import queue_events, removed
from tests.dagster.support import job, plain, use
from tests.support.drains import run
from tests.support.kafka import published
from tests.support.runtimes import new_runtime, remove_namespace

Tick = Callable[..., Any]
UNREACHABLE = "127.0.0.1:9"


@pytest.fixture
def world() -> Iterator[Runtime]:
    made = new_runtime(kafka={"timeout_seconds": 0.2}, alerts={"file": None})
    yield made
    remove_namespace(made)


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tick]:
    """Evaluates a sensor's function once, on a runtime that the test has made, with its clock."""
    with dg.DagsterInstance.ephemeral() as instance:

        def call(function: Any, runtime: Runtime, cursor: str | None = None) -> Any:
            monkeypatch.setattr(sensing, "runtime_of", lambda *_, **__: runtime)
            context = dg.build_sensor_context(instance=instance, cursor=cursor, sensor_name="any")
            return function(context)

        yield call


def test_the_job_publishes_what_waits_and_shows_its_numbers(
    world: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, world)
    queue_events(world, [removed(number) for number in range(5)])
    config = {"ops": {"publish": {"config": {"idle_seconds": 0.1}}}}
    result = job("publish_events").execute_in_process(run_config=config)
    (materialization,) = result.asset_materializations_for_node("publish")
    numbers = plain(materialization.metadata)
    assert (numbers["sent"], numbers["dead_lettered"]) == (5, 0)
    assert numbers["lag_p95_seconds"] >= 0 and numbers["adds_up"] is True


def test_a_drain_is_started_when_messages_wait(world: Runtime, tick: Tick) -> None:
    assert isinstance(tick(analytics.publish_tick, world), dg.SkipReason)
    queue_events(world, [removed(1)])
    (request,) = tick(analytics.publish_tick, world).run_requests
    assert (request.job_name, request.tags) == ("publish_events", {"regworkers/drain": "publish"})


@pytest.mark.slow
def test_an_outage_of_kafka_for_a_hundred_ticks_costs_nothing(world: Runtime, tick: Tick) -> None:
    events = [removed(number) for number in range(30)]
    queue_events(world, events, per_message=10)
    now = world.clock()
    kafka = world.settings.kafka.model_copy(update={"bootstrap": UNREACHABLE})
    retry = world.settings.retry.model_copy(update={"attempts": 1})
    unavailable = Runtime(
        world.settings.model_copy(update={"kafka": kafka, "retry": retry}), clock=lambda: now
    )
    cursor = None
    for _ in range(100):
        skipped = tick(analytics.publish_tick, unavailable)
        assert "kafka does not answer" in str(skipped.skip_message)
        now += 30
        cursor = tick(analytics.observe_tick, unavailable, cursor).cursor
    # No drain has received anything: the messages come for the first time now.
    messages = world.queue(world.names.analytics_queue).receive(10, 0, 0)
    assert [message.receive_count for message in messages] == [1, 1, 1]
    assert world.queue(world.names.dead_letter_queue(world.names.analytics_queue)).depth().total == 0

    assert run(world, PUBLISH).counts["sent"] == 30
    assert {each.event["id"] for each in published(world)} == {each["id"] for each in events}


def test_the_sensor_records_how_old_the_oldest_message_is_at_least(world: Runtime, tick: Tick) -> None:
    now = world.clock()
    watched = Runtime(world.settings, clock=lambda: now)
    tick(analytics.observe_tick, watched)
    queue_events(world, [removed(1)])
    now += 3600
    answer = tick(analytics.observe_tick, watched)
    seen = {
        event.asset_key.to_user_string(): plain(event.metadata)
        for event in answer.asset_events
        if isinstance(event, dg.AssetObservation | dg.AssetMaterialization)
    }
    assert seen["analytics_queue"]["messages"] == 1
    assert seen["analytics_queue"]["oldest_at_least_seconds"] == pytest.approx(3600, abs=1)
    assert seen["analytics_queue"]["time_to_data_loss_seconds"] == pytest.approx(14 * 86400 - 3600, abs=1)
