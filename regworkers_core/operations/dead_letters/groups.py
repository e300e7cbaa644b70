"""Failures by cause: how many, since when, whether they become more, and what helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from shlex import quote
from typing import Any

from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.reasons import Reason
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.dead_letters.letters import DeadMessage
from regworkers_core.operations.dead_letters.queues import DeadQueue
from regworkers_core.operations.dead_letters.truth import SETTLED, Judged, Verdict

# More causes than anybody reads; what does not fit is counted as one group without a fingerprint.
MOST_GROUPS = 500
_EXAMPLES = 3
TREND_SECONDS = 3600.0
# Of the earlier window; less than this is noise.
_RISING, _FALLING = 1.5, 1 / 1.5
OTHERS = ""


class Trend(StrEnum):
    """Failures of the last hour against the hour before; `unknown` where the history has none of this cause."""

    RISING = "rising"
    STEADY = "steady"
    FALLING = "falling"
    UNKNOWN = "unknown"


def trend(before: int, recent: int) -> Trend:
    """Of two windows of equal length."""
    if not before and not recent:
        return Trend.UNKNOWN
    if recent > before * _RISING:
        return Trend.RISING
    return Trend.FALLING if recent < before * _FALLING else Trend.STEADY


@dataclass(slots=True)
class Group:
    """One cause in one queue. Times in epoch seconds; `verdicts` counts messages where the truth was asked."""

    queue: DeadQueue
    fingerprint: str
    reason: str
    error: str
    messages: int = 0
    items: int = 0
    first_seen: float | None = None
    last_seen: float | None = None
    examples: list[str] = field(default_factory=list)
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    # Messages that would certainly fail again, and those whose attempts are not the first.
    fail_again: int = 0
    unreadable: int = 0
    attempted: int = 0
    trend: Trend = Trend.UNKNOWN

    def add(self, letter: DeadMessage, judged: Judged | None = None) -> None:
        self.messages += 1
        self.items += len(letter.items)
        self.unreadable += letter.unreadable is not None
        self.attempted += letter.attempt > 1
        if letter.first_failed is not None:
            self.first_seen = min(letter.first_failed, self.first_seen or letter.first_failed)
        if letter.last_failed is not None:
            self.last_seen = max(letter.last_failed, self.last_seen or letter.last_failed)
        if len(self.examples) < _EXAMPLES:
            self.examples.append(next((item.id for item in letter.items if item.id), letter.id))
        if judged is not None:
            self.verdicts[judged.verdict] += 1
            self.fail_again += judged.fails_again

    @property
    def droppable(self) -> int:
        return sum(self.verdicts[verdict] for verdict in SETTLED)

    @property
    def sendable(self) -> int:
        """Messages that a redrive sends: what may still be needed and can be read."""
        return self.messages - self.droppable - self.unreadable

    @property
    def command(self) -> str:
        """What helps, once the cause is mended."""
        queue = quote(self.queue.source)
        cause = f" --fingerprint {self.fingerprint}" if self.fingerprint else ""
        if self.unreadable == self.messages:
            return f"regworkers dlq drop {queue}{cause} --verdict unreadable"
        if self.reason in _SENDERS:
            return f"regworkers dlq drop {queue}{cause} --verdict unreadable --verdict unknown"
        if self.verdicts and self.droppable == self.messages:
            return f"regworkers dlq drop {queue}{cause}"
        return f"regworkers dlq redrive {queue}{cause}"

    @property
    def advice(self) -> str:
        if self.unreadable == self.messages and self.reason == Reason.INVALID_ENTRY:
            return "no keys that replication takes: correct the items in the table, then drop these; a copy is kept"
        if self.unreadable == self.messages and self.reason not in _SENDERS:
            return "these cannot be read: find their sender, then drop them; a copy is kept"
        return _advice(self.queue.kind, self.reason)

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "queue": self.queue.name,
            "fingerprint": self.fingerprint or None,
            "reason": self.reason,
            "error": self.error,
            "messages": self.messages,
            "items": self.items,
            "firstSeen": None if self.first_seen is None else iso(self.first_seen),
            "lastSeen": None if self.last_seen is None else iso(self.last_seen),
            "trend": self.trend.value,
            "examples": list(self.examples),
            "advice": self.advice,
            "command": self.command,
        }
        if self.verdicts:
            found["verdicts"] = {verdict.value: self.verdicts[verdict] for verdict in Verdict}
            found["failAgain"] = self.fail_again
        return found


class Groups:
    """A bounded table of groups."""

    def __init__(self, most: int = MOST_GROUPS) -> None:
        self._most = most
        self._groups: dict[tuple[str, str], Group] = {}

    def add(self, letter: DeadMessage, judged: Judged | None = None) -> Group:
        key = (letter.queue.name, letter.fingerprint)
        if key not in self._groups and len(self._groups) >= self._most:
            key = (letter.queue.name, OTHERS)
        if key not in self._groups:
            told = ("several", "") if key[1] == OTHERS else (letter.reason, letter.error)
            self._groups[key] = Group(letter.queue, key[1], *told)
        group = self._groups[key]
        group.add(letter, judged)
        return group

    def get(self, letter: DeadMessage) -> Group | None:
        name = letter.queue.name
        return self._groups.get((name, letter.fingerprint)) or self._groups.get((name, OTHERS))

    def knows(self, letter: DeadMessage) -> bool:
        """Whether its cause has a group of its own."""
        return (letter.queue.name, letter.fingerprint) in self._groups

    def set_trends(self, queue: DeadQueue, before: Mapping[str, int], recent: Mapping[str, int]) -> None:
        for group in self:
            if group.queue == queue and group.fingerprint:
                group.trend = trend(before.get(group.fingerprint, 0), recent.get(group.fingerprint, 0))

    def __iter__(self) -> Iterator[Group]:
        """The largest first."""
        return iter(sorted(self._groups.values(), key=lambda group: (-group.messages, group.fingerprint)))

    def __len__(self) -> int:
        return len(self._groups)


def total(groups: Iterable[Group]) -> int:
    return sum(group.messages for group in groups)


# Failures of whoever sent the message: nothing here makes it fit.
_SENDERS = frozenset({Reason.INVALID_BODY, Reason.MISSING_KEY, Reason.UNKNOWN_TYPE})
_ADVICE: Mapping[str, str] = {
    Reason.INVALID_ENTRY: "mend the entries in the demand table with a higher version: that change replicates",
    Reason.DUPLICATE_KEY: "two entries claim one value of a unique index: mend one of them, then send again",
    Reason.INVALID_EVENT: "correct the writer of these events, or publish the schema that allows them, then send again",
    Reason.ATTEMPTS_EXHAUSTED: "what failed may be over: send again, the canary tells",
    Reason.RECEIVED_TOO_OFTEN: "workers died on these: look at the drains' logs, then send again, the canary tells",
    Reason.DEFECT: "the code has a defect at the place that the error names: deploy one without it, then send again",
    Reason.KILLED: "workers die of these: find out why at one of them, deploy what helps, then send again",
    Reason.INVALID_BODY: "the sender of these breaks the contract: correct it, then drop them",
    Reason.MISSING_KEY: "the sender of these breaks the contract: correct it, then drop them",
    Reason.UNKNOWN_TYPE: "sent to the wrong queue: correct the sender, then drop them",
    Reason.UNSUPPORTED_VERSION: "a newer sender than these workers: deploy the workers, then send again",
    Reason.RESULT_MISMATCH: "the chunk is not of the committed result: look at the draw before anything is sent again",
    Reason.KEY_CONFLICT: "what stands contradicts the plan: look at the draw before anything is sent again",
    Reason.CODE_CONFLICT: "codes were claimed by somebody else: look at the market's codes, then send again",
    Reason.COUNT_MISMATCH: "the counts of the draw do not agree: look at the draw before anything is sent again",
    Reason.SERVICE_REFUSED: "a service refused these: ask it (`regworkers service check`), then send again",
}


def _advice(kind: MessageType, reason: str) -> str:
    if kind is MessageType.NOTIFY and reason == Reason.RECEIVED_TOO_OFTEN:
        return "the mailer did not take these: ask its operators, then send again; it drops repeats by key"
    return _ADVICE.get(reason, "look at an example with `regworkers dlq show`")
