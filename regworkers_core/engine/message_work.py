"""From messages to settled messages: decode, handle, then acknowledge, give back, split or dead-letter.

What is done with the items is the flow's: a `Handler`. What becomes of a message is the same for all flows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import structlog

from regworkers_core.domain.dead_letter import Subject
from regworkers_core.domain.messages import MessageType, decode, encode
from regworkers_core.domain.reasons import (
    Failure,
    ItemFailure,
    LeftOver,
    PermanentFailure,
    Reason,
    TransientFailure,
)
from regworkers_core.engine.dead_letters import DeadLetterOffice, Letter
from regworkers_core.engine.dependency import RetryPolicy
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.ports import Received
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.observability.tracing import span

I = TypeVar("I")  # noqa: E741 (an item)
log = structlog.get_logger(__name__)
# How long a message stays hidden after a failure, by the number of its receives. A dependency that is away
# opens its breaker, so these waits are for short troubles.
REDELIVERY = RetryPolicy(first_cap_seconds=2.0, last_cap_seconds=30.0)


# Not frozen: one is made for every item, and that would triple what it costs.
@dataclass(slots=True)
class Asked(Generic[I]):
    """One parsed item, and the message that asked for it: the first one, where what failed of it was sent on."""

    item: I
    message_id: str
    correlation_id: str


@dataclass(slots=True)
class Handled:
    """One outcome of `engine.drain.OUTCOMES` or a Failure for the key of every item; `counts` beside them.

    `subjects` says of a failed key what its dead letter is about where that is not what its item says.
    """

    outcomes: dict[Any, str | Failure] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    lags: list[float] = field(default_factory=list)
    subjects: dict[Any, Subject] = field(default_factory=dict)


class Handler(Protocol[I]):
    """What a flow does with the items of its messages. Called from the drain's threads."""

    @property
    def kind(self) -> MessageType:
        """The one type of message that it takes."""
        ...

    def parse(self, raw: object) -> I:
        """Read one raw item. Raises PermanentFailure: the item becomes a dead letter."""
        ...

    def key(self, item: I) -> Hashable:
        """Items of one batch with equal keys are the same work: the second one counts as `dropped`."""
        ...

    def subject(self, item: I) -> Subject:
        """What a dead letter of this item is about."""
        ...

    def handle(self, asked: Sequence[Asked[I]]) -> Handled:
        """Do the work of a batch (items of all its messages; equal keys may come more than once, and there
        may be none). Raises TransientFailure when a dependency failed for the batch as a whole: all is kept.

        An outcome TransientFailure keeps the message whole; PermanentFailure makes the item a dead letter
        now; ItemFailure lets it go on alone, a capped number of times; what is LeftOver goes on together.
        """
        ...


@dataclass(slots=True)
class Decoded(Generic[I]):
    """One message: its items in order, each either parsed or refused."""

    message: Received
    kind: MessageType
    correlation_id: str = ""
    items: list[I | PermanentFailure] = field(default_factory=list)
    refused: PermanentFailure | None = None

    @property
    def size(self) -> int:
        """What the message counts for in `received`: a body that cannot be read counts as one item."""
        return 1 if self.refused else len(self.items)

    def raw(self) -> Sequence[Any]:
        """The items as they came. Read anew for the few that fail: to keep them all is most of a batch's memory, and
        memory that is not used again at once costs more time than what is done with it.
        """
        return decode(self.message.body, self.kind).items


def decode_message(message: Received, handler: Handler[I]) -> Decoded[I]:
    """Never raises: what is wrong with the body or with an item is part of the answer."""
    known = message.attributes.get("correlationId") or message.message_id
    try:
        envelope = decode(message.body, handler.kind)
    except PermanentFailure as failure:
        return Decoded(message, handler.kind, known, refused=failure)
    decoded: Decoded[I] = Decoded(message, handler.kind, envelope.correlation_id or known)
    items, parse = decoded.items, handler.parse
    for raw in envelope.items:
        try:
            items.append(parse(raw))
        except PermanentFailure as failure:
            items.append(failure)
    return decoded


def gather(batch: Sequence[Decoded[I]]) -> list[Asked[I]]:
    """The items that could be read, in the order of their messages."""
    return [
        Asked(item, decoded.message.origin, decoded.correlation_id)
        for decoded in batch
        for item in decoded.items
        if not isinstance(item, PermanentFailure)
    ]


class MessageWork(Generic[I]):
    """The drain's work on messages: `Work[Received]`. `name` is that of the drain."""

    def __init__(
        self,
        name: str,
        handler: Handler[I],
        office: DeadLetterOffice,
        *,
        max_attempts: int,
        on_step: OnStep = no_step,
    ) -> None:
        self._name = name
        self._handler = handler
        self._office = office
        self._max_attempts = max_attempts
        self._on_step = on_step

    def __call__(self, messages: Sequence[Received]) -> Settlement[Received]:
        settlement = Settlement[Received]()
        batch = [decode_message(message, self._handler) for message in messages]
        with span(
            self._name, sources=[message.attributes for message in messages], messages=len(messages)
        ) as current:
            try:
                handled = self._handler.handle(gather(batch))
                current.set_attribute("items", len(handled.outcomes))
            except TransientFailure as failure:
                log.warning("batch given back", dependency=failure.dependency, error=failure.error)
                for decoded in batch:
                    self._return(decoded, settlement)
                return settlement
            settlement.lags.extend(handled.lags)
            settlement.counts.update(handled.counts)
            counted: set[Hashable] = set()
            for decoded in batch:
                self._settle(decoded, handled, counted, settlement)
        self._on_step(f"{self._name}.before_delete")
        return settlement

    def _settle(
        self,
        decoded: Decoded[I],
        handled: Handled,
        counted: set[Hashable],
        settlement: Settlement[Received],
    ) -> None:
        outcomes = [self._outcome(item, handled) for item in decoded.items]
        if decoded.refused is None and not any(isinstance(outcome, Failure) for _, outcome in outcomes):
            self._done(decoded, outcomes, counted, settlement)
            return
        left = sum(isinstance(outcome, LeftOver) for _, outcome in outcomes)
        transient = sum(isinstance(outcome, TransientFailure) for _, outcome in outcomes)
        if transient > left or (left and left == len(outcomes)):
            # A dependency's failure keeps the message whole.
            self._return(decoded, settlement)
            return
        letters, alone = self._failed(decoded, outcomes, handled)
        if alone and len(decoded.items) == 1:
            # A single-item message is never sent again: its receives are its attempts.
            self._return(decoded, settlement)
            return
        try:
            self._office.post(letters, [*alone, *self._rest(decoded, outcomes)] if left else alone)
        except TransientFailure as failure:
            log.warning("dead letters not confirmed", dependency=failure.dependency, error=failure.error)
            self._return(decoded, settlement)
            return
        self._done(decoded, outcomes, counted, settlement)
        settlement.counts["dead_lettered"] += len(letters)
        settlement.counts["resent"] += len(alone) + left

    @staticmethod
    def _done(
        decoded: Decoded[I],
        outcomes: Sequence[tuple[Hashable, str | Failure]],
        counted: set[Hashable],
        settlement: Settlement[Received],
    ) -> None:
        settlement.done.append(decoded.message)
        settlement.counts["received"] += decoded.size
        well = [(key, outcome) for key, outcome in outcomes if isinstance(outcome, str)]
        first = dict(well)
        for key in counted & first.keys():
            del first[key]
        settlement.counts.update(Counter(first.values()))
        # The second one that names a key had nothing left to do.
        settlement.counts["dropped"] += len(well) - len(first)
        counted.update(first)

    def _outcome(self, item: I | PermanentFailure, handled: Handled) -> tuple[Hashable, str | Failure]:
        if isinstance(item, PermanentFailure):
            return None, item
        key = self._handler.key(item)
        return key, handled.outcomes[key]

    def _failed(
        self, decoded: Decoded[I], outcomes: Sequence[tuple[Hashable, str | Failure]], handled: Handled
    ) -> tuple[list[Letter], list[Letter]]:
        """Dead letters, and items that go on alone."""
        message = decoded.message
        attempt = _attempt(message)
        if decoded.refused:
            # A queue carries nothing but UTF-8; who calls by hand may bring anything.
            body = message.body.encode(errors="backslashreplace")
            return [Letter(message, body, decoded.refused, attempt)], []
        letters, alone = [], []
        single = len(decoded.items) == 1
        for raw, item, (key, outcome) in zip(decoded.raw(), decoded.items, outcomes, strict=True):
            if not isinstance(outcome, Failure) or isinstance(outcome, LeftOver):
                continue
            subject = (
                None
                if isinstance(item, PermanentFailure)
                else handled.subjects.get(key) or self._handler.subject(item)
            )
            body = encode(self._handler.kind, decoded.correlation_id, [raw])
            attempts = attempt + (message.receive_count - 1 if single else 0)
            if isinstance(outcome, PermanentFailure):
                letters.append(Letter(message, body, outcome, attempts, subject))
            elif attempts >= self._max_attempts:
                exhausted = PermanentFailure(Reason.ATTEMPTS_EXHAUSTED, f"{attempts} attempts: {outcome}")
                letters.append(Letter(message, body, exhausted, attempts, subject))
            elif isinstance(outcome, ItemFailure):
                alone.append(Letter(message, body, outcome, attempts + 1, subject))
        return letters, alone

    def _rest(self, decoded: Decoded[I], outcomes: Sequence[tuple[Hashable, str | Failure]]) -> list[Letter]:
        """What is left over, as one message: nobody has received it yet, so its receives count from the start."""
        left = [
            (raw, outcome)
            for raw, (_, outcome) in zip(decoded.raw(), outcomes, strict=True)
            if isinstance(outcome, LeftOver)
        ]
        body = encode(self._handler.kind, decoded.correlation_id, [raw for raw, _ in left])
        return [Letter(decoded.message, body, left[0][1], _attempt(decoded.message))]

    def _return(self, decoded: Decoded[I], settlement: Settlement[Received]) -> None:
        seconds = max(1.0, REDELIVERY.backoff(decoded.message.receive_count))
        settlement.again.append((decoded.message, seconds))
        settlement.counts["received"] += decoded.size
        settlement.counts["returned"] += decoded.size


def _attempt(message: Received) -> int:
    text = message.attributes.get("attempt", "1")
    return max(1, int(text)) if text.isascii() and text.isdigit() else 1
