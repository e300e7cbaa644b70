"""Business events onto the analytics queue: the envelope, and which events were not confirmed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

from regworkers_core.adapters.aws.sqs import EventQueue
from regworkers_core.domain.messages import MAX_ITEMS
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.queue import Outgoing, SendFailure


class FakeQueue:
    name = "analytics-queue"

    def __init__(self, *refused: int) -> None:
        self.refused = refused
        self.sent: list[Outgoing] = []
        self.within: list[float | None] = []

    def send(self, messages: Sequence[Outgoing], *, within_seconds: float | None = None) -> list[SendFailure]:
        self.sent += messages
        self.within.append(within_seconds)
        return [SendFailure(index, "busy", False) for index in self.refused]


def events(number: int) -> list[dict[str, Any]]:
    return [{"id": str(index), "correlationid": f"c{index}"} for index in range(number)]


def event_queue(*refused: int) -> tuple[FakeQueue, EventQueue]:
    fake: Any = FakeQueue(*refused)
    return fake, EventQueue(fake, sign=lambda body: f"signed {len(body)}")


def test_a_message_has_the_correlation_id_of_its_first_event_the_attempt_and_the_trace() -> None:
    fake, queue = event_queue()
    with trace.use_span(NonRecordingSpan(SpanContext(1, 2, is_remote=False))):
        assert queue.send(events(2), within_seconds=1.5) == {}

    (message,) = fake.sent
    assert orjson.loads(message.body) == {
        "type": "analytics.publish",
        "version": 1,
        "correlationId": "c0",
        "items": events(2),
    }
    assert message.attributes["correlationId"] == "c0" and message.attributes["attempt"] == "1"
    assert message.attributes["traceparent"].startswith("00-")
    assert message.attributes["producer"] == f"signed {len(message.body)}"
    assert fake.within == [1.5]


def test_every_event_of_a_message_that_was_not_confirmed_is_reported() -> None:
    fake, queue = event_queue(1)

    unconfirmed = queue.send(events(MAX_ITEMS + 2))

    assert list(unconfirmed) == [MAX_ITEMS, MAX_ITEMS + 1] and len(fake.sent) == 2


def test_no_events_make_no_call() -> None:
    fake, queue = event_queue()

    assert queue.send([]) == {} and fake.within == []


def test_sending_all_raises_when_an_event_is_not_confirmed() -> None:
    _, queue = event_queue(0)

    with pytest.raises(TransientFailure, match="3 of 3 events not confirmed by analytics-queue: busy"):
        queue.send_all(events(3))
