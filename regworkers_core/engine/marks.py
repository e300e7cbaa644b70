"""Which messages may be killing workers: what SQS's count of receives cannot tell.

A receive counts on SQS whatever became of it: an outage, a lost node, a worker that died of this very message. So a
message that came more than `UNANSWERED` times since its last recorded outcome is handled alone, with nothing beside
it in its process, after a durable mark. A process that dies leaves its mark behind; any outcome, a failure of a
dependency's too, takes it away. What is marked for the third time is not handled any more.

A message of several items is marked as a whole first, then item by item, so that its other items are done. The rows
also count the failed attempts of a message's only item, for its receives do not say how they ended.

Messages that came up to three times cost no call, unless they are given back for the third time.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure
from regworkers_core.engine.leases import LeaseKey, LeaseRow, LeaseTable
from regworkers_core.engine.ports import Received

log = structlog.get_logger(__name__)
# Receives without a recorded outcome up to which nothing is suspected: a drain that is replaced costs one now and then.
UNANSWERED = 3
# The mark that is not followed by a try.
_LAST_MARK = 3
MARKS = "MARK#"
WHOLE = "whole"
_ITEM = "item "
KILLED = PermanentFailure(Reason.KILLED, "the process ended each time while this was handled alone")


@dataclass(slots=True)
class Mark:
    """What is known of one message: `answered` of its receives lie before its last recorded outcome, `failures` of
    them ended with the failure of its only item; `tries` are the marks of what was begun and has no outcome yet.
    """

    row: LeaseRow | None = None
    answered: int = 0
    failures: int = 0
    tries: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, row: LeaseRow | None) -> Mark:
        if row is None:
            return cls()
        numbers = {name: int(text) for name, text in row.state.items() if text.isdigit()}
        return cls(row, numbers.pop("answered", 0), numbers.pop("failures", 0), numbers)

    @property
    def state(self) -> Mapping[str, str]:
        numbers = {"answered": self.answered, "failures": self.failures, **self.tries}
        return {name: str(number) for name, number in numbers.items() if number}


class Marks:
    """The marks of one queue's messages; safe to share between threads, each message in the hands of one."""

    def __init__(self, table: LeaseTable, queue: str) -> None:
        self._table, self._partition = table, MARKS + queue
        # Whose write a row is: of a drain, and never of another start of it.
        self._owner = uuid.uuid4().hex
        # Of messages in hand whose row was looked at. Each is dropped with the outcome of its message.
        self._known: dict[str, Mark] = {}

    def suspects(self, message: Received) -> bool:
        """Whether it must be handled alone. Raises TransientFailure."""
        if message.receive_count <= UNANSWERED:
            return False
        mark = self._read(message)
        return bool(mark.tries) or message.receive_count - mark.answered > UNANSWERED

    def failures(self, message: Received) -> int:
        """How many of its receives ended with the failure of its only item. Raises TransientFailure."""
        return self._read(message).failures

    def begin(self, message: Received) -> int | None:
        """Mark the message as a whole: which try this is (1, 2), None when it shall not be tried again.

        Raises TransientFailure: without its mark it must not be handled.
        """
        mark = self._read(message)
        number = mark.tries.get(WHOLE, 0) + 1
        if number >= _LAST_MARK:
            return None
        mark.tries[WHOLE] = number
        self._write(message, mark)
        return number

    def begin_item(self, message: Received, number: int) -> bool:
        """Mark one item, which takes the mark from the whole; False when it shall not be tried again.

        The try of the whole was one of the item's, too. Raises TransientFailure.
        """
        mark, part = self._read(message), f"{_ITEM}{number}"
        tries = mark.tries.get(part, 1) + 1
        if tries >= _LAST_MARK:
            return False
        mark.tries |= {part: tries, WHOLE: 1}
        self._write(message, mark)
        return True

    def item_ended(self, message: Received, number: int) -> None:
        """It has an outcome; the next write says so."""
        self._read(message).tries.pop(f"{_ITEM}{number}", None)

    def items_ended(self, message: Received, number: int) -> None:
        """What is left is to settle the message as a whole, in its try `number`. Raises TransientFailure."""
        mark = self._read(message)
        mark.tries[WHOLE] = number
        self._write(message, mark)

    # Outcomes

    def done(self, message: Received) -> None:
        """It is about to be deleted. Never raises TransientFailure: a row that stays does no harm."""
        mark = self._known.pop(message.message_id, None)
        if mark is None or mark.row is None:
            return
        try:
            self._table.remove(mark.row)
        except TransientFailure as failure:
            log.warning("mark not removed", dependency=failure.dependency, error=failure.error)

    def returned(self, message: Received) -> None:
        """It goes back, for a reason that is not its own: what was marked, and every receive so far, count for
        nothing. Written once in `UNANSWERED` receives. Never raises TransientFailure.
        """
        if message.receive_count >= UNANSWERED:
            try:
                mark = self._read(message)
                if mark.tries or message.receive_count - mark.answered >= UNANSWERED:
                    self._answer(message, mark)
            except TransientFailure as failure:
                log.warning("outcome not noted", dependency=failure.dependency, error=failure.error)
        self._known.pop(message.message_id, None)

    def failed(self, message: Received) -> None:
        """Its only item failed and is tried again. Raises TransientFailure: the attempt is not counted then."""
        mark = self._read(message)
        mark.failures += 1
        self._answer(message, mark)
        self._known.pop(message.message_id, None)

    def _answer(self, message: Received, mark: Mark) -> None:
        mark.answered = message.receive_count
        mark.tries.clear()
        self._write(message, mark)

    def _read(self, message: Received) -> Mark:
        mark = self._known.get(message.message_id)
        if mark is None:
            # Nothing was ever noted of what comes for the first time.
            row = self._table.get(self._key(message)) if message.receive_count > 1 else None
            mark = self._known[message.message_id] = Mark.of(row)
        return mark

    def _write(self, message: Received, mark: Mark) -> None:
        seen = mark.row
        counter = 1 + (seen.counter if seen else 0)
        row = LeaseRow(self._key(message), self._owner, counter=counter, state=mark.state)
        if not self._table.swap(row, seen):
            # A write whose answer got lost is refused when it is repeated, and yet it was ours.
            now = self._table.get(row.key)
            if now is None or (now.owner, now.counter) != (row.owner, row.counter):
                raise TransientFailure("dynamodb", "another drain has the message in hand, too")
        mark.row = row

    def _key(self, message: Received) -> LeaseKey:
        return LeaseKey(self._partition, message.message_id)


class Solo:
    """Batches beside each other, or one of them alone in this process: what dies then died of that one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._beside = 0
        self._waiting = 0
        self._alone = False

    @contextmanager
    def beside(self) -> Iterator[None]:
        with self._changed:
            # Those who want to be alone go first, or they would wait for ever.
            self._changed.wait_for(lambda: not (self._alone or self._waiting))
            self._beside += 1
        try:
            yield
        finally:
            with self._changed:
                self._beside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not (self._alone or self._beside))
            self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
