"""A queue: what the engine and the flows ask of one (`Queue`), and how a drain reads it (`QueueSource`)."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import structlog

from fairdraw import scheduling
from regworkers_core.domain.messages import fit_correlation_id
from regworkers_core.domain.reasons import TransientFailure

log = structlog.get_logger(__name__)
# The dependency whose guard makes the calls of all queues.
QUEUE_SERVICE = "sqs"
# The most messages that one receive of a `Queue` returns.
MAX_RECEIVE = 10
# A message that was received more often without a recorded outcome may be killing workers (`engine.marks`). A drain
# that is replaced costs a receive now and then.
UNANSWERED = 3


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send, hidden for its first `delay_seconds` (at most 900, the limit of SQS). The adapter leaves out
    empty attributes.
    """

    body: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: int = 0


@dataclass(frozen=True, slots=True)
class SendFailure:
    """Message number `index` of a send was not confirmed. `permanent`: a repeat cannot help."""

    index: int
    error: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class Received:
    """A received message."""

    message_id: str
    receipt: str  # what names this delivery of it to the queue
    body: str  # as it was sent
    attributes: Mapping[str, str]  # of the sender, by name
    receive_count: int  # counts from 1
    sent_at: float | None = None  # epoch seconds, None: unknown

    @property
    def correlation_id(self) -> str:
        """Empty if the attribute breaks the grammar: a value that others set may be a fan's data."""
        return fit_correlation_id(self.attributes.get("correlationId"))

    @property
    def known_as(self) -> str:
        """Its correlation id, else its message id, else a new id: never empty."""
        return self.correlation_id or fit_correlation_id(self.message_id) or uuid.uuid4().hex

    @property
    def origin(self) -> str:
        """The id of the first message of its items. A part that is sent on alone, and a dead letter that is redriven,
        get a message id of their own.
        """
        return fit_correlation_id(self.attributes.get("origin")) or self.message_id


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Approximate counts of messages."""

    visible: int
    in_flight: int
    delayed: int

    @property
    def total(self) -> int:
        return self.visible + self.in_flight + self.delayed


class NotHidden(NamedTuple):
    """Messages that are still visible: `lost` are deleted or with others, `failed` may still be ours."""

    lost: Sequence[Received] = ()
    failed: Sequence[Received] = ()


class DepthAndRetention(NamedTuple):
    depth: QueueDepth
    retention_seconds: float  # the declared one where the server has no such attribute


class Queue(Protocol):
    """One queue. Every method blocks for one or more calls and raises TransientFailure if the queue is unavailable."""

    @property
    def name(self) -> str: ...

    def send(self, messages: Sequence[Outgoing], *, within_seconds: float | None = None) -> list[SendFailure]:
        """Send in as few calls as possible. Returns what was **not** confirmed: empty means all are durable."""
        ...

    def receive(self, limit: int, wait_seconds: float, visibility_seconds: int) -> list[Received]:
        """Up to `limit` (at most MAX_RECEIVE) messages, hidden from others for `visibility_seconds`."""
        ...

    def delete(self, messages: Sequence[Received]) -> list[Received]:
        """Delete, and return those that could not be. One that is already gone or redelivered counts as deleted."""
        ...

    def change_visibility(self, messages: Sequence[tuple[Received, int]]) -> NotHidden:
        """Hide each message for its seconds (0 gives it back). Returns those that were not hidden."""
        ...

    def depth(self) -> QueueDepth: ...

    def state(self) -> DepthAndRetention: ...


class Beside(Protocol):
    """What works beside a drain in threads of its own: it ends with the source, and adds to its counts."""

    def close(self) -> None: ...
    def counts(self) -> Counter[str]: ...


class QueueSource:
    """A queue as `engine.drain.Source[Received]`. A message is held from its receive until it is settled. `clock` is in
    seconds.
    """

    beside: Beside | None = None

    def __init__(
        self,
        queue: Queue,
        *,
        batch_messages: int,
        wait_seconds: float,
        visibility_seconds: int,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._queue = queue
        self._batch_messages = batch_messages
        self._wait_seconds = wait_seconds
        self._visibility_seconds = visibility_seconds
        self._lock = scheduling.lock()
        self._clock = clock
        # Each by its receipt, with the time until which it is surely hidden from others: counted from before the call.
        self._held: dict[str, tuple[Received, float]] = {}
        # Received since the last heartbeat: they are hidden for long enough.
        self._young: set[str] = set()
        self._deleting: set[str] = set()
        self._counts: Counter[str] = Counter()

    def receive(self) -> list[Received]:
        """Up to `batch_messages`. Further receives follow the first only while they come back full."""
        batch: list[Received] = []
        while len(batch) < self._batch_messages:
            limit = min(MAX_RECEIVE, self._batch_messages - len(batch))
            asked = self._clock()
            wait_seconds = 0.0 if batch else self._wait_seconds
            try:
                messages = self._queue.receive(limit, wait_seconds, self._visibility_seconds)
            except TransientFailure:
                # Earlier messages are held: dropping them here would hide them until the drain ends.
                if not batch:
                    raise
                break
            with self._lock:
                self._keep(messages, asked)
                self._young.update(message.receipt for message in messages)
            batch.extend(messages)
            if len(messages) < limit:
                break
        if again := [message for message in batch if self._needs_hiding(message)]:
            # The batch does not depend on it.
            with suppress(TransientFailure):
                self._keep_hidden(again)
        return batch

    def _needs_hiding(self, message: Received) -> bool:
        """A message that kills this process should soon be visible again. One that came after a long wait may have been
        handed out at its begin.
        """
        with self._lock:
            held = self._held.get(message.receipt)
        if held is None:
            # Let go meanwhile.
            return False
        left = held[1] - self._clock()
        return message.receive_count > UNANSWERED or left < self._visibility_seconds / 2

    def acknowledge(self, done: Sequence[Received]) -> None:
        """Delete those that are still hidden from others. Another one may be with a drain that reads a later state and
        dies: then only this message brings that work again, so it stays, at the cost of a repeat.
        """
        now = self._clock()
        with self._lock:
            ours = [message for message in done if self._is_hidden(message, now)]
            self._deleting.update(message.receipt for message in ours)
        try:
            left = self._queue.delete(ours) if ours else []
        finally:
            self._release(done)
        if late := len(done) - len(ours) + len(left):
            log.warning("messages not deleted, they will come again", count=late)
            if late == len(done):
                raise TransientFailure(QUEUE_SERVICE, f"none of {len(done)} messages was deleted")

    def give_back(self, again: Sequence[tuple[Received, float]]) -> None:
        """Hide those that are still hidden from others for their pause. The queue may take an old receipt, too, and
        would hand out again soon what another drain is at work on.
        """
        now = self._clock()
        with self._lock:
            ours = [(each, round(seconds)) for each, seconds in again if self._is_hidden(each, now)]
        self._release([message for message, _ in again])
        if ours:
            self._hide(ours)

    def heartbeat(self) -> None:
        """Hide what the last heartbeat found, too, for another visibility time. A message that was lost to others is
        released; one that could not be hidden is tried again with the next heartbeat.
        """
        with self._lock:
            held = [message for receipt, (message, _) in self._held.items() if receipt not in self._young]
            self._young.clear()
        if not held:
            return
        lost, failed = self._keep_hidden(held)
        with self._lock:
            # A message that was settled in the meantime is gone because this drain deleted it.
            taken = [each for each in lost if each.receipt in self._held.keys() - self._deleting]
            extended = len(held) - len(lost) - len(failed)
            self._counts.update(visibility_extended=extended, visibility_lost=len(taken))
        self._release(taken)
        if taken:
            log.warning("messages lost to others before they were settled", count=len(taken))

    def may_idle(self) -> bool:
        return True

    def let_go(self) -> None:
        with self._lock:
            held = [each for receipt, (each, _) in self._held.items() if receipt not in self._deleting]
            self._held = {}
        if held:
            self._hide([(message, 0) for message in held])

    def close(self) -> None:
        if self.beside is not None:
            self.beside.close()
            self._counts.update(self.beside.counts())
        self.let_go()

    def counts(self) -> Counter[str]:
        return self._counts

    def _is_hidden(self, message: Received, now: float) -> bool:
        """Whether no other drain can have received it meanwhile. Call with the lock."""
        held = self._held.get(message.receipt)
        return held is not None and now < held[1]

    def _hide(self, messages: Sequence[tuple[Received, int]]) -> NotHidden:
        missed = self._queue.change_visibility(messages)
        if missed.failed:
            with self._lock:
                self._counts["visibility_failed"] += len(missed.failed)
            log.warning("visibility not changed", count=len(missed.failed))
        return missed

    def _keep_hidden(self, messages: Sequence[Received]) -> NotHidden:
        asked = self._clock()
        missed = self._hide([(message, self._keep_seconds(message)) for message in messages])
        visible = {message.receipt for message in (*missed.lost, *missed.failed)}
        with self._lock:
            self._keep([each for each in messages if each.receipt in self._held.keys() - visible], asked)
        return missed

    def _keep(self, messages: Sequence[Received], asked: float) -> None:
        self._held.update(
            (message.receipt, (message, asked + self._keep_seconds(message))) for message in messages
        )

    def _keep_seconds(self, message: Received) -> int:
        """There are five heartbeats in a visibility time. A message that came often gets half of it."""
        whole = self._visibility_seconds
        return whole if message.receive_count <= UNANSWERED else math.ceil(whole / 2)

    def _release(self, messages: Sequence[Received]) -> None:
        with self._lock:
            for message in messages:
                self._held.pop(message.receipt, None)
                self._deleting.discard(message.receipt)
