"""Wait for the canaries: the outcome of a few messages of each cause decides whether the rest of that cause follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from regworkers_core.engine.queue import Queue
from regworkers_core.operations.dead_letters.model import DeadMessage, DeadQueue
from regworkers_core.operations.dead_letters.report import CanaryOutcome
from regworkers_core.operations.dead_letters.verdict import PROVABLE, SETTLED, Assess

# A queue's depth is approximate for some seconds after a send: it has to read empty for this share of the limit.
_EMPTY_SHARE = 0.1
_POLLS = 60
# What the history keeps of an item that names nothing: redriven, it fails for another cause, under another id.
_NAMELESS: Mapping[str, str | int | None] = {"campaignId": None, "entryId": None}


class Failures(Protocol):
    """What the history recorded since a moment."""

    def came_back(self, queue: str, fingerprint: str, since: str) -> bool: ...

    def failed_since(
        self, queue: str, subjects: Sequence[Mapping[str, str | int | None]], since: str
    ) -> str | None: ...


def wait_for_canaries(
    canaries: Mapping[str, Sequence[DeadMessage]],
    queue: DeadQueue,
    source: Queue,
    failures: Failures,
    assess: Assess,
    *,
    since: str,
    limit_seconds: float,
    stopped: Callable[[], bool],
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, CanaryOutcome]:
    """Outcomes by fingerprint, all causes at once. `since` is an ISO time before the first canary was sent.

    Raises TransientFailure when a store does not answer.
    """

    def outcome(cause: str, messages: Sequence[DeadMessage], drained: bool) -> CanaryOutcome | None:
        if failures.came_back(queue.source, cause, since):
            return CanaryOutcome.FAILED_AGAIN
        items = [item for message in messages for item in message.items]
        subjects: list[Mapping[str, str | int | None]] = [item.fields for item in items if item.fields]
        if len(subjects) < len(items):
            subjects.append(_NAMELESS)
        if subjects and failures.failed_since(queue.source, subjects, since) is not None:
            return CanaryOutcome.FAILED_OTHERWISE
        if drained or (queue.kind in PROVABLE and all(each.verdict in SETTLED for each in assess(messages))):
            return CanaryOutcome.PASSED
        return None

    outcomes: dict[str, CanaryOutcome] = {}
    end = clock() + limit_seconds
    empty_since: float | None = None
    while len(outcomes) < len(canaries):
        # Read the depth before the failures: a failure is recorded before its message leaves the queue.
        now = clock()
        empty_since = (empty_since or now) if source.depth().total == 0 else None
        drained = empty_since is not None and now - empty_since >= limit_seconds * _EMPTY_SHARE
        for cause, messages in canaries.items():
            if cause not in outcomes and (found := outcome(cause, messages, drained)) is not None:
                outcomes[cause] = found
        if now >= end or stopped():
            break
        if len(outcomes) < len(canaries):
            sleep(limit_seconds / _POLLS)
    return {cause: outcomes.get(cause, CanaryOutcome.UNANSWERED) for cause in canaries}
