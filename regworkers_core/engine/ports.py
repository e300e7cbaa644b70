"""What the engine and the flows ask of a queue: a narrow Protocol, so that tests bring small fakes."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from regworkers_core.domain.messages import fit_correlation_id


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send, hidden for its first `delay_seconds` (at most 900, which is SQS's limit). Attributes are
    strings; empty ones are left out by the adapter.
    """

    body: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: int = 0


@dataclass(frozen=True, slots=True)
class SendFailure:
    """Message number `index` of a send was not confirmed; `permanent` when a repeat cannot help."""

    index: int
    error: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class Received:
    """A received message. `receive_count` starts at 1; `sent_at` in epoch seconds, None where nobody said."""

    message_id: str
    receipt: str
    body: str
    attributes: Mapping[str, str]
    receive_count: int
    sent_at: float | None = None

    @property
    def correlation_id(self) -> str:
        """Empty where the attribute is none: what others put there may be a fan's data."""
        return fit_correlation_id(self.attributes.get("correlationId"))

    @property
    def known_as(self) -> str:
        """A correlation id in any case: of a message without one its own id, and a new one where that is none."""
        return self.correlation_id or fit_correlation_id(self.message_id) or uuid.uuid4().hex

    @property
    def origin(self) -> str:
        """The id of the message that asked first: what is sent on of a message, or sent again after it was a dead
        letter, has an id of its own.
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
    """Messages whose visibility was not changed: `lost` are deleted or visible to others by now, `failed` may still be
    ours.
    """

    lost: Sequence[Received] = ()
    failed: Sequence[Received] = ()


class Queue(Protocol):
    """One queue. Every method raises TransientFailure when the queue cannot be reached."""

    @property
    def name(self) -> str: ...

    def send(self, messages: Sequence[Outgoing]) -> list[SendFailure]:
        """Send in as few calls as possible and return what was **not** confirmed: empty means all are durable."""
        ...

    def receive(self, limit: int, wait_seconds: float, visibility_seconds: int) -> list[Received]:
        """Up to `limit` (at most 10) messages, hidden from others for `visibility_seconds`."""
        ...

    def delete(self, messages: Sequence[Received]) -> list[Received]:
        """Delete and return those that could not be; one that is already gone or redelivered counts as deleted."""
        ...

    def change_visibility(self, messages: Sequence[tuple[Received, int]]) -> NotHidden:
        """Hide each message for the seconds beside it (0 gives it back), and return those that were not hidden."""
        ...

    def depth(self) -> QueueDepth: ...
