"""Where failed items go: to the dead-letter queue with their reason, or on alone for another attempt."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from regworkers_core.domain.dead_letter import DeadLetter, Subject
from regworkers_core.domain.messages import fit_correlation_id
from regworkers_core.domain.reasons import Failure, PermanentFailure, TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.ports import Outgoing, Queue, Received
from regworkers_core.observability.tracing import inject

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Letter:
    """A failed item of `message`, as the `body` of a message of its own. `attempt` counts from 1."""

    message: Received
    body: bytes
    failure: Failure
    attempt: int
    subject: Subject | None = None


class History(Protocol):
    def record(self, letters: Sequence[DeadLetter], *, at: str, run_id: str) -> None: ...


class DeadLetterOffice:
    """Records first, then sends: a crash in between repeats both, and the history keeps one document."""

    def __init__(
        self,
        queue: Queue,
        dead_letter_queue: Queue,
        history: History,
        *,
        run_id: str,
        clock: Callable[[], float] = time.time,
        on_unsent: Callable[[int], None] = lambda _letters: None,
    ) -> None:
        """`on_unsent` is told how many dead letters the queue did not confirm."""
        self._on_unsent = on_unsent
        self._queue = queue
        self._dead_letter_queue = dead_letter_queue
        self._history = history
        self._run_id = run_id
        self._clock = clock

    def post(self, dead: Sequence[Letter], alone: Sequence[Letter]) -> None:
        """Raises TransientFailure unless everything is recorded and confirmed."""
        if not dead and not alone:
            return
        at = iso(self._clock())
        records = [self._record(letter, at) for letter in dead]
        if records:
            self._history.record(records, at=at, run_id=self._run_id)
        self._send(
            self._dead_letter_queue,
            [self._outgoing(letter, at, record) for letter, record in zip(dead, records, strict=True)],
        )
        self._send(self._queue, [self._outgoing(letter, at, None) for letter in alone])
        self._tell(records, alone)

    def _tell(self, records: Sequence[DeadLetter], alone: Sequence[Letter]) -> None:
        """A line for each: how one entry is followed. These are exceptions, so they are few."""
        for record in records:
            log.warning(
                "dead letter",
                queue=record.queue,
                reason=record.failure.reason.value,
                error=record.failure.error,
                messageId=record.message_id,
                correlationId=record.correlation_id,
            )
        for letter in alone:
            log.info(
                "item goes on alone",
                queue=self._queue.name,
                attempt=letter.attempt,
                error=str(letter.failure),
                messageId=letter.message.message_id,
                correlationId=letter.message.correlation_id,
            )

    def _record(self, letter: Letter, at: str) -> DeadLetter:
        if not isinstance(letter.failure, PermanentFailure):
            raise TypeError("only a permanent failure makes a dead letter")
        return DeadLetter(
            queue=self._queue.name,
            message_id=letter.message.message_id,
            failure=letter.failure,
            correlation_id=letter.message.correlation_id,
            first_failed_at=_first_failed_at(letter, at),
            subject=letter.subject,
        )

    def _outgoing(self, letter: Letter, at: str, record: DeadLetter | None) -> Outgoing:
        attributes = {
            "correlationId": letter.message.correlation_id,
            "attempt": str(letter.attempt),
            "firstFailedAt": _first_failed_at(letter, at),
            "origin": letter.message.origin,
            **inject(),
        }
        if record is not None:
            attributes |= {
                "reason": record.failure.reason.value,
                "error": record.failure.error,
                "fingerprint": record.fingerprint,
                "source": self._queue.name,
            }
        return Outgoing(letter.body, attributes)

    def _send(self, queue: Queue, messages: Sequence[Outgoing]) -> None:
        failures = queue.send(messages) if messages else []
        if failures:
            if queue is self._dead_letter_queue:
                self._on_unsent(len(failures))
            raise TransientFailure("sqs", f"{queue.name}: {len(failures)} messages not confirmed")


def _first_failed_at(letter: Letter, at: str) -> str:
    """As the message says, where it could be ours: anybody who may send can put anything there."""
    return fit_correlation_id(letter.message.attributes.get("firstFailedAt")) or at
