"""The rounds of a redrive: each cause grows by itself, 1, 5, 20, 100, ... messages, and stops when too many fail again.

Messages are known by what they are about: a failure that the history records of the same entry or chunk is theirs, for
whichever cause. A round is bounded, so a cause that turns bad costs at most about four times what went well before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from fairdraw import scheduling
from regworkers_core.adapters.mongo.dead_letters import SUBJECT_FIELDS
from regworkers_core.engine.queue import Queue
from regworkers_core.operations.dead_letters.model import DeadMessage, DeadQueue
from regworkers_core.operations.dead_letters.verdict import PROVABLE, SETTLED, Assess

# A cause stops when more messages failed than these few and this share of those sent. A few odd messages stop no cause;
# one that is still broken costs four.
_FEW, _SHARE = 3, 0.1
# All that one round of all causes sends: what may fail before the next look, and what is held in memory.
MOST_IN_ROUND = 10_000
# A queue's depth is approximate for some seconds after a send: it has to read empty for this share of the limit.
_EMPTY_SHARE = 0.1
_POLLS = 60
_PAGE = 500


class Outcome(StrEnum):
    """Why a cause is not sent further. NOT_TAKEN: its queue accepts nothing of it. UNANSWERED: no outcome in time."""

    NONE = "none"
    FAILED_AGAIN = "failed again"
    UNANSWERED = "unanswered"
    NOT_TAKEN = "not taken"


@dataclass(slots=True)
class Growth:
    """One cause."""

    # The place of its next round among the sizes 1, 5, 20, 100, ...
    step: int = 0
    # Its messages that were sent so far.
    sent: int = 0
    # Those of them that failed; what the queue did not take counts as failed.
    failed: int = 0
    # The dead-letter queue has no further message of it.
    exhausted: bool = False
    # How it ended.
    outcome: Outcome = Outcome.NONE

    @property
    def size(self) -> int:
        """How many messages the next round sends: 1, 5, 20, 100, 400, 2000, ..."""
        whole: int = 20 ** (self.step // 2) * (5 if self.step % 2 else 1)
        return min(MOST_IN_ROUND, whole)

    @property
    def goes_on(self) -> bool:
        return self.outcome is Outcome.NONE and not self.exhausted

    def stops(self, failed: int, sent: int) -> bool:
        """Whether these, with what was before, are too many."""
        return self.failed + failed > _FEW + _SHARE * (self.sent + sent)

    def judge(self, sent: int, failed: int) -> None:
        """After a round: grow if it was whole, shrink if more than the share failed, stop if these are too many."""
        if self.stops(failed, sent):
            self.outcome = Outcome.FAILED_AGAIN
        if failed > _SHARE * sent:
            self.step = max(0, self.step - 1)
        elif sent >= self.size:
            self.step += 1
        self.sent, self.failed = self.sent + sent, self.failed + failed


class Failures(Protocol):
    """What the history recorded since a moment."""

    def failed_since(self, queue: str, since: str) -> list[Mapping[str, Any]]: ...


@dataclass(slots=True)
class Round:
    """The messages that were sent, by cause."""

    queue: DeadQueue
    # The queue to which they go.
    source: Queue
    # Reads what has failed.
    failures: Failures
    # Reads the verdicts.
    assess: Assess
    # An ISO time before the redrive sent anything.
    since: str
    # The causes of all that this redrive sent and that has not failed, by origin.
    passing: dict[str, list[str]] = field(default_factory=dict)
    # How many were sent.
    sent: Counter[str] = field(default_factory=Counter)
    # How many failed.
    failed: Counter[str] = field(default_factory=Counter)
    # Messages without an outcome yet.
    open: dict[str, list[DeadMessage]] = field(default_factory=dict)

    def add(self, messages: Sequence[DeadMessage]) -> None:
        for message in messages:
            self.sent[message.fingerprint] += 1
            self.open.setdefault(message.fingerprint, []).append(message)
            self.passing.setdefault(message.received.origin, []).append(message.fingerprint)

    def look(self) -> None:
        """Count what failed again. Raises TransientFailure."""
        found = self.failures.failed_since(self.queue.source, self.since)
        subjects = {_subject(document) for document in found}
        nameless = {str(document.get("correlationId") or "") for document in found if not _subject(document)}
        for cause, messages in self.open.items():
            self.open[cause] = left = []
            for each in messages:
                if not _has_failed(each, subjects, nameless):
                    left.append(each)
                elif cause in (causes := self.passing[each.received.origin]):
                    # It was not yet met again on the dead-letter queue.
                    causes.remove(cause)
                    self.failed[cause] += 1
        self._forget_empty()

    def wait(
        self,
        *,
        limit_seconds: float,
        stopped: Callable[[], bool],
        sleep: Callable[[float], object] = scheduling.sleep,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        """Until every message has failed, is settled, or its queue stays empty; or until nothing of this happened for
        `limit_seconds`: what is then `open` has no outcome. Raises TransientFailure when a store does not answer.
        """
        moved = clock()
        empty_since: float | None = None
        while self.open:
            # Read the depth before the failures: a failure is recorded before its message leaves the queue.
            now, before = clock(), self._number_open()
            empty_since = (empty_since or now) if self.source.depth().total == 0 else None
            self.look()
            if empty_since is not None and now - empty_since >= limit_seconds * _EMPTY_SHARE:
                self.open = {}
            elif PROVABLE.issuperset(self.queue.kinds):
                self.open = {cause: self._unsettled(messages) for cause, messages in self.open.items()}
                self._forget_empty()
            if self._number_open() < before:
                moved = now
            if now - moved >= limit_seconds or stopped():
                return
            if self.open:
                sleep(limit_seconds / _POLLS)

    def _unsettled(self, messages: list[DeadMessage]) -> list[DeadMessage]:
        """Reads on while pages settle: workers take the oldest first."""
        left: list[DeadMessage] = []
        for start in range(0, len(messages), _PAGE):
            page = messages[start : start + _PAGE]
            waiting = [each.message for each in self.assess(page) if each.verdict not in SETTLED]
            left += waiting
            if len(waiting) == len(page):
                return left + messages[start + _PAGE :]
        return left

    def _number_open(self) -> int:
        return sum(map(len, self.open.values()))

    def _forget_empty(self) -> None:
        self.open = {cause: messages for cause, messages in self.open.items() if messages}


_Subject = tuple[tuple[str, Any], ...]


def _subject(fields: Mapping[str, Any]) -> _Subject:
    """What names the entry or chunk among the fields of an item or a document; empty if nothing does."""
    return tuple((name, fields[name]) for name in SUBJECT_FIELDS if fields.get(name) is not None)


def _has_failed(message: DeadMessage, subjects: Collection[_Subject], nameless: Collection[str]) -> bool:
    """A message with an item that names nothing is known by its correlation id, which a redrive keeps."""
    found = [_subject(item.fields) for item in message.items]
    if any(subject in subjects for subject in found if subject):
        return True
    return not all(found) and (message.received.correlation_id in nameless)
