"""From the analytics queue to Kafka, on the real servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regworkers_core.analytics.producers import ProducerSeal
from regworkers_core.analytics.publishing import PUBLISH, PublishHandler, invoke_publish, publisher
from regworkers_core.domain.events import EventType
from regworkers_core.domain.messages import MessageType, encode
from regworkers_core.domain.reasons import UsageError
from regworkers_core.drains.runner import queue_parts
from regworkers_core.engine.handling import Requested
from regworkers_core.engine.stop import OnStep
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Names
from regworkers_local.stack import Stack
from tests.analytics.crash import PASSES, SECTIONS, broker_dies_and_returns, crash_and_recover
from tests.analytics.world import dead_letters, of_every_type, queue_events, removed, signed
from tests.support.drains import run
from tests.support.kafka import published
from tests.support.runtimes import ADDRESSES, new_runtime
from tests.support.shared import shared_namespace


@pytest.fixture(scope="module")
def servers() -> Iterator[Runtime]:
    """One producer for all tests: each finds its own events by their campaign."""
    with shared_namespace() as made:
        yield made


def of_campaign(runtime: Runtime, campaign_id: str) -> list[str]:
    """The ids of its events on Kafka, repeats included."""
    return [each.event["id"] for each in published(runtime) if each.key.startswith(f"{campaign_id}:")]


def test_an_event_of_every_type_arrives_on_its_topic_with_key_and_headers(servers: Runtime) -> None:
    events = of_every_type()
    queue_events(servers, events)
    report = run(servers, PUBLISH)
    assert (report.counts["sent"], report.ended) == (7, "idle")
    records = {each.event["type"]: each for each in published(servers)}
    assert {kind: each.topic.removeprefix(servers.names.prefix) for kind, each in records.items()} == {
        "entry.replicated": "regworkers.entries.v1",
        "entry.removed": "regworkers.entries.v1",
        "eligibility.judged": "regworkers.eligibility.v1",
        "draw.committed": "regworkers.selections.v1",
        "draw.drawn": "regworkers.selections.v1",
        "selection.made": "regworkers.selections.v1",
        "notification.queued": "regworkers.notifications.v1",
    }
    for event in events:
        record = records[event["type"]]
        assert record.event == event and record.key == event["partitionkey"]
        # Whether this process is traced, other tests decide.
        assert {name: value for name, value in record.headers.items() if name != "traceparent"} == {
            "content-type": "application/cloudevents+json",
            "ce_id": event["id"],
            "ce_type": event["type"],
            "correlationId": event["correlationid"],
        }
    assert servers.queue(servers.names.analytics_queue).depth().total == 0


def test_one_bad_event_of_a_hundred_lands_alone_and_the_others_are_published(servers: Runtime) -> None:
    events = [removed(number, "hundred") for number in range(100)]
    bad = {**events[41], "data": {**events[41]["data"], "email": "fan@example.com"}}
    queue_events(servers, [*events[:41], bad, *events[42:]])
    report = run(servers, PUBLISH)
    assert (report.counts["sent"], report.counts["dead_lettered"], report.counts["resent"]) == (99, 1, 0)
    assert set(of_campaign(servers, "hundred")) == {each["id"] for each in events} - {bad["id"]}
    ((body, attributes),) = dead_letters(servers)
    assert body["items"] == [bad]
    assert attributes["reason"] == "INVALID_EVENT"
    assert attributes["error"] == "/properties/data/additionalProperties"
    history = servers.database["dead_letters"].find_one({"campaignId": "hundred", "entryId": "e41"})
    assert history is not None and history["status"] == "open"


def test_bad_events_of_one_message_are_each_recorded(servers: Runtime) -> None:
    queue_events(servers, [{}, {"type": "entry.removed"}, 7])
    assert run(servers, PUBLISH).counts["dead_lettered"] == 3
    errors = {attributes["error"] for _, attributes in dead_letters(servers)}
    assert errors == {
        "/properties/type: no published type of event",
        "/required: specversion is missing",
        "an event should be an object, found int",
    }
    assert servers.database["dead_letters"].count_documents({"error": {"$in": sorted(errors)}}) == 3


def test_an_event_that_came_twice_is_published_once_per_batch_and_always_with_its_id(
    servers: Runtime,
) -> None:
    queue_events(servers, [removed(1, "twice"), removed(1, "twice")])
    report = run(servers, PUBLISH)
    assert (report.counts["sent"], report.counts["dropped"]) == (1, 1)
    queue_events(servers, [removed(1, "twice")])
    run(servers, PUBLISH)
    assert Counter(of_campaign(servers, "twice")) == {removed(1, "twice")["id"]: 2}


def test_an_event_that_is_larger_than_kafka_takes_is_a_dead_letter_that_names_the_limit(
    servers: Runtime,
) -> None:
    event = next(each for each in of_every_type() if each["type"] == "entry.replicated")
    event["data"]["segments"] = ["x" * 64] * 30_000
    handler = publisher(servers)
    answer = invoke_publish({"Records": [record(servers, "large", [event])]}, handler)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "large"}]}
    candidate = handler.parse(event, MessageType.PUBLISH)
    (outcome,) = handler.handle([Requested(candidate, "m", "c")]).outcomes.values()
    assert str(outcome) == "INVALID_EVENT: larger than Kafka takes (1000000 bytes)"


def test_send_data_answers_an_sqs_event_with_the_messages_that_failed(servers: Runtime) -> None:
    good = record(servers, "good", [removed(1, "invoked")])
    mixed = record(servers, "mixed", [removed(2, "invoked"), {"id": "x"}])
    event = {"Records": [good, mixed, {"messageId": "not utf-8", "body": "\udcff\udcfe"}]}
    answer = invoke_publish(event, publisher(servers))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "mixed"}, {"itemIdentifier": "not utf-8"}]}
    assert len(of_campaign(servers, "invoked")) == 2
    with pytest.raises(UsageError, match="Records is missing"):
        invoke_publish({}, publisher(servers))


def record(runtime: Runtime, message_id: str, items: list[Any]) -> dict[str, Any]:
    """A record of an SQS event, signed."""
    body = encode(MessageType.PUBLISH, "c", items)
    attributes = {name: {"stringValue": value} for name, value in signed(runtime, body).items()}
    return {"messageId": message_id, "body": body.decode(), "messageAttributes": attributes}


def test_a_missing_topic_ends_the_drain_before_it_has_received_anything(servers: Runtime) -> None:
    queue_events(servers, [removed(1, "early")])
    elsewhere = Runtime(servers.settings)
    elsewhere.names = Names(servers.names.prefix)
    elsewhere.names.topics += ("no-such-topic",)
    with pytest.raises(UsageError, match=r"topic no-such-topic does not exist: run `regworkers provision`"):
        run(elsewhere, PUBLISH)
    (message,) = servers.queue(servers.names.analytics_queue).receive(1, 0, 0)
    assert message.receive_count == 1
    assert run(servers, PUBLISH).counts["sent"] == 1


def test_a_topic_that_is_deleted_under_a_drain_ends_it_and_loses_nothing(servers: Runtime) -> None:
    topics = dict.fromkeys(EventType, servers.names.prefix + "gone")
    handler = PublishHandler(
        servers.events,
        servers.dependency("kafka"),
        topics,
        seal=ProducerSeal(servers.producer_keys),
        tolerance_seconds=300,
    )
    queue_events(servers, [removed(1, "gone")])
    spec = replace(PUBLISH, parts=parts_with(handler))
    with pytest.raises(UsageError, match=r"topic .*gone does not exist: run `regworkers provision`"):
        run(servers, spec)
    assert not dead_letters(servers)
    depth = servers.queue(servers.names.analytics_queue).depth()
    assert depth.total == 1
    servers.sqs.purge_queue(
        QueueUrl=servers.sqs.get_queue_url(QueueName=servers.names.analytics_queue)["QueueUrl"]
    )


def parts_with(handler: PublishHandler) -> Any:
    """The drain with another handler."""

    def parts(runtime: Runtime, run_id: str, _stop: object, on_step: OnStep) -> Any:
        few = runtime.settings.analytics.model_copy(update={"batch_messages": 1, "visibility_seconds": 5})
        runtime.settings = runtime.settings.model_copy(update={"analytics": few})
        return queue_parts(runtime, PUBLISH, handler, run_id=run_id, on_step=on_step)

    return parts


@pytest.mark.slow
@pytest.mark.namespace("test", **SECTIONS)
@pytest.mark.parametrize("step", PASSES)
def test_a_drain_killed_between_acknowledgement_and_delete_repeats_ids_and_loses_nothing(
    runtime: Runtime, step: str
) -> None:
    verdict = crash_and_recover(runtime, step, 2)
    assert verdict.clean, verdict
    assert verdict.repeats, "what was acknowledged and not deleted comes again"


@pytest.mark.slow
def test_a_broker_killed_under_a_drain_costs_a_pause_and_no_event(own_servers: None, tmp_path: Path) -> None:
    with Stack(tmp_path, "broker", servers=ADDRESSES) as stack:
        state = stack.up()
        mine = new_runtime({name: state.address(name) for name in ADDRESSES}, **SECTIONS)
        report, verdict = broker_dies_and_returns(mine, stack)
        mine.mongo.close()
    assert (report.ended, report.dependency) == ("dependency_down", "kafka")
    assert report.deliveries["returned"] and not report.counts["dead_lettered"]
    assert verdict.clean, verdict
