"""Our own mover: send to the source queue, and only once that is confirmed delete from the dead-letter queue.

Killed in between, a message is on both queues: a repeat, which the guards of every flow take, and never a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from regworkers_core.engine.ports import Queue
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.operations.dead_letters.letters import DeadMessage


@dataclass(slots=True)
class Moved:
    """`sent` were confirmed; of these `doubled` could not be deleted and will be met again. `refused` can never be
    sent (the queue says so), `unsent` could not be now.
    """

    sent: list[DeadMessage] = field(default_factory=list)
    doubled: int = 0
    refused: int = 0
    unsent: int = 0

    def add(self, other: Moved) -> None:
        self.sent.extend(other.sent)
        self.doubled += other.doubled
        self.refused += other.refused
        self.unsent += other.unsent


class Mover:
    def __init__(self, source: Queue, dead: Queue, *, on_step: OnStep = no_step) -> None:
        self._source, self._dead, self._on_step = source, dead, on_step

    def move(self, letters: Sequence[DeadMessage]) -> Moved:
        """One send, one delete. Raises TransientFailure when the delete gets no answer: what was sent is on both
        queues then.
        """
        moved = Moved()
        failures = {
            failure.index: failure for failure in self._source.send([each.revived() for each in letters])
        }
        for index, letter in enumerate(letters):
            failure = failures.get(index)
            if failure is None:
                moved.sent.append(letter)
            elif failure.permanent:
                moved.refused += 1
            else:
                moved.unsent += 1
        self._on_step("redrive.after_send")
        if moved.sent:
            moved.doubled = len(self._dead.delete([letter.message for letter in moved.sent]))
        self._on_step("redrive.after_delete")
        return moved
