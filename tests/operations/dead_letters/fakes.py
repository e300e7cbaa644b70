"""A dead-letter queue of any size that makes its messages when they are received, and a source that may refuse."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.queue import NotHidden, Outgoing, QueueDepth, Received, SendFailure

Make = Callable[[int], Received]


class EndlessQueue:
    """`size` messages by number. What is received stays hidden until it is given back; only counts are kept."""

    name = "replication-queue-dlq"

    def __init__(self, size: int, make: Make) -> None:
        self._size, self._make = size, make
        self._next = 0
        self.given_back = 0
        self.visibility_seconds = 0
        self.over_limit_at: int | None = None

    def receive(self, limit: int, wait_seconds: float, visibility_seconds: int) -> list[Received]:
        if self.over_limit_at is not None and self._next >= self.over_limit_at:
            raise TransientFailure("sqs", "OverLimit")
        self.visibility_seconds = visibility_seconds
        first, self._next = self._next, min(self._next + limit, self._size)
        return [self._make(number) for number in range(first, self._next)]

    def change_visibility(self, messages: Sequence[tuple[Received, int]]) -> NotHidden:
        assert all(seconds == 0 for _, seconds in messages)
        self.given_back += len(messages)
        return NotHidden()

    def delete(self, messages: Sequence[Received]) -> list[Received]:
        raise AssertionError("a browser deletes nothing")

    def send(self, messages: Sequence[Outgoing]) -> list[SendFailure]:
        raise AssertionError("a browser sends nothing")

    def depth(self) -> QueueDepth:
        return QueueDepth(self._size - self._next, 0, 0)


class MemoryQueue:
    """A small queue whose sends and deletes fail as set: by the index in a call, or by message id."""

    def __init__(self, name: str, waiting: Sequence[Received] = ()) -> None:
        self.name = name
        self.waiting = deque(waiting)
        self.hidden: dict[str, Received] = {}
        self.sent: list[Outgoing] = []
        self.refused: dict[int, bool] = {}
        self.undeletable: set[str] = set()

    def send(self, messages: Sequence[Outgoing]) -> list[SendFailure]:
        self.sent += [message for index, message in enumerate(messages) if index not in self.refused]
        return [SendFailure(index, "fake", permanent) for index, permanent in self.refused.items()]

    def receive(self, limit: int, wait_seconds: float, visibility_seconds: int) -> list[Received]:
        taken = [self.waiting.popleft() for _ in range(min(limit, len(self.waiting)))]
        self.hidden.update((message.receipt, message) for message in taken)
        return taken

    def delete(self, messages: Sequence[Received]) -> list[Received]:
        left = [message for message in messages if message.message_id in self.undeletable]
        for message in messages:
            if message.message_id not in self.undeletable:
                self.hidden.pop(message.receipt, None)
        return left

    def change_visibility(self, messages: Sequence[tuple[Received, int]]) -> NotHidden:
        for message, _ in messages:
            if message.receipt in self.hidden:
                self.waiting.append(self.hidden.pop(message.receipt))
        return NotHidden()

    def depth(self) -> QueueDepth:
        return QueueDepth(len(self.waiting), len(self.hidden), 0)
