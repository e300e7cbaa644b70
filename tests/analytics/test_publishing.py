"""What becomes of the events of a batch, on a producer that plays Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from regworkers_core.adapters.kafka.producer import OutgoingRecord
from regworkers_core.analytics.publishing import PublishHandler
from regworkers_core.domain.events import EventType
from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.reasons import (
    DependencyDown,
    Failure,
    LeftOver,
    PermanentFailure,
    Reason,
    TransientFailure,
)
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import CircuitBreaker, Dependency, RetryPolicy
from regworkers_core.engine.handling import Handled, Requested
from regworkers_core.engine.queue import Received
from tests.analytics.world import removed

NOW = 1_795_000_000.0
UNAVAILABLE = TransientFailure("kafka", "no answer")
TOPICS = dict.fromkeys(EventType, "topic")


class Kafka:
    """Answers with `failures` by event id."""

    def __init__(self) -> None:
        self.failures: dict[str, Failure] = {}
        self.sent: list[OutgoingRecord] = []

    def send(self, records: Sequence[OutgoingRecord]) -> list[Failure | None]:
        self.sent.extend(records)
        return [self.failures.get(dict(headers or ())["ce_id"].decode()) for _, _, _, headers in records]

    def close(self) -> None:
        pass


class LetsPass:
    """A seal that lets everything pass."""

    def check(self, message: Received, items: Sequence[Any]) -> None:
        pass

    def kept(self, message: Received) -> dict[str, str]:
        return {}

    def attributes(self, body: bytes) -> dict[str, str]:
        return {}


class World:
    def __init__(self) -> None:
        self.kafka = Kafka()
        breaker = CircuitBreaker("kafka", failures=2, reset_seconds=60, clock=lambda: 0.0)
        self.dependency = Dependency("kafka", lambda error: error, policy=RetryPolicy(), breaker=breaker)
        self.handler = PublishHandler(
            self.kafka, self.dependency, TOPICS, seal=LetsPass(), tolerance_seconds=300, clock=lambda: NOW
        )

    def handle(self, *events: Any) -> Handled:
        return self.handler.handle(
            [Requested(self.handler.parse(event, MessageType.PUBLISH), "m", "c") for event in events]
        )


def at(number: int, seconds_ahead: float) -> dict[str, Any]:
    return removed(number, at=iso(NOW + seconds_ahead))


def test_what_kafka_has_is_sent_and_how_late_it_came_is_counted() -> None:
    world = World()
    event = at(1, -5)
    handled = world.handle(event)
    assert handled.outcomes == {event["id"]: "sent"} and handled.lags == [5.0]


def test_events_that_kafka_did_not_take_are_left_over_and_refused_ones_are_dead_letters() -> None:
    world = World()
    events = [at(number, 0) for number in range(3)]
    refused = PermanentFailure(Reason.INVALID_EVENT, "larger than Kafka takes")
    world.kafka.failures = {events[0]["id"]: UNAVAILABLE, events[1]["id"]: refused}
    outcomes = world.handle(*events).outcomes
    assert isinstance(outcomes[events[0]["id"]], LeftOver)
    assert outcomes[events[1]["id"]] is refused
    assert outcomes[events[2]["id"]] == "sent"


def test_deliveries_that_fail_open_the_breaker_and_then_nothing_is_even_tried() -> None:
    world = World()
    event, other = at(1, 0), at(2, 0)
    world.kafka.failures = {event["id"]: UNAVAILABLE}
    # Also those that failed in part.
    world.handle(event, other)
    assert not world.dependency.breaker.is_open
    world.handle(event)
    assert world.dependency.breaker.is_open
    tried = len(world.kafka.sent)
    with pytest.raises(DependencyDown):
        world.handle(event)
    assert len(world.kafka.sent) == tried


def test_refused_events_say_nothing_about_kafka() -> None:
    world = World()
    event = at(1, 0)
    world.kafka.failures = {event["id"]: PermanentFailure(Reason.INVALID_EVENT, "too large")}
    for _ in range(3):
        world.handle(event, {"id": "not an event"})
    assert not world.dependency.breaker.is_open


def test_only_valid_events_reach_kafka_and_a_batch_without_any_does_not_call_it() -> None:
    world = World()
    assert world.handle({}, None).outcomes and not world.kafka.sent
    assert world.dependency.calls == 0


@pytest.mark.parametrize(("ahead", "flagged"), [(299, False), (301, True), (86_400, True), (-86_400, False)])
def test_an_event_from_the_future_is_published_with_a_header_that_says_so(
    ahead: float, flagged: bool
) -> None:
    world = World()
    handled = world.handle(at(1, ahead))
    assert list(handled.outcomes.values()) == ["sent"]
    headers = dict(world.kafka.sent[0][-1] or ())
    assert headers.get("clockAheadSeconds") == (str(ahead).encode() if flagged else None)
    assert handled.counts["clock_ahead"] == flagged
    assert len(handled.lags) == (not flagged), "how late it came is not known"
