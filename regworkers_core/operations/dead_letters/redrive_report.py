"""What a redrive found and did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from shlex import quote
from typing import Any

from regworkers_core.operations.dead_letters.browse import Seen
from regworkers_core.operations.dead_letters.canary import FOLLOWS, CanaryOutcome
from regworkers_core.operations.dead_letters.choosing import Choice
from regworkers_core.operations.dead_letters.groups import OTHERS, Groups
from regworkers_core.operations.dead_letters.looking import Look
from regworkers_core.operations.dead_letters.moving import Moved
from regworkers_core.operations.dead_letters.queues import DeadQueue


class RedriveEnded(StrEnum):
    """UNFINISHED: there is more than one pass could take, or SQS gave up; run it again. STOPPED: by a signal."""

    COUNTED = "counted"
    DONE = "done"
    UNFINISHED = "unfinished"
    STOPPED = "stopped"


@dataclass(slots=True)
class RedriveReport:
    """`canaries` has the outcome and `sent` the messages by fingerprint; `moved_by_sqs` are beside those. `closed`
    documents of the history were overtaken by the truth.
    """

    queue: DeadQueue
    dry_run: bool
    groups: Groups = field(default_factory=Groups)
    seen: Seen = field(default_factory=Seen)
    canaries: dict[str, CanaryOutcome] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    moved_by_sqs: int = 0
    doubled: int = 0
    refused: int = 0
    unsent: int = 0
    closed: int = 0
    mover: str = "own"
    trouble: str = ""
    ended: RedriveEnded = RedriveEnded.UNFINISHED

    def add_look(self, look: Look) -> None:
        self.seen.add(self.queue, look)
        self.seen.fitting = sum(group.messages for group in self.groups)

    def add_moved(self, moved: Moved) -> None:
        self.sent.update(letter.fingerprint for letter in moved.sent)
        self.doubled += moved.doubled
        self.refused += moved.refused
        self.unsent += moved.unsent

    def is_whole(self, choice: Choice) -> bool:
        """Whether everything that is on the queue shall go, just as it is: then SQS may move it. It cannot leave
        anything out, and does not set attempts back.
        """
        return (
            choice.is_everything
            and not self.seen.partly
            and not self.seen.hidden
            and all(
                group.fingerprint != OTHERS
                and group.sendable == group.messages
                and not group.attempted
                and self.canaries.get(group.fingerprint, CanaryOutcome.NONE) in FOLLOWS
                for group in self.groups
            )
        )

    @property
    def sent_messages(self) -> int:
        return self.sent.total() + self.moved_by_sqs

    @property
    def stopped_causes(self) -> dict[str, CanaryOutcome]:
        return {cause: outcome for cause, outcome in self.canaries.items() if outcome not in FOLLOWS}

    @property
    def finished(self) -> bool:
        """Whether everything that should go has gone (of a dry run: was counted)."""
        if self.dry_run:
            return self.ended is RedriveEnded.COUNTED
        trouble = self.stopped_causes or self.unsent or self.refused
        return self.ended is RedriveEnded.DONE and not trouble

    @property
    def advice(self) -> str:
        lines = []
        sendable = sum(group.sendable for group in self.groups)
        droppable = sum(group.droppable for group in self.groups)
        unreadable = sum(group.unreadable for group in self.groups)
        name = quote(self.queue.source)
        if self.dry_run and sendable:
            lines.append(
                f"nothing was sent: add --yes to send {sendable} messages, canaries of each cause first"
            )
        for cause, outcome in self.stopped_causes.items():
            lines.append(_stopped(cause, outcome, name))
        if self.ended is RedriveEnded.UNFINISHED or (self.ended is RedriveEnded.STOPPED and not self.dry_run):
            lines.append("run it again: it goes on with what is still there")
        if self.unsent:
            lines.append(f"{self.unsent} messages could not be sent now and are still there")
        if droppable:
            lines.append(f"{droppable} messages are superseded or gone: `regworkers dlq drop {name}`")
        if again := sum(group.fail_again - group.unreadable for group in self.groups):
            lines.append(f"{again} messages would fail again as things stand: mend what they are about first")
        if unreadable:
            lines.append(
                f"{unreadable} bodies cannot be read and are not sent: `regworkers dlq drop {name} --verdict "
                "unreadable`"
            )
        return "\n".join(lines)

    def numbers(self) -> dict[str, Any]:
        """What is kept of the action."""
        return {
            "ended": self.ended.value,
            "seen": self.seen.messages,
            "sent": self.sent_messages,
            "mover": self.mover,
            "doubled": self.doubled,
            "refused": self.refused,
            "unsent": self.unsent,
            "closed": self.closed,
            "stoppedCauses": {cause: outcome.value for cause, outcome in self.stopped_causes.items()},
        }

    def as_dict(self) -> dict[str, Any]:
        groups = [
            {
                **group.as_dict(),
                "sendable": group.sendable,
                "sent": self.sent[group.fingerprint],
                "canary": self.canaries.get(group.fingerprint, CanaryOutcome.NONE).value,
            }
            for group in self.groups
        ]
        return {
            "queue": self.queue.name,
            "to": self.queue.source,
            "dryRun": self.dry_run,
            **self.numbers(),
            "hidden": self.seen.hidden,
            "partly": self.seen.partly,
            "groups": groups,
            "trouble": self.trouble or None,
            "advice": self.advice,
        }


def _stopped(cause: str, outcome: CanaryOutcome, queue: str) -> str:
    match outcome:
        case CanaryOutcome.UNANSWERED:
            return f"{cause}: nobody took the canaries in time, so the rest stays: is a drain of {queue} running?"
        case CanaryOutcome.NOT_TAKEN:
            return f"{cause}: {queue} did not take the canaries, so the rest stays: run it again later"
        case CanaryOutcome.FAILED_AGAIN:
            return f"{cause}: the same failure came back, so the rest stays: mend the cause first"
        case _:
            return f"{cause}: the canaries failed for another reason now, so the rest stays: `regworkers dlq groups`"
