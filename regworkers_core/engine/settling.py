"""What becomes of a message once its items have outcomes: acknowledged, given back, split, or made dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import structlog

from fairdraw import scheduling
from regworkers_core.domain.messages import DeadLetter, ItemSubject, attempt_of, encode, fit_correlation_id
from regworkers_core.domain.reasons import (
    Failure,
    ItemFailure,
    LeftOver,
    PermanentFailure,
    Reason,
    TransientFailure,
)
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.defects import may_be_the_items, unforeseen
from regworkers_core.engine.dependency import REDELIVERY
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.handling import Decoded, Handled, Handler
from regworkers_core.engine.marks import Marks
from regworkers_core.engine.queue import QUEUE_SERVICE, Outgoing, Queue, Received
from regworkers_core.observability.tracing import inject

I = TypeVar("I")  # noqa: E741 (an item)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Evaluated(Generic[I]):
    """A message and the (key, outcome) of each of its items. `failed`: it was refused, or an item has failed."""

    decoded: Decoded[I]
    outcomes: Sequence[tuple[Hashable, str | Failure]]
    failed: bool

    @property
    def defects(self) -> list[PermanentFailure]:
        """The failures that are defects of the code. Some may have been counted already."""
        failures = [self.decoded.refused, *(outcome for _, outcome in self.outcomes)]
        return [
            failure
            for failure in failures
            if isinstance(failure, PermanentFailure) and failure.reason is Reason.DEFECT
        ]


class Settler(Generic[I]):
    """Settles the messages of one drain."""

    def __init__(
        self, handler: Handler[I], publisher: DeadLetterPublisher, marks: Marks, *, max_attempts: int
    ) -> None:
        self._handler, self._publisher, self._marks = handler, publisher, marks
        self._max_attempts = max_attempts

    def evaluate(self, decoded: Decoded[I], handled: Handled) -> Evaluated[I]:
        """The outcome of each item of a message."""
        outcomes: list[tuple[Hashable, str | Failure]] = []
        failed, key_of, found = decoded.refused is not None, self._handler.key, handled.outcomes
        for item in decoded.items:
            key: Hashable = None
            outcome: str | Failure
            if isinstance(item, PermanentFailure):
                outcome = item
            else:
                try:
                    key = key_of(item)
                    outcome = found[key]
                except Exception as error:
                    key, outcome = None, unforeseen(error)
            failed = failed or not isinstance(outcome, str)
            outcomes.append((key, outcome))
        return Evaluated(decoded, outcomes, failed)

    def settle(
        self,
        evaluated: Evaluated[I],
        handled: Handled,
        counted: set[Hashable],
        settlement: Settlement[Received],
    ) -> None:
        """Add the message to `settlement`. Blocks while dead letters and split items are sent. `counted` are the keys
        that earlier messages of the batch have named.
        """
        decoded, outcomes = evaluated.decoded, evaluated.outcomes
        if not evaluated.failed:
            self._done(evaluated, counted, settlement)
            return
        left = sum(isinstance(outcome, LeftOver) for _, outcome in outcomes)
        transient = sum(isinstance(outcome, TransientFailure) for _, outcome in outcomes)
        if transient > left or (left and left == len(outcomes)):
            # A dependency's failure keeps the message whole.
            self.give_back(decoded.message, decoded.size, settlement)
            return
        try:
            dead, alone = self._failed(evaluated, handled)
            if alone and len(decoded.items) == 1:
                # A single-item message is never sent again, and SQS cannot change it. Its failed attempts are counted
                # with its marks, because its receives include outages.
                self._marks.failed(decoded.message)
                _back(decoded.message, 1, settlement)
                return
            self._publish(dead, [*alone, *self._rest(evaluated)] if left else alone)
        except TransientFailure as failure:
            log.warning("failed items not settled", dependency=failure.dependency, error=failure.error)
            self.give_back(decoded.message, decoded.size, settlement)
            return
        self._done(evaluated, counted, settlement)
        settlement.failed.append(decoded.message.message_id)
        settlement.counts["dead_lettered"] += len(dead)
        settlement.counts["resent"] += len(alone) + left

    def give_back(
        self,
        message: Received,
        items: int,
        settlement: Settlement[Received],
        *,
        at_least_seconds: float = 1.0,
    ) -> None:
        """Return it to the queue for a reason that is not its own. It counts as `items`: as one if it was not read."""
        self._marks.returned(message)
        _back(message, items, settlement, at_least_seconds)

    def _done(
        self, evaluated: Evaluated[I], counted: set[Hashable], settlement: Settlement[Received]
    ) -> None:
        decoded = evaluated.decoded
        self._marks.done(decoded.message)
        settlement.done.append(decoded.message)
        settlement.counts["received"] += decoded.size
        well = [(key, outcome) for key, outcome in evaluated.outcomes if isinstance(outcome, str)]
        first = {key: outcome for key, outcome in well if key not in counted}
        settlement.counts.update(Counter(first.values()))
        # A second item of the same key had nothing left to do.
        settlement.counts["dropped"] += len(well) - len(first)
        counted.update(first)

    def _failed(self, evaluated: Evaluated[I], handled: Handled) -> _Failed:
        """What becomes of items that failed. Raises TransientFailure when attempts cannot be counted."""
        decoded = evaluated.decoded
        message = decoded.message
        attempt = attempt_of(message.attributes)
        if decoded.refused:
            # Perhaps before its proof was checked, so it goes on with the one that it came with.
            proof = self._handler.seal.kept(message) if self._handler.seal else {}
            return _Failed(
                [FailedItem(message, _original_body(message), decoded.refused, attempt, proof=proof)], []
            )
        dead, alone = [], []
        single = len(decoded.items) == 1
        for raw, item, (key, outcome) in zip(decoded.raw(), decoded.items, evaluated.outcomes, strict=True):
            if not isinstance(outcome, Failure) or isinstance(outcome, LeftOver):
                continue
            subject = self._subject(item, key, handled)
            body = self._body(decoded, [raw])
            attempts = attempt
            if single and isinstance(outcome, ItemFailure):
                attempts += self._marks.failures(message)
            if isinstance(outcome, ItemFailure) and attempts < self._max_attempts and body is not None:
                alone.append(self._item(message, body, outcome, attempts + 1, subject))
                continue
            if not isinstance(outcome, PermanentFailure):
                outcome = PermanentFailure(Reason.ATTEMPTS_EXHAUSTED, f"{attempts} attempts: {outcome}")
            dead.append(self._item(message, body or _original_body(message), outcome, attempts, subject))
        return _Failed(dead, alone)

    def _item(
        self,
        message: Received,
        body: bytes,
        failure: Failure,
        attempt: int,
        subject: ItemSubject | None = None,
    ) -> FailedItem:
        """What goes on of a message whose seal was checked. Raises TransientFailure when it cannot be sealed."""
        proof = self._handler.seal.attributes(body) if self._handler.seal else {}
        return FailedItem(message, body, failure, attempt, subject, proof)

    def _subject(self, item: I | PermanentFailure, key: Hashable, handled: Handled) -> ItemSubject | None:
        if isinstance(item, PermanentFailure):
            return None
        try:
            return handled.subjects.get(key) or self._handler.subject(item)
        except Exception as error:
            if not may_be_the_items(error):
                raise
            return None

    def _body(self, decoded: Decoded[I], raw: Sequence[Any]) -> bytes | None:
        """The body of a new message; None for an item that can be read but not written, such as JSON that is nested
        deeper than the encoder goes.
        """
        try:
            return encode(decoded.kind, decoded.correlation_id, raw)
        except Exception as error:
            if not may_be_the_items(error):
                raise
            return None

    def _rest(self, evaluated: Evaluated[I]) -> list[FailedItem]:
        """All leftover items as one new message, whose receives count from zero."""
        decoded = evaluated.decoded
        left = [
            (raw, outcome)
            for raw, (_, outcome) in zip(decoded.raw(), evaluated.outcomes, strict=True)
            if isinstance(outcome, LeftOver)
        ]
        body = self._body(decoded, [raw for raw, _ in left]) or _original_body(decoded.message)
        return [self._item(decoded.message, body, left[0][1], attempt_of(decoded.message.attributes))]

    def _publish(self, dead: Sequence[FailedItem], alone: Sequence[FailedItem]) -> None:
        try:
            self._publisher.publish(dead, alone)
        except Exception as error:
            if not may_be_the_items(error):
                raise
            # The history cannot store these subjects. The bodies came from a queue, so a queue takes them.
            nameless = [replace(item, subject=None) for item in dead]
            self._publisher.publish(nameless, alone)


def _back(
    message: Received, items: int, settlement: Settlement[Received], at_least_seconds: float = 1.0
) -> None:
    seconds = max(at_least_seconds, REDELIVERY.backoff(message.receive_count))
    settlement.again.append((message, seconds))
    settlement.counts["received"] += items
    settlement.counts["returned"] += items


def _original_body(message: Received) -> bytes:
    # A queue carries only UTF-8; a legacy handler's event may hold anything.
    return message.body.encode(errors="backslashreplace")


@dataclass(frozen=True, slots=True)
class FailedItem:
    """A failed item of `message`, as a message of its own."""

    message: Received
    body: bytes  # what that message holds
    failure: Failure
    attempt: int  # counts from 1
    subject: ItemSubject | None = None
    proof: Mapping[str, str] = field(default_factory=dict)  # attributes that say who sent it

    def first_failed_at(self, at: str) -> str:
        """What the message says, else `at`. A value that breaks the grammar may be from anyone who can send."""
        return fit_correlation_id(self.message.attributes.get("firstFailedAt")) or at


class _Failed(NamedTuple):
    dead: list[FailedItem]
    alone: list[FailedItem]  # they go on, each in a message of its own


class History(Protocol):
    """Where dead letters are recorded. Raises TransientFailure."""

    def record(self, dead: Sequence[DeadLetter], /, *, at: str, run_id: str) -> None: ...


class DeadLetterPublisher:
    """Sends failed items to the dead-letter queue with their reason, or alone to their queue for another attempt.

    Records first, then sends: a crash in between repeats both, and the history still has one document.
    """

    def __init__(
        self,
        queue: Queue,
        dead_letter_queue: Queue,
        history: History,
        *,
        run_id: str,
        clock: Callable[[], float] = scheduling.now,
        on_unsent: Callable[[int], None] = lambda _number: None,
    ) -> None:
        """`on_unsent` gets the number of dead letters that the queue did not confirm."""
        self._on_unsent = on_unsent
        self._queue, self._dead_letter_queue, self._history = queue, dead_letter_queue, history
        self._run_id, self._clock = run_id, clock

    def publish(self, dead: Sequence[FailedItem], alone: Sequence[FailedItem]) -> None:
        """Blocks until everything is recorded and confirmed; raises TransientFailure if something is not."""
        if not dead and not alone:
            return
        at = iso(self._clock())
        records = [self._record(item, at) for item in dead]
        if records:
            self._history.record(records, at=at, run_id=self._run_id)
        self._send(
            self._dead_letter_queue,
            [self._outgoing(item, at, record) for item, record in zip(dead, records, strict=True)],
        )
        self._send(self._queue, [self._outgoing(item, at, None) for item in alone])
        # One line each, by which an entry can be followed. Failures are few.
        for record in records:
            log.warning(
                "dead letter",
                queue=record.queue,
                reason=record.failure.reason.value,
                error=record.failure.error,
                messageId=record.message_id,
                correlationId=record.correlation_id,
            )
        for item in alone:
            log.info(
                "item continues alone",
                queue=self._queue.name,
                attempt=item.attempt,
                error=str(item.failure),
                messageId=item.message.message_id,
                correlationId=item.message.correlation_id,
            )

    def _record(self, item: FailedItem, at: str) -> DeadLetter:
        if not isinstance(item.failure, PermanentFailure):
            raise TypeError(
                f"only a permanent failure makes a dead letter, got {type(item.failure).__name__}"
            )
        return DeadLetter(
            queue=self._queue.name,
            message_id=item.message.message_id,
            failure=item.failure,
            correlation_id=item.message.correlation_id,
            first_failed_at=item.first_failed_at(at),
            subject=item.subject,
        )

    def _outgoing(self, item: FailedItem, at: str, record: DeadLetter | None) -> Outgoing:
        attributes = {
            "correlationId": item.message.correlation_id,
            "attempt": str(item.attempt),
            "firstFailedAt": item.first_failed_at(at),
            "origin": item.message.origin,
            **item.proof,
            **inject(),
        }
        if record is not None:
            attributes |= {
                "reason": record.failure.reason.value,
                "error": record.failure.error,
                "fingerprint": record.fingerprint,
                "source": self._queue.name,
            }
        return Outgoing(item.body, attributes)

    def _send(self, queue: Queue, messages: Sequence[Outgoing]) -> None:
        failures = queue.send(messages) if messages else []
        if failures:
            if queue is self._dead_letter_queue:
                self._on_unsent(len(failures))
            raise TransientFailure(QUEUE_SERVICE, f"{queue.name}: {len(failures)} messages not confirmed")
