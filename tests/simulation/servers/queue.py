"""A queue of the simulated SQS: its messages, those that can be received and those that are hidden."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any


@dataclass(slots=True, eq=False)
class Message:
    """`receipt` counts how often its receipt changed; `visible_at` is when it can be received next."""

    id: str
    body: str
    attributes: Mapping[str, Any]
    sent_at: float
    visible_at: float
    receives: int = 0
    receipt: int = 0
    first_received_at: float | None = None
    source: str = ""


@dataclass(slots=True, eq=False)
class Queue:
    name: str
    arn: str
    url: str
    attributes: dict[str, str]
    messages: dict[str, Message] = field(default_factory=dict)
    # Those that can be received now, in order, and those that become visible later.
    ready: dict[str, Message] = field(default_factory=dict)
    hidden: list[tuple[float, int, Message]] = field(default_factory=list)
    purged_at: float | None = None
    _number: int = 0

    def hide(self, message: Message, until: float) -> None:
        self.ready.pop(message.id, None)
        message.visible_at = until
        self._number += 1
        heappush(self.hidden, (until, self._number, message))

    def show(self, now: float) -> None:
        """Move those whose time has come to `ready`, and drop those past the retention."""
        while self.hidden and self.hidden[0][0] <= now:
            at, _, message = heappop(self.hidden)
            # Its time may have changed since.
            if message.visible_at == at and self.messages.get(message.id) is message:
                self.ready[message.id] = message
        oldest = now - float(self.attributes["MessageRetentionPeriod"])
        while self.messages and next(iter(self.messages.values())).sent_at <= oldest:
            self.drop(next(iter(self.messages.values())))

    def drop(self, message: Message) -> None:
        self.messages.pop(message.id, None)
        self.ready.pop(message.id, None)

    def add(self, message: Message, now: float) -> None:
        self.messages[message.id] = message
        if message.visible_at > now:
            self.hide(message, message.visible_at)
        else:
            self.ready[message.id] = message

    @property
    def redrive(self) -> tuple[str, int] | None:
        """The ARN of the dead-letter queue, and how often a message is received before it goes there."""
        policy = self.attributes.get("RedrivePolicy")
        if not policy:
            return None
        found = json.loads(policy)
        return str(found["deadLetterTargetArn"]), int(found["maxReceiveCount"])
