"""A few of every cause first, and what becomes of them decides about the rest of that cause."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from regworkers_core.engine.ports import Queue
from regworkers_core.operations.dead_letters.closing import PROVABLE
from regworkers_core.operations.dead_letters.letters import DeadMessage
from regworkers_core.operations.dead_letters.queues import DeadQueue
from regworkers_core.operations.dead_letters.truth import SETTLED, Judge

# The depth of a queue is approximate for some seconds after a send: it has to read empty for this share of the limit.
_EMPTY_SHARE = 0.1
_LOOKS = 60
# What the history keeps of an item that names nothing: sent again it fails for another cause, under another id.
_NAMELESS: Mapping[str, str | int | None] = {"campaignId": None, "entryId": None}


class CanaryOutcome(StrEnum):
    """Only PASSED and NONE let the rest follow. NOT_TAKEN: their queue did not take a single one."""

    PASSED = "passed"
    FAILED_AGAIN = "failed again"
    FAILED_OTHERWISE = "failed otherwise"
    UNANSWERED = "unanswered"
    NOT_TAKEN = "not taken"
    NONE = "none"


FOLLOWS = frozenset({CanaryOutcome.PASSED, CanaryOutcome.NONE})


class Failures(Protocol):
    """What the history tells of failures since a moment."""

    def came_back(self, queue: str, fingerprint: str, since: str) -> bool: ...

    def failed_since(
        self, queue: str, subjects: Sequence[Mapping[str, str | int | None]], since: str
    ) -> str | None: ...


class CanaryWatch:
    """Waits for canaries, all causes at once. `since` is an ISO time from before the first of them was sent."""

    def __init__(
        self,
        queue: DeadQueue,
        source: Queue,
        failures: Failures,
        judge: Judge,
        *,
        since: str,
        limit_seconds: float,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        stopped: Callable[[], bool],
    ) -> None:
        self._queue, self._source, self._failures, self._judge = queue, source, failures, judge
        self._since, self._limit_seconds = since, limit_seconds
        self._sleep, self._clock, self._stopped = sleep, clock, stopped

    def wait(self, canaries: Mapping[str, Sequence[DeadMessage]]) -> dict[str, CanaryOutcome]:
        """By fingerprint. Raises TransientFailure when a store cannot answer."""
        outcomes: dict[str, CanaryOutcome] = {}
        end = self._clock() + self._limit_seconds
        empty_since: float | None = None
        while len(outcomes) < len(canaries):
            # The depth before the failures: what failed is recorded before its message leaves the queue.
            now = self._clock()
            empty_since = (empty_since or now) if self._source.depth().total == 0 else None
            drained = empty_since is not None and now - empty_since >= self._limit_seconds * _EMPTY_SHARE
            for cause, letters in canaries.items():
                if cause not in outcomes and (found := self._outcome(cause, letters, drained)) is not None:
                    outcomes[cause] = found
            if now >= end or self._stopped():
                break
            if len(outcomes) < len(canaries):
                self._sleep(self._limit_seconds / _LOOKS)
        return {cause: outcomes.get(cause, CanaryOutcome.UNANSWERED) for cause in canaries}

    def _outcome(self, cause: str, letters: Sequence[DeadMessage], drained: bool) -> CanaryOutcome | None:
        if self._failures.came_back(self._queue.source, cause, self._since):
            return CanaryOutcome.FAILED_AGAIN
        items = [item for letter in letters for item in letter.items]
        subjects: list[Mapping[str, str | int | None]] = [item.fields for item in items if item.fields]
        if len(subjects) < len(items):
            subjects.append(_NAMELESS)
        if subjects and self._failures.failed_since(self._queue.source, subjects, self._since) is not None:
            return CanaryOutcome.FAILED_OTHERWISE
        if drained:
            return CanaryOutcome.PASSED
        if self._queue.kind in PROVABLE and all(judged.verdict in SETTLED for judged in self._judge(letters)):
            return CanaryOutcome.PASSED
        return None
