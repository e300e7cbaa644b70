"""Publishes the events of the analytics queue to Kafka: items are validated, sent, and acknowledged if delivered.

A message that its producer has not signed is a dead letter as a whole (`analytics.producers`), an item that breaks the
schema of its type by itself. A repeat (the drain died between acknowledgement and delete) has the same ids, and
consumers drop it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
import structlog
from jsonschema_rs import Draft202012Validator, ValidationError

from fairdraw import scheduling
from regworkers_core.adapters.kafka.producer import OutgoingRecord, RecordProducer
from regworkers_core.adapters.mongo.activity import QueueMarks
from regworkers_core.analytics.event_models import schema, topics_by_type
from regworkers_core.analytics.producers import ProducerSeal
from regworkers_core.domain.events import EventType
from regworkers_core.domain.messages import (
    MAX_ITEMS,
    ItemSubject,
    MessageType,
    item_problem,
    json_text,
)
from regworkers_core.domain.reasons import Failure, LeftOver, PermanentFailure, Reason, TransientFailure
from regworkers_core.domain.timestamps import seconds
from regworkers_core.drains.runner import DrainSpec, Parts, queue_parts
from regworkers_core.engine.dependency import Dependency
from regworkers_core.engine.drain import Settlement, Work
from regworkers_core.engine.handling import Handled, Requested, Seal, answer_event
from regworkers_core.engine.queue import QUEUE_SERVICE, Received
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.observability.logs import Passed, entries_passed, wants_entries
from regworkers_core.observability.tracing import inject
from regworkers_core.runtime import Runtime


# Not frozen: one is made for every event, and freezing triples the cost.
@dataclass(slots=True)
class Candidate:
    """One item as it is sent to Kafka. The parsed item is not kept, since a batch has thousands of them. A refused item
    has a derived key (its id may be anything) and empty fields.
    """

    key: str  # the event's id
    value: bytes  # its JSON
    type: str = ""  # the event's
    partition_key: str = ""
    correlation_id: str = ""
    time: str = ""  # the event's
    problem: PermanentFailure | None = None  # why it is refused

    @property
    def subject(self) -> ItemSubject:
        """The ids for a dead letter, as far as they are in their places."""
        event = orjson.loads(self.value)
        data = event.get("data") if isinstance(event, dict) else None
        fields = data if isinstance(data, dict) else {}
        ids = {name: fields[name] for name in ("campaignId", "entryId") if isinstance(fields.get(name), str)}
        return ItemSubject(self.key, ids)

    @classmethod
    def of(cls, raw: Any) -> Candidate:
        """Validate an item. Never raises: a refused item has a subject, too."""
        problem = refusal(raw)
        if problem is not None:
            value = json_text(raw)
            return cls("refused-" + hashlib.sha256(value).hexdigest(), value, problem=problem)
        # A copy: orjson's own buffers have room to spare, which each gives back to the system when it is kept. That
        # takes four times as long as all else here.
        value = b"%b" % orjson.dumps(raw)
        return cls(raw["id"], value, raw["type"], raw["partitionkey"], raw["correlationid"], raw["time"])


def refusal(event: Any) -> PermanentFailure | None:
    """Return why the event breaks the schema of its type: the schema path that failed, never the value."""
    if not isinstance(event, dict):
        return _invalid(f"an event should be an object, found {type(event).__name__}")
    kind = event.get("type")
    validator = _validators().get(kind) if isinstance(kind, str) else None
    # A schema names all fields, so what is valid is not too deep.
    if validator is not None and validator.is_valid(event):
        return None
    if problem := item_problem(event):
        return _invalid(problem)
    if validator is None:
        return _invalid("/properties/type: no published type of event")
    return _invalid(_path(next(validator.iter_errors(event))))


def _path(error: ValidationError) -> str:
    path = "".join(f"/{part}" for part in error.schema_path)
    missing = getattr(error.kind, "property", None)
    # The name comes from the schema, like the rest of the path, not from the event.
    return f"{path}: {missing} is missing" if missing else path


def _invalid(error: str) -> PermanentFailure:
    return PermanentFailure(Reason.INVALID_EVENT, error)


@cache
def _validators() -> Mapping[str, Draft202012Validator]:
    # Imported late: its models take time at the start of each run.
    return {kind.value: Draft202012Validator(schema(kind)) for kind in EventType}


CONTENT_TYPE = "application/cloudevents+json"
Header = tuple[str, bytes]
_OF_NO_ENTRY = frozenset({EventType.DRAW_COMMITTED.value, EventType.DRAW_DRAWN.value})


class PublishHandler:
    """A `Handler[Candidate]`. `topics` has the topic of every type.

    An event whose time is more than `tolerance_seconds` ahead is published, since it has happened; the header
    `clockAheadSeconds` warns consumers not to trust its time.
    """

    kinds = (MessageType.PUBLISH,)

    def __init__(
        self,
        producer: RecordProducer,
        dependency: Dependency,
        topics: Mapping[EventType, str],
        *,
        seal: Seal,
        tolerance_seconds: float,
        clock: Callable[[], float] = scheduling.now,
        on_step: OnStep = no_step,
    ) -> None:
        self._producer, self._dependency = producer, dependency
        self._topics = {kind.value: topic for kind, topic in topics.items()}
        self.seal = seal
        self._tolerance_seconds = tolerance_seconds
        self._clock, self._on_step = clock, on_step

    def parse(self, raw: object, kind: MessageType) -> Candidate:
        return Candidate.of(raw)

    def key(self, item: Candidate) -> str:
        return item.key

    def subject(self, item: Candidate) -> ItemSubject:
        return item.subject

    def handle(self, asked: Sequence[Requested[Candidate]]) -> Handled:
        """Send the events. Raises TransientFailure while Kafka's breaker is open, UsageError for a missing topic."""
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
        records: list[OutgoingRecord] = [
            (
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
        # Usually all of them are sent.
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
                # No campaign id has a colon.
                campaign_id, _, entry_id = each.partition_key.partition(":")
                passed.setdefault(each.type, []).append(Passed(each.correlation_id, campaign_id, entry_id))
        for kind, some in passed.items():
            entries_passed("event published", some, type=kind)

    def _lateness(self, events: Iterable[Candidate], handled: Handled) -> dict[str, list[Header]]:
        """Record the lag of the events, and return the header of those ahead of the clock, by their time."""
        now, ahead = self._clock(), dict[str, list[Header]]()
        # Events that were written together have one time.
        for at, number in Counter([event.time for event in events]).items():
            happened = seconds(at)
            behind = 0.0 if happened is None else now - happened
            if behind < -self._tolerance_seconds:
                ahead[at] = [("clockAheadSeconds", str(round(-behind)).encode())]
                handled.counts["clock_ahead"] += number
            else:
                handled.lags += [max(0.0, behind)] * number
        return ahead

    def _send(self, records: Sequence[OutgoingRecord]) -> Sequence[Failure | None]:
        def send() -> Sequence[Failure | None]:
            outcomes = self._producer.send(records)
            if any(outcomes) and any(isinstance(outcome, TransientFailure) for outcome in outcomes):
                raise _NotAll(self._dependency.name, outcomes)
            return outcomes

        if not records:
            return []
        try:
            # The producer retries within its own time limit.
            return self._dependency.once(send)
        except _NotAll as partly:
            return partly.outcomes


class _SharedHeaders(dict[tuple[str, str], list[Header]]):
    """Headers by type and correlation id, made at their first use and shared by their records."""

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
    """Some events failed. It counts against the breaker although others were delivered."""

    def __init__(self, dependency: str, outcomes: Sequence[Failure | None]) -> None:
        super().__init__(dependency, "not every event was delivered")
        self.outcomes = outcomes


def _kept(failure: Failure) -> Failure:
    """Mark a transient failure as left over: of a partly delivered message, only failed events are sent again."""
    return LeftOver.of(failure) if isinstance(failure, TransientFailure) else failure


def invoke_publish(event: Any, handler: PublishHandler) -> dict[str, list[dict[str, str]]]:
    """Answer an SQS event as the legacy sendData worker did. Raises UsageError for any other event."""
    return answer_event(event, handler)


log = structlog.get_logger(__name__)
# The age of the queue is compared with days, so this is precise enough.
_MARK_SECONDS = 10.0


class MarkedWork:
    """The work of the drain, which also records the time of the last delivery, at most every 10 s."""

    def __init__(
        self, work: Work[Received], marks: QueueMarks, queue: str, clock: Callable[[], float]
    ) -> None:
        self._work, self._marks, self._queue, self._clock = work, marks, queue, clock
        self._lock = scheduling.lock()
        self._due_at = 0.0

    def __call__(self, messages: Sequence[Received]) -> Settlement[Received]:
        settlement = self._work(messages)
        now = self._clock()
        with self._lock:
            due = settlement.counts["sent"] > 0 and now >= self._due_at
            if due:
                self._due_at = now + _MARK_SECONDS
        if due:
            try:
                self._marks.delivered(self._queue, now)
            except Failure as failure:
                # The queue only appears older than it is.
                log.warning("failed to record delivery time", error=str(failure))
        return settlement


def publisher(runtime: Runtime, on_step: OnStep = no_step) -> PublishHandler:
    """Return the handler with the runtime's producer and topics."""
    return PublishHandler(
        runtime.events,
        runtime.dependency("kafka"),
        topics_by_type(runtime.names),
        seal=ProducerSeal(runtime.producer_keys),
        tolerance_seconds=runtime.settings.analytics.clock_tolerance_seconds,
        clock=runtime.clock,
        on_step=on_step,
    )


def _publish(runtime: Runtime, run_id: str, _stop: StopSignal, on_step: OnStep) -> Parts[Received]:
    source, work = queue_parts(runtime, PUBLISH, publisher(runtime, on_step), run_id=run_id, on_step=on_step)
    return Parts(source, MarkedWork(work, runtime.queue_marks, runtime.names.analytics_queue, runtime.clock))


PUBLISH: DrainSpec[Received] = DrainSpec(
    name="publish",
    worker="sendData",
    summary="Publish the events of the analytics queue to Kafka.",
    job="publish_events",
    duty="analytics",
    # Not MongoDB: only dead letters need it, and their messages can wait.
    needs=(QUEUE_SERVICE, "kafka"),
    outcomes=("received", "sent", "dropped", "dead_lettered", "resent", "returned"),
    parts=_publish,
    queue="analytics-queue",
    keep="analytics.visibilitySeconds",
    most_items=lambda settings: settings.analytics.batch_messages * MAX_ITEMS,
    most_drains="analytics.maxDrains",
    can_wait=True,
    runbook="kafka.md",
    residents=True,
)
DRAINS: tuple[DrainSpec[Any], ...] = (PUBLISH,)
