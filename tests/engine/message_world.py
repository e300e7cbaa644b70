"""Messages, a handler that does as it is reported, and the work between them, over fakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from regworkers_core.domain.messages import DeadLetter, ItemSubject, MessageType, encode
from regworkers_core.domain.reasons import Failure, PermanentFailure, Reason
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.drain_report import OUTCOMES
from regworkers_core.engine.handling import Handled, Requested, Seal
from regworkers_core.engine.marks import Marks
from regworkers_core.engine.message_work import MessageWork
from regworkers_core.engine.queue import Received
from regworkers_core.engine.settling import DeadLetterPublisher
from tests.support.in_memory import MemoryLeaseTable, MemoryQueue

Outcome = str | Failure


class Died(BaseException):
    """The process ended: nothing of ours runs any more."""


class Handler:
    """Items are strings; `outcomes` says what each comes to, `applied` if nothing. Batches that hold one of `errors`
    raise it, and one of `deadly` ends the process.
    """

    kinds = (MessageType.ASSIGN,)
    seal: Seal | None = None

    def __init__(self, **outcomes: Outcome) -> None:
        self.outcomes = outcomes
        self.raises: Failure | None = None
        self.errors: dict[str, Exception] = {}
        self.deadly: set[str] = set()
        self.asked: list[Requested[str]] = []
        self.calls = 0
        # How many items the last call was about.
        self.last = 0

    def parse(self, raw: object, kind: MessageType) -> str:
        if not isinstance(raw, str):
            raise PermanentFailure(Reason.INVALID_BODY, "an item should be a string")
        return raw

    def key(self, item: str) -> str:
        return item

    def subject(self, item: str) -> ItemSubject:
        return ItemSubject(item, {"marketId": item})

    def handle(self, asked: Sequence[Requested[str]]) -> Handled:
        self.asked.extend(asked)
        self.calls, self.last = self.calls + 1, len(asked)
        if self.deadly & {each.item for each in asked}:
            raise Died
        for each in asked:
            if each.item in self.errors:
                raise self.errors[each.item]
        if self.raises is not None:
            raise self.raises
        return Handled({each.item: self.outcomes.get(each.item, "applied") for each in asked})


class History:
    def __init__(self) -> None:
        self.dead_letters: list[DeadLetter] = []

    def record(self, dead_letters: Sequence[DeadLetter], *, at: str, run_id: str) -> None:
        self.dead_letters.extend(dead_letters)


class World:
    def __init__(self, **outcomes: Outcome) -> None:
        self.queue, self.dead, self.history = MemoryQueue(), MemoryQueue(), History()
        self.handler = Handler(**outcomes)
        self.steps: list[str] = []
        self.publisher = DeadLetterPublisher(
            self.queue, self.dead, self.history, run_id="run", clock=lambda: 0.0
        )
        self.table = MemoryLeaseTable()
        self.work = self.process()

    def process(self) -> Callable[[Sequence[Received]], Settlement[Received]]:
        """The work of a process that has just started: it knows no more than what is stored."""
        return MessageWork(
            "fake",
            self.handler,
            self.publisher,
            Marks(self.table, "fake-queue"),
            max_attempts=3,
            on_step=self.steps.append,
        )

    def settle(self, *messages: Received) -> Settlement[Received]:
        """Settles the messages; every item must have one outcome, every message one end."""
        settlement = self.work(messages)
        counts = settlement.counts
        assert counts["received"] == sum(counts[outcome] for outcome in OUTCOMES)
        ended = [*settlement.done, *(message for message, _ in settlement.again)]
        assert sorted(each.message_id for each in ended) == sorted(each.message_id for each in messages)
        return settlement


def message(*items: Any, number: int = 1, receives: int = 1, **attributes: str) -> Received:
    body = encode(MessageType.ASSIGN, "corr", items).decode()
    return Received(f"m{number}", f"r{number}", body, attributes, receives)


def items_of(queue: MemoryQueue) -> list[Any]:
    return [orjson.loads(message.body)["items"] for message in queue.sent]


def reasons_of(queue: MemoryQueue) -> list[str]:
    return [message.attributes["reason"] for message in queue.sent]
