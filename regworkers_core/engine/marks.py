"""Which messages may be killing workers. The receive count of SQS does not show it.

Every receive counts on SQS, however it ended: an outage, a lost node, or a worker that died of this very message. So a
message that came more than `UNANSWERED` times since its last recorded outcome is handled alone, with nothing beside it
in its process, after a durable mark. If the process dies, the mark stays; any outcome, a dependency's failure included,
removes it. A message that would be marked for the third time is not handled any more.

A message of several items is marked as a whole first, then item by item, so that its other items are done. The rows
also count the failed attempts of a message's only item, because its receives do not say how they ended.

Messages that came up to three times cost no call, unless they are given back for the third time.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from fairdraw import scheduling
from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure
from regworkers_core.engine.deadline import step
from regworkers_core.engine.leases import LeaseKey, LeaseRow, LeaseTable
from regworkers_core.engine.queue import UNANSWERED, Received

log = structlog.get_logger(__name__)
# The mark that is not followed by an attempt.
_LAST_MARK = 3
MARKS = "MARK#"
WHOLE = "whole"
_ITEM = "item "
_TURN_SECONDS = 1.0
KILLED = PermanentFailure(Reason.KILLED, "the process ended each time while this was handled alone")


@dataclass(slots=True)
class Mark:
    """The row of one message."""

    row: LeaseRow | None = None
    answered: int = 0  # receives up to the last recorded outcome
    failures: int = 0  # attempts that ended with the failure of the only item
    begun: int = 0  # the receive that began the last attempt
    # Marks of attempts that began and have no outcome yet.
    tries: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, row: LeaseRow | None) -> Mark:
        if row is None:
            return cls()
        numbers = {name: int(text) for name, text in row.state.items() if text.isdigit()}
        answered, failures, begun = (numbers.pop(name, 0) for name in ("answered", "failures", "begun"))
        return cls(row, answered, failures, begun, numbers)

    @property
    def state(self) -> Mapping[str, str]:
        numbers = {"answered": self.answered, "failures": self.failures, "begun": self.begun, **self.tries}
        return {name: str(number) for name, number in numbers.items() if number}


class Marks:
    """The marks of one queue's messages; safe to share between threads, each message in the hands of one. Its methods
    block for up to two calls, mostly none.
    """

    def __init__(self, table: LeaseTable, queue: str) -> None:
        self._table, self._partition = table, MARKS + queue
        # Tells this start's own writes from those of another start of the drain.
        self._owner = uuid.uuid4().hex
        # Messages in hand whose row was read. Each is dropped with the outcome of its message.
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
        """Mark the message as a whole. Returns the number of this attempt (1, 2), None when there must be no other.

        Raises TransientFailure: without its mark it must not be handled.
        """
        mark = self._read(message)
        if message.receive_count < mark.begun:
            # SQS delivered it twice, and the later copy is in hand.
            raise _in_other_hands(message)
        number = mark.tries.get(WHOLE, 0) + 1
        if number >= _LAST_MARK:
            return None
        mark.tries[WHOLE], mark.begun = number, message.receive_count
        self._write(message, mark)
        return number

    def begin_item(self, message: Received, number: int) -> bool:
        """Move the mark from the whole message to one item; False when that must not be attempted again.

        The attempt of the whole message counted for the item, too. Raises TransientFailure.
        """
        mark, part = self._read(message), f"{_ITEM}{number}"
        tries = mark.tries.get(part, 1) + 1
        if tries >= _LAST_MARK:
            return False
        mark.tries |= {part: tries, WHOLE: 1}
        self._write(message, mark)
        return True

    def item_ended(self, message: Received, number: int) -> None:
        """It has an outcome, which the next write stores."""
        self._read(message).tries.pop(f"{_ITEM}{number}", None)

    def items_ended(self, message: Received, number: int) -> None:
        """All items have ended; the message as a whole is to be settled in its attempt `number`. Raises
        TransientFailure.
        """
        mark = self._read(message)
        mark.tries[WHOLE] = number
        self._write(message, mark)

    # Outcomes

    def done(self, message: Received) -> None:
        """It is about to be deleted. Never raises TransientFailure: a row that is left does no harm."""
        mark = self._known.pop(message.message_id, None)
        if mark is None or mark.row is None:
            return
        try:
            self._table.remove(mark.row)
        except TransientFailure as failure:
            log.warning("mark not removed", dependency=failure.dependency, error=failure.error)

    def returned(self, message: Received) -> None:
        """It goes back for a reason that is not its own: its marks and receives so far no longer count. Written once in
        `UNANSWERED` receives. Never raises TransientFailure.
        """
        if message.receive_count >= UNANSWERED:
            try:
                mark = self._read(message)
                if mark.tries or message.receive_count - mark.answered >= UNANSWERED:
                    self._answer(message, mark)
            except TransientFailure as failure:
                log.warning("outcome not recorded", dependency=failure.dependency, error=failure.error)
        self._known.pop(message.message_id, None)

    def failed(self, message: Received) -> None:
        """Its only item failed and will be attempted again. Raises TransientFailure: then this one does not count."""
        mark = self._read(message)
        mark.failures += 1
        self._answer(message, mark)
        self._known.pop(message.message_id, None)

    def _answer(self, message: Received, mark: Mark) -> None:
        mark.answered, mark.begun = message.receive_count, 0
        mark.tries.clear()
        self._write(message, mark)

    def _read(self, message: Received) -> Mark:
        mark = self._known.get(message.message_id)
        if mark is None:
            # A message that comes for the first time has no row.
            row = self._table.get(self._key(message)) if message.receive_count > 1 else None
            mark = self._known[message.message_id] = Mark.of(row)
        return mark

    def _write(self, message: Received, mark: Mark) -> None:
        seen = mark.row
        counter = 1 + (seen.counter if seen else 0)
        row = LeaseRow(self._key(message), self._owner, counter=counter, state=mark.state)
        if not self._table.swap(row, seen):
            # If the answer to a write was lost, its repeat is refused although the write was ours.
            now = self._table.get(row.key)
            if now is None or (now.owner, now.counter) != (row.owner, row.counter):
                raise _in_other_hands(message)
        mark.row = row

    def _key(self, message: Received) -> LeaseKey:
        return LeaseKey(self._partition, message.message_id)


def _in_other_hands(message: Received) -> TransientFailure:
    return TransientFailure("dynamodb", f"another drain is handling message {message.message_id}")


class Solo:
    """Batches beside each other, or one of them alone in this process: a process that dies then died of that one."""

    def __init__(self) -> None:
        self._changed = scheduling.condition()
        self._beside = 0
        self._waiting = 0
        self._alone = False

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Blocks while another is alone or waits to be."""
        with self._changed:
            # Those that wait to be alone go first, or they would wait for ever.
            self._wait_until(lambda: not (self._alone or self._waiting))
            self._beside += 1
        try:
            yield
        finally:
            with self._changed:
                self._beside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Blocks until no other batch runs."""
        with self._changed:
            self._waiting += 1
            self._wait_until(lambda: not (self._alone or self._beside))
            self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def _wait_until(self, holds: Callable[[], bool]) -> None:
        # Who waits for its turn gets on: if a thread hangs, it is the one that works.
        while not self._changed.wait_for(holds, _TURN_SECONDS):
            step()
