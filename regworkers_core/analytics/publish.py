"""Events of the analytics queue to Kafka: what is acknowledged by the brokers is done, the rest is kept.

A repeat (the drain died between acknowledgement and delete) has the ids that it had, and readers drop it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from regworkers_core.adapters.kafka_producer import Record, RecordProducer
from regworkers_core.analytics.candidates import Candidate
from regworkers_core.domain.dead_letter import Subject
from regworkers_core.domain.events import EventType
from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.reasons import Failure, LeftOver, TransientFailure
from regworkers_core.domain.timestamps import seconds
from regworkers_core.engine.dependency import Dependency
from regworkers_core.engine.message_work import Asked, Handled
from regworkers_core.engine.sqs_event import answer_event
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.observability.tracing import inject

CONTENT_TYPE = "application/cloudevents+json"


class PublishHandler:
    """`Handler[Candidate]`. `topics` has the topic of every type.

    An event whose time lies more than `tolerance_seconds` ahead is published all the same, for it has happened; the
    header `clockAheadSeconds` tells readers not to trust its time.
    """

    kind = MessageType.PUBLISH

    def __init__(
        self,
        producer: RecordProducer,
        dependency: Dependency,
        topics: Mapping[EventType, str],
        *,
        tolerance_seconds: float,
        clock: Callable[[], float] = time.time,
        on_step: OnStep = no_step,
    ) -> None:
        self._producer, self._dependency = producer, dependency
        self._topics = {kind.value: topic for kind, topic in topics.items()}
        self._tolerance_seconds = tolerance_seconds
        self._clock, self._on_step = clock, on_step

    def parse(self, raw: object) -> Candidate:
        return Candidate.of(raw)

    def key(self, item: Candidate) -> str:
        return item.key

    def subject(self, item: Candidate) -> Subject:
        return item.subject

    def handle(self, asked: Sequence[Asked[Candidate]]) -> Handled:
        """Raises TransientFailure while Kafka's breaker is open, UsageError for a topic that is missing."""
        handled = Handled()
        headers = _Headers(inject(), self._clock(), self._tolerance_seconds)
        records: dict[str, Record] = {}
        for each in asked:
            candidate = each.item
            if candidate.problem is not None:
                handled.outcomes[candidate.key] = candidate.problem
            elif candidate.key not in records:
                event = candidate.event
                records[candidate.key] = Record(
                    self._topics[event["type"]],
                    event["partitionkey"],
                    orjson.dumps(event),
                    headers.of(event, handled),
                )
        outcomes = self._send(list(records.values()))
        self._on_step("publish.after_send")
        for key, failure in zip(records, outcomes, strict=True):
            handled.outcomes[key] = "sent" if failure is None else _kept(failure)
        return handled

    def _send(self, records: Sequence[Record]) -> Sequence[Failure | None]:
        def send() -> Sequence[Failure | None]:
            outcomes = self._producer.send(records)
            if any(isinstance(outcome, TransientFailure) for outcome in outcomes):
                raise _NotAll(self._dependency.name, outcomes)
            return outcomes

        if not records:
            return []
        try:
            # The producer has its own retries, within a time of its own.
            return self._dependency.call(send, retry=False)
        except _NotAll as partly:
            return partly.outcomes


class _Headers:
    """The headers of a batch's records, and how late its events come. Most share what is made here once."""

    def __init__(self, trace: Mapping[str, str], now: float, tolerance_seconds: float) -> None:
        self._trace = [(name, value.encode()) for name, value in trace.items()]
        self._now, self._tolerance_seconds = now, tolerance_seconds
        self._shared: dict[tuple[str, str], list[tuple[str, bytes]]] = {}
        self._behind: dict[str, float] = {}

    def of(self, event: Mapping[str, Any], handled: Handled) -> list[tuple[str, bytes]]:
        """Counts the event among those that are late or ahead of the clock, too."""
        about = (event["type"], event["correlationid"])
        shared = self._shared.get(about)
        if shared is None:
            shared = self._shared[about] = [
                ("content-type", CONTENT_TYPE.encode()),
                ("ce_type", about[0].encode()),
                ("correlationId", about[1].encode()),
                *self._trace,
            ]
        made = [("ce_id", event["id"].encode()), *shared]
        behind = self._behind.get(event["time"])
        if behind is None:
            happened = seconds(event["time"])
            behind = self._behind[event["time"]] = 0.0 if happened is None else self._now - happened
        if behind < -self._tolerance_seconds:
            made.append(("clockAheadSeconds", str(round(-behind)).encode()))
            handled.counts["clock_ahead"] += 1
        else:
            handled.lags.append(max(0.0, behind))
        return made


class _NotAll(TransientFailure):
    """Counts against the breaker, whatever was delivered beside it."""

    def __init__(self, dependency: str, outcomes: Sequence[Failure | None]) -> None:
        super().__init__(dependency, "not every event was delivered")
        self.outcomes = outcomes


def _kept(failure: Failure) -> Failure:
    """Where other events of the message are delivered, only what failed is sent again."""
    if isinstance(failure, TransientFailure):
        return LeftOver(failure.dependency, failure.error)
    return failure


def invoke_publish(event: Any, handler: PublishHandler) -> dict[str, list[dict[str, str]]]:
    """Answer an SQS event as the old sendData did. Raises UsageError for an event that is not one."""
    return answer_event(event, handler)
