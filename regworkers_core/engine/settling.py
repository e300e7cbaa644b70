"""What becomes of a message once its items have outcomes: acknowledged, given back, split or made dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from regworkers_core.domain.dead_letter import Subject, attempt_of
from regworkers_core.domain.messages import encode
from regworkers_core.domain.reasons import (
    Failure,
    ItemFailure,
    LeftOver,
    PermanentFailure,
    Reason,
    TransientFailure,
)
from regworkers_core.engine.dead_letters import DeadLetterOffice, Letter
from regworkers_core.engine.defects import defect_of, may_be_the_items
from regworkers_core.engine.dependency import RetryPolicy
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.handling import Decoded, Handled, Handler
from regworkers_core.engine.marks import Marks
from regworkers_core.engine.ports import Received

I = TypeVar("I")  # noqa: E741 (an item)
log = structlog.get_logger(__name__)
# How long a message stays hidden after a failure, by the number of its receives. A dependency that is away
# opens its breaker, so these waits are for short troubles.
REDELIVERY = RetryPolicy(first_cap_seconds=2.0, last_cap_seconds=30.0)


@dataclass(frozen=True, slots=True)
class Judged(Generic[I]):
    """A message and the outcome of each of its items, beside the key of each."""

    decoded: Decoded[I]
    outcomes: Sequence[tuple[Hashable, str | Failure]]

    @property
    def failed(self) -> bool:
        return self.decoded.refused is not None or any(
            isinstance(outcome, Failure) for _, outcome in self.outcomes
        )

    @property
    def defects(self) -> list[PermanentFailure]:
        """The failures that are defects of the code. Each may be the second sight of one that was seen already."""
        failures = [self.decoded.refused, *(outcome for _, outcome in self.outcomes)]
        return [
            failure
            for failure in failures
            if isinstance(failure, PermanentFailure) and failure.reason is Reason.DEFECT
        ]


class Settler(Generic[I]):
    """Settles the messages of one drain."""

    def __init__(
        self, handler: Handler[I], office: DeadLetterOffice, marks: Marks, *, max_attempts: int
    ) -> None:
        self._handler, self._office, self._marks = handler, office, marks
        self._max_attempts = max_attempts

    def judge(self, decoded: Decoded[I], handled: Handled) -> Judged[I]:
        return Judged(decoded, [self._outcome(item, handled) for item in decoded.items])

    def _outcome(self, item: I | PermanentFailure, handled: Handled) -> tuple[Hashable, str | Failure]:
        if isinstance(item, PermanentFailure):
            return None, item
        try:
            key = self._handler.key(item)
            return key, handled.outcomes[key]
        except Exception as error:
            if not may_be_the_items(error):
                raise
            return None, defect_of(error)

    def settle(
        self,
        judged: Judged[I],
        handled: Handled,
        counted: set[Hashable],
        settlement: Settlement[Received],
    ) -> None:
        """`counted` are the keys that other messages of the batch have named before."""
        decoded, outcomes = judged.decoded, judged.outcomes
        if not judged.failed:
            self._done(judged, counted, settlement)
            return
        left = sum(isinstance(outcome, LeftOver) for _, outcome in outcomes)
        transient = sum(isinstance(outcome, TransientFailure) for _, outcome in outcomes)
        if transient > left or (left and left == len(outcomes)):
            # A dependency's failure keeps the message whole.
            self.give_back(decoded.message, decoded.size, settlement)
            return
        try:
            letters, alone = self._failed(judged, handled)
            if alone and len(decoded.items) == 1:
                # A single-item message is never sent again, and SQS has no way to write on it: its failed attempts are
                # counted beside its marks, because its receives count outages, too.
                self._marks.failed(decoded.message)
                _back(decoded.message, 1, settlement)
                return
            self._post(letters, [*alone, *self._rest(judged)] if left else alone)
        except TransientFailure as failure:
            log.warning("failed items not settled", dependency=failure.dependency, error=failure.error)
            self.give_back(decoded.message, decoded.size, settlement)
            return
        self._done(judged, counted, settlement)
        settlement.failed.append(decoded.message.message_id)
        settlement.counts["dead_lettered"] += len(letters)
        settlement.counts["resent"] += len(alone) + left

    def give_back(
        self,
        message: Received,
        items: int,
        settlement: Settlement[Received],
        *,
        at_least_seconds: float = 1.0,
    ) -> None:
        """For a reason that is not the message's own. It counts as `items`: as one where it was not read."""
        self._marks.returned(message)
        _back(message, items, settlement, at_least_seconds)

    def _done(self, judged: Judged[I], counted: set[Hashable], settlement: Settlement[Received]) -> None:
        decoded = judged.decoded
        self._marks.done(decoded.message)
        settlement.done.append(decoded.message)
        settlement.counts["received"] += decoded.size
        well = [(key, outcome) for key, outcome in judged.outcomes if isinstance(outcome, str)]
        first = dict(well)
        for key in counted & first.keys():
            del first[key]
        settlement.counts.update(Counter(first.values()))
        # The second one that names a key had nothing left to do.
        settlement.counts["dropped"] += len(well) - len(first)
        counted.update(first)

    def _failed(self, judged: Judged[I], handled: Handled) -> tuple[list[Letter], list[Letter]]:
        """Dead letters, and items that go on alone. Raises TransientFailure when attempts cannot be counted."""
        decoded = judged.decoded
        message = decoded.message
        attempt = attempt_of(message.attributes)
        if decoded.refused:
            return [Letter(message, _as_it_came(message), decoded.refused, attempt)], []
        letters, alone = [], []
        single = len(decoded.items) == 1
        for raw, item, (key, outcome) in zip(decoded.raw(), decoded.items, judged.outcomes, strict=True):
            if not isinstance(outcome, Failure) or isinstance(outcome, LeftOver):
                continue
            subject = self._subject(item, key, handled)
            body = self._body(decoded, [raw])
            attempts = attempt
            if single and isinstance(outcome, ItemFailure):
                attempts += self._marks.failures(message)
            if isinstance(outcome, ItemFailure) and attempts < self._max_attempts and body is not None:
                alone.append(Letter(message, body, outcome, attempts + 1, subject))
                continue
            failure = _final(outcome, attempts)
            letters.append(Letter(message, body or _as_it_came(message), failure, attempts, subject))
        return letters, alone

    def _subject(self, item: I | PermanentFailure, key: Hashable, handled: Handled) -> Subject | None:
        if isinstance(item, PermanentFailure):
            return None
        try:
            return handled.subjects.get(key) or self._handler.subject(item)
        except Exception as error:
            if not may_be_the_items(error):
                raise
            return None

    def _body(self, decoded: Decoded[I], raw: Sequence[Any]) -> bytes | None:
        """The body of a message of its own; None for an item that can be read and not be written: JSON that lies deeper
        than the encoder goes, say.
        """
        try:
            return encode(self._handler.kind, decoded.correlation_id, raw)
        except Exception as error:
            if not may_be_the_items(error):
                raise
            return None

    def _rest(self, judged: Judged[I]) -> list[Letter]:
        """What is left over, as one message that was not received yet, so its receives count from the start."""
        decoded = judged.decoded
        left = [
            (raw, outcome)
            for raw, (_, outcome) in zip(decoded.raw(), judged.outcomes, strict=True)
            if isinstance(outcome, LeftOver)
        ]
        body = self._body(decoded, [raw for raw, _ in left]) or _as_it_came(decoded.message)
        return [Letter(decoded.message, body, left[0][1], attempt_of(decoded.message.attributes))]

    def _post(self, letters: Sequence[Letter], alone: Sequence[Letter]) -> None:
        try:
            self._office.post(letters, alone)
        except Exception as error:
            if not may_be_the_items(error):
                raise
            # The history cannot hold what these are about. What goes to the queue came from one.
            nameless = [
                Letter(letter.message, letter.body, letter.failure, letter.attempt) for letter in letters
            ]
            self._office.post(nameless, alone)


def _back(
    message: Received, items: int, settlement: Settlement[Received], at_least_seconds: float = 1.0
) -> None:
    seconds = max(at_least_seconds, REDELIVERY.backoff(message.receive_count))
    settlement.again.append((message, seconds))
    settlement.counts["received"] += items
    settlement.counts["returned"] += items


def _final(outcome: Failure, attempts: int) -> PermanentFailure:
    if isinstance(outcome, PermanentFailure):
        return outcome
    return PermanentFailure(Reason.ATTEMPTS_EXHAUSTED, f"{attempts} attempts: {outcome}")


def _as_it_came(message: Received) -> bytes:
    # A queue carries nothing but UTF-8; who calls by hand may bring anything.
    return message.body.encode(errors="backslashreplace")
