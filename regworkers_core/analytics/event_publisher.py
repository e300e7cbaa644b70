"""Events of the analytics queue to Kafka: what is acknowledged by the brokers is done, the rest is kept.

A repeat (the drain died between acknowledgement and delete) has the ids that it had, and readers drop it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from regworkers_core.adapters.kafka.producer import Record, RecordProducer
from regworkers_core.analytics.candidates import Candidate
from regworkers_core.domain.dead_letter import Subject
from regworkers_core.domain.events import EventType
from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.reasons import Failure, LeftOver, TransientFailure
from regworkers_core.domain.timestamps import seconds
from regworkers_core.engine.dependency import Dependency
from regworkers_core.engine.handling import Handled, Requested, answer_event
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.observability.logs import Passed, entries_passed, wants_entries
from regworkers_core.observability.tracing import inject

CONTENT_TYPE = "application/cloudevents+json"
Header = tuple[str, bytes]
_OF_NO_ENTRY = frozenset({EventType.DRAW_COMMITTED.value, EventType.DRAW_DRAWN.value})


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

    def handle(self, asked: Sequence[Requested[Candidate]]) -> Handled:
        """Raises TransientFailure while Kafka's breaker is open, UsageError for a topic that is missing."""
        handled = Handled()
        candidates: dict[str, Candidate] = {}
        for each in asked:
            candidate = each.item
            if candidate.problem is None:
                candidates[candidate.key] = candidate
            else:
                handled.outcomes[candidate.key] = candidate.problem
        ahead = self._lateness(candidates.values(), handled)
        headers, topics = _SharedHeaders(inject()), self._topics
        records = [
            Record(
                topics[each.type],
                each.partition_key,
                each.value,
                [
                    ("ce_id", key.encode()),
                    *headers[each.type, each.correlation_id],
                    *ahead.get(each.time, ()),
                ],
            )
            for key, each in candidates.items()
        ]
        outcomes = self._send(records)
        self._on_step("publish.after_send")
        handled.outcomes.update(dict.fromkeys(candidates, "sent"))
        # Almost always all of them are sent.
        if any(outcomes):
            for key, failure in zip(candidates, outcomes, strict=True):
                if failure is not None:
                    handled.outcomes[key] = _kept(failure)
        if wants_entries():
            self._log([each for key, each in candidates.items() if handled.outcomes[key] == "sent"])
        return handled

    @staticmethod
    def _log(sent: Sequence[Candidate]) -> None:
        passed: dict[str, list[Passed]] = {}
        for each in sent:
            if each.type not in _OF_NO_ENTRY:
                # No campaign id holds a colon.
                campaign_id, _, entry_id = each.partition_key.partition(":")
                passed.setdefault(each.type, []).append(Passed(each.correlation_id, campaign_id, entry_id))
        for kind, some in passed.items():
            entries_passed("event published", some, type=kind)

    def _lateness(self, events: Iterable[Candidate], handled: Handled) -> dict[str, list[Header]]:
        """Counts how late events are, or that they are ahead of the clock; the header of the latter by their time."""
        now, ahead = self._clock(), dict[str, list[Header]]()
        # What was written together has one time.
        for at, number in Counter([event.time for event in events]).items():
            happened = seconds(at)
            behind = 0.0 if happened is None else now - happened
            if behind < -self._tolerance_seconds:
                ahead[at] = [("clockAheadSeconds", str(round(-behind)).encode())]
                handled.counts["clock_ahead"] += number
            else:
                handled.lags += [max(0.0, behind)] * number
        return ahead

    def _send(self, records: Sequence[Record]) -> Sequence[Failure | None]:
        def send() -> Sequence[Failure | None]:
            outcomes = self._producer.send(records)
            if any(outcomes) and any(isinstance(outcome, TransientFailure) for outcome in outcomes):
                raise _NotAll(self._dependency.name, outcomes)
            return outcomes

        if not records:
            return []
        try:
            # The producer has its own retries, within a time of its own.
            return self._dependency.once(send)
        except _NotAll as partly:
            return partly.outcomes


class _SharedHeaders(dict[tuple[str, str], list[Header]]):
    """The headers that records of one type and correlation id have in common, made at their first use."""

    def __init__(self, trace: Mapping[str, str]) -> None:
        super().__init__()
        self._trace = [(name, value.encode()) for name, value in trace.items()]

    def __missing__(self, about: tuple[str, str]) -> list[Header]:
        kind, correlation_id = about
        made = self[about] = [
            ("content-type", CONTENT_TYPE.encode()),
            ("ce_type", kind.encode()),
            ("correlationId", correlation_id.encode()),
            *self._trace,
        ]
        return made


class _NotAll(TransientFailure):
    """Counts against the breaker, whatever was delivered beside it."""

    def __init__(self, dependency: str, outcomes: Sequence[Failure | None]) -> None:
        super().__init__(dependency, "not every event was delivered")
        self.outcomes = outcomes


def _kept(failure: Failure) -> Failure:
    """Where other events of the message are delivered, only what failed is sent again."""
    return LeftOver.of(failure) if isinstance(failure, TransientFailure) else failure


def invoke_publish(event: Any, handler: PublishHandler) -> dict[str, list[dict[str, str]]]:
    """Answer an SQS event as the old sendData did. Raises UsageError for an event that is not one."""
    return answer_event(event, handler)
