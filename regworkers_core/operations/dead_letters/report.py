"""Dead letters by cause: how many, since when, whether they increase, what helps; and what a redrive did about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from shlex import quote
from typing import Any

from fairdraw.documents import as_document
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.reasons import Reason
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.operations.dead_letters.browse import (
    Read,
    Seen,
    matching,
    never,
    open_browser,
)
from regworkers_core.operations.dead_letters.model import Choice, DeadMessage, DeadQueue
from regworkers_core.operations.dead_letters.rounds import Growth, Outcome
from regworkers_core.operations.dead_letters.verdict import SETTLED, Assess, Assessed, DeadLetterVerdict
from regworkers_core.runtime import Runtime

# More causes than an operator reads; what exceeds them is counted as one cause without a fingerprint.
MOST_CAUSES = 500
OTHERS = ""
_EXAMPLES = 3
# Shown of the past of each cause.
HOURS = 24
# Failures of the last hour relative to the hour before; a smaller change is noise.
_RISING, _FALLING = 1.5, 1 / 1.5


class Trend(StrEnum):
    """Failures of the last hour against the hour before; `unknown` if the history has none of this cause."""

    RISING = "rising"
    STEADY = "steady"
    FALLING = "falling"
    UNKNOWN = "unknown"


def trend(before: int, recent: int) -> Trend:
    """Compare two windows of equal length."""
    if not before and not recent:
        return Trend.UNKNOWN
    if recent > before * _RISING:
        return Trend.RISING
    return Trend.FALLING if recent < before * _FALLING else Trend.STEADY


@dataclass(slots=True)
class Cause:
    """The messages of one cause in one queue. Times are epoch seconds."""

    queue: DeadQueue
    fingerprint: str
    reason: str
    # What failed.
    error: str
    messages: int = 0
    items: int = 0
    # When a message of it first failed.
    first_seen: float | None = None
    # When a message of it last failed.
    last_seen: float | None = None
    # Ids of some items.
    examples: list[str] = field(default_factory=list)
    # Assessed messages by verdict.
    verdicts: Counter[DeadLetterVerdict] = field(default_factory=Counter)
    # Messages that would certainly fail again.
    fail_again: int = 0
    # Messages whose body cannot be read.
    unreadable: int = 0
    trend: Trend = Trend.UNKNOWN
    # The failures of each of the last 24 as the history has them, the latest last.
    hours: list[int] = field(default_factory=list)
    # The operators' name of it.
    name: str = ""
    # The operators' note on it.
    note: str = ""

    def add(self, message: DeadMessage, assessed: Assessed | None = None) -> None:
        self.messages += 1
        self.items += len(message.items)
        self.unreadable += message.unreadable is not None
        if message.first_failed is not None:
            self.first_seen = min(message.first_failed, self.first_seen or message.first_failed)
        if message.last_failed is not None:
            self.last_seen = max(message.last_failed, self.last_seen or message.last_failed)
        if len(self.examples) < _EXAMPLES:
            self.examples.append(next((item.id for item in message.items if item.id), message.id))
        if assessed is not None:
            self.verdicts[assessed.verdict] += 1
            self.fail_again += assessed.fails_again

    @property
    def droppable(self) -> int:
        return sum(self.verdicts[verdict] for verdict in SETTLED)

    @property
    def sendable(self) -> int:
        """Messages that a redrive sends: those that may be needed and can be read."""
        return self.messages - self.droppable - self.unreadable

    @property
    def command(self) -> str:
        queue = quote(self.queue.source)
        cause = f" --fingerprint {self.fingerprint}" if self.fingerprint else ""
        if self.unreadable == self.messages:
            return f"regworkers dlq drop {queue}{cause} --verdict unreadable"
        if self.reason in _SENDER_REASONS:
            return f"regworkers dlq drop {queue}{cause} --verdict unreadable --verdict unknown"
        if self.verdicts and self.droppable == self.messages:
            return f"regworkers dlq drop {queue}{cause}"
        return f"regworkers dlq redrive {queue}{cause}"

    @property
    def advice(self) -> str:
        if self.unreadable == self.messages and self.reason == Reason.INVALID_ENTRY:
            return "replication refuses their keys: correct the items in the table, then drop them; a copy is kept"
        if self.unreadable == self.messages and self.reason not in _SENDER_REASONS:
            return "these cannot be read: find their sender, then drop them; a copy is kept"
        if MessageType.NOTIFY in self.queue.kinds and self.reason == Reason.RECEIVED_TOO_OFTEN:
            return "the mailer did not accept these: ask its operators, then redrive; it drops repeats by key"
        return _ADVICE.get(self.reason, "read an example with `regworkers dlq show`")

    def as_dict(self) -> dict[str, Any]:
        found = as_document(
            self,
            "reason",
            "error",
            "name",
            "note",
            "messages",
            "items",
            "trend",
            "hours",
            "examples",
            "advice",
        )
        found["command"] = self.command
        found |= {
            "queue": self.queue.name,
            "fingerprint": self.fingerprint or None,
            "firstSeen": None if self.first_seen is None else iso(self.first_seen),
            "lastSeen": None if self.last_seen is None else iso(self.last_seen),
        }
        if self.verdicts:
            found["verdicts"] = {verdict.value: self.verdicts[verdict] for verdict in DeadLetterVerdict}
            found["failAgain"] = self.fail_again
        return found


# Failures of the message's sender: nothing on this side makes the message valid.
_SENDER_REASONS = frozenset({Reason.FORGED, Reason.INVALID_BODY, Reason.MISSING_KEY, Reason.UNKNOWN_TYPE})
_ADVICE: Mapping[str, str] = {
    Reason.INVALID_ENTRY: "correct the entries in the demand table with a higher version: that change replicates",
    Reason.DUPLICATE_KEY: "two entries claim one value of a unique index: correct one of them, then redrive",
    Reason.FORGED: "none of our roles signed these: find out who sent them, then drop them; name them in a redrive "
    "only if their key should have been accepted",
    Reason.INVALID_EVENT: "correct the writer of these events, or publish the schema that allows them, then redrive",
    Reason.ATTEMPTS_EXHAUSTED: "the cause may be over: redrive, its first messages show it",
    Reason.RECEIVED_TOO_OFTEN: "workers died on these: read the drains' logs, then redrive, its first messages show it",
    Reason.DEFECT: "the code has a defect where the error says: deploy a version without it, then redrive",
    Reason.KILLED: "workers die of these: find out why with one of them, deploy the fix, then redrive",
    Reason.INVALID_BODY: "the sender of these breaks the contract: correct it, then drop them",
    Reason.MISSING_KEY: "the sender of these breaks the contract: correct it, then drop them",
    Reason.UNKNOWN_TYPE: "sent to the wrong queue: correct the sender, then drop them",
    Reason.UNSUPPORTED_VERSION: "the sender is newer than these workers: deploy the workers, then redrive",
    Reason.RESULT_MISMATCH: "the chunk is not part of the committed result: check the draw before any redrive",
    Reason.KEY_CONFLICT: "what is stored contradicts the plan: check the draw before any redrive",
    Reason.CODE_CONFLICT: "codes were claimed by another process: check the market's codes, then redrive",
    Reason.COUNT_MISMATCH: "the counts of the draw do not agree: check the draw before any redrive",
    Reason.SERVICE_REFUSED: "a service refused these: check it (`regworkers service check`), then redrive",
}


class Causes:
    """A bounded table of causes."""

    def __init__(self, most: int = MOST_CAUSES) -> None:
        self._most = most
        self._causes: dict[tuple[str, str], Cause] = {}

    def add(self, message: DeadMessage, assessed: Assessed | None = None) -> None:
        key = (message.queue.name, message.fingerprint)
        if key not in self._causes and len(self._causes) >= self._most:
            key = (message.queue.name, OTHERS)
        if key not in self._causes:
            named = ("several", "") if key[1] == OTHERS else (message.reason, message.error)
            self._causes[key] = Cause(message.queue, key[1], *named)
        self._causes[key].add(message, assessed)

    def add_all(self, messages: Sequence[DeadMessage], assess: Assess | None) -> list[Assessed]:
        """Returns what `assess` found of each message, nothing without it."""
        assessed = assess(messages) if assess is not None and messages else []
        for number, message in enumerate(messages):
            self.add(message, assessed[number] if assessed else None)
        return assessed

    def read_history(self, runtime: Runtime, queue: DeadQueue, now: float) -> None:
        """Add what the history has of each cause, and what operators call it."""
        causes = {cause.fingerprint: cause for cause in self if cause.queue == queue and cause.fingerprint}
        if not causes:
            return
        history = runtime.dead_letters
        for fingerprint, named in history.named_causes(list(causes)).items():
            causes[fingerprint].name, causes[fingerprint].note = named.name, named.note
        found = history.failures(queue.source, iso(now - HOURS * 3600))
        for fingerprint, cause in causes.items():
            cause.hours = [0] * HOURS
            for begin, failures in found.get(fingerprint, {}).items():
                ago = now - (seconds(f"{begin}0:00.000Z") or now)
                cause.hours[-1 - min(HOURS - 1, max(0, int(ago // 3600)))] += failures
            cause.trend = trend(*cause.hours[-2:])

    def get(self, message: DeadMessage) -> Cause | None:
        name = message.queue.name
        return self._causes.get((name, message.fingerprint)) or self._causes.get((name, OTHERS))

    def knows(self, message: DeadMessage) -> bool:
        """Whether the message's cause has a row of its own."""
        return (message.queue.name, message.fingerprint) in self._causes

    def total(self, number: str) -> int:
        return sum(getattr(cause, number) for cause in self)

    def __iter__(self) -> Iterator[Cause]:
        """The largest first."""
        return iter(sorted(self._causes.values(), key=lambda cause: (-cause.messages, cause.fingerprint)))

    def __len__(self) -> int:
        return len(self._causes)


def count_causes(
    runtime: Runtime,
    queues: Sequence[DeadQueue],
    choice: Choice,
    *,
    assess: Assess | None = None,
    stopped: Callable[[], bool] = never,
    on_progress: Progress = no_progress,
) -> Read[Causes]:
    """Causes with their trends; with `assess` also the verdict on every message."""
    causes, seen, now = Causes(), Seen(), runtime.clock()
    for queue in queues:
        with open_browser(runtime, queue, stopped=stopped) as browser:
            for messages in matching(browser, queue, choice, now, on_progress):
                seen.fitting += len(messages)
                causes.add_all(messages, assess)
        seen.add(queue, browser)
        causes.read_history(runtime, queue, now)
    return Read(causes, seen)


class RedriveEnded(StrEnum):
    """UNFINISHED: more than a pass could take; run it again. STOPPED: by a signal."""

    COUNTED = "counted"
    DONE = "done"
    UNFINISHED = "unfinished"
    STOPPED = "stopped"


@dataclass(slots=True)
class RedriveReport:
    """What a redrive did."""

    queue: DeadQueue
    dry_run: bool
    # The causes of the messages.
    groups: Causes = field(default_factory=Causes)
    # How much was read.
    seen: Seen = field(default_factory=Seen)
    # How each cause went, by fingerprint.
    growth: dict[str, Growth] = field(default_factory=dict)
    # Messages that were sent, by fingerprint.
    sent: Counter[str] = field(default_factory=Counter)
    # Messages that were sent and could not be deleted: they will be met again.
    doubled: int = 0
    # Messages that can never be sent.
    refused: int = 0
    # Messages that could not be sent now.
    unsent: int = 0
    # Documents of the history that were settled by their verdict.
    closed: int = 0
    # Messages that match, and are sent only if they are named.
    forged: int = 0
    # Why it ended.
    ended: RedriveEnded = RedriveEnded.UNFINISHED

    def hold(self, forged: int) -> None:
        self.forged += forged

    @property
    def stopped_causes(self) -> dict[str, Outcome]:
        return {
            cause: growth.outcome
            for cause, growth in self.growth.items()
            if growth.outcome is not Outcome.NONE
        }

    @property
    def failed(self) -> int:
        """Messages that failed again, or that the queue did not take."""
        return sum(growth.failed for growth in self.growth.values())

    @property
    def finished(self) -> bool:
        """Whether everything that should be sent was sent and none failed again (in a dry run: counted)."""
        if self.dry_run:
            return self.ended is RedriveEnded.COUNTED
        return self.ended is RedriveEnded.DONE and not (self.stopped_causes or self.failed)

    @property
    def advice(self) -> str:
        lines = []
        sendable, droppable = self.groups.total("sendable"), self.groups.total("droppable")
        unreadable = self.groups.total("unreadable")
        name = quote(self.queue.source)
        if self.dry_run and sendable:
            lines.append(
                f"nothing was sent: add --apply to send {sendable} messages, 1 of each cause first, then 5, 20, 100"
            )
        named = {each.fingerprint: f" ({each.name})" for each in self.groups if each.name}
        for cause, outcome in self.stopped_causes.items():
            lines.append(f"{cause}{named.get(cause, '')}: {_STOPPED[outcome].format(queue=name)}")
        if self.ended is RedriveEnded.UNFINISHED or (self.ended is RedriveEnded.STOPPED and not self.dry_run):
            lines.append("run it again: it continues with what is still there")
        if self.forged:
            lines.append(
                f"{self.forged} messages that no role has signed stay: find their sender, `regworkers dlq list {name} "
                f"--reason {Reason.FORGED}`"
            )
        if again := self.failed - self.unsent - self.refused:
            lines.append(f"{again} messages failed again and are dead letters as before")
        if self.unsent:
            lines.append(f"{self.unsent} messages could not be sent now and are still there")
        if droppable:
            lines.append(f"{droppable} messages are superseded or gone: `regworkers dlq drop {name}`")
        if again := self.groups.total("fail_again") - unreadable:
            lines.append(f"{again} messages would fail again: correct what was refused first")
        if unreadable:
            lines.append(
                f"{unreadable} bodies cannot be read and are not sent: `regworkers dlq drop {name} --verdict "
                "unreadable`"
            )
        return "\n".join(lines)

    def numbers(self) -> dict[str, Any]:
        """What the record of the action keeps."""
        numbers = as_document(
            self, "ended", "doubled", "refused", "unsent", "failed", "forged", "closed", "stopped_causes"
        )
        return {**numbers, "seen": self.seen.messages, "sent": self.sent.total()}

    def as_dict(self) -> dict[str, Any]:
        groups = [
            {
                **cause.as_dict(),
                "sendable": cause.sendable,
                "sent": self.sent[cause.fingerprint],
                "failed": self.growth.get(cause.fingerprint, Growth()).failed,
                "outcome": self.growth.get(cause.fingerprint, Growth()).outcome.value,
            }
            for cause in self.groups
        ]
        return {
            "queue": self.queue.name,
            "to": self.queue.source,
            "dryRun": self.dry_run,
            **self.numbers(),
            "hidden": self.seen.hidden,
            "partly": self.seen.partly,
            "groups": groups,
            "advice": self.advice,
        }


_STOPPED = {
    Outcome.UNANSWERED: "no worker took what was sent in time, so the rest stays: is a drain of {queue} running?",
    Outcome.NOT_TAKEN: "{queue} did not take what was sent, so the rest stays: run it again later",
    Outcome.FAILED_AGAIN: "failures return, so the rest stays: fix the cause first, `regworkers dlq groups`",
}
