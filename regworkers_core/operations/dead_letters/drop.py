"""Drop dead letters: only those of the chosen verdicts, and only once a copy of each is durable on S3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Any

from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.dead_letters.browse import (
    OnProgress,
    Seen,
    add_all,
    fitting,
    no_progress,
    open_look,
)
from regworkers_core.operations.dead_letters.choosing import Choice
from regworkers_core.operations.dead_letters.closing import close_moved, close_settled
from regworkers_core.operations.dead_letters.copies import PREFIX, Copies, as_lines
from regworkers_core.operations.dead_letters.groups import Groups
from regworkers_core.operations.dead_letters.letters import DeadMessage
from regworkers_core.operations.dead_letters.queues import DeadQueue
from regworkers_core.operations.dead_letters.truth import SETTLED, Judged, Truths, Verdict
from regworkers_core.operations.dead_letters.working import Working, working
from regworkers_core.runtime import Runtime

# Messages of one object on S3, and the most that is in memory at once.
_PART = 200


@dataclass(frozen=True, slots=True)
class DropOptions:
    """`verdicts` are those that are dropped; by default nothing that may still be needed."""

    choice: Choice = Choice()
    verdicts: frozenset[Verdict] = SETTLED
    dry_run: bool = True


@dataclass(slots=True)
class DropReport:
    """`chosen` messages have one of the verdicts, `dropped` of them are deleted; `copies` is where they are kept.
    `mixed` would be chosen, but hold items that another campaign than the one that was named may need.
    """

    queue: DeadQueue
    dry_run: bool
    verdicts: frozenset[Verdict]
    groups: Groups = field(default_factory=Groups)
    seen: Seen = field(default_factory=Seen)
    chosen: int = 0
    mixed: int = 0
    dropped: int = 0
    left: int = 0
    closed: int = 0
    copies: str | None = None

    @property
    def finished(self) -> bool:
        return not self.seen.partly and not self.left

    @property
    def advice(self) -> str:
        lines = []
        if self.dry_run and self.chosen:
            lines.append(
                f"nothing was dropped: add --confirm {self.queue.source} to drop {self.chosen} messages"
            )
        elif not self.finished:
            lines.append("run it again: it goes on with what is still there")
        unreadable = sum(group.unreadable for group in self.groups)
        if unreadable and Verdict.UNREADABLE not in self.verdicts:
            name = quote(self.queue.source)
            lines.append(
                f"{unreadable} bodies cannot be read: `regworkers dlq drop {name} --verdict unreadable`"
            )
        if self.mixed:
            lines.append(
                f"{self.mixed} messages stay, for they hold items of other campaigns that may be needed: redrive them, "
                "or choose them by --fingerprint without --campaign"
            )
        return "\n".join(lines)

    def numbers(self) -> dict[str, Any]:
        return {
            "seen": self.seen.messages,
            "chosen": self.chosen,
            "mixed": self.mixed,
            "dropped": self.dropped,
            "left": self.left,
            "closed": self.closed,
            "copies": self.copies,
        }

    def as_dict(self) -> dict[str, Any]:
        return {
            "queue": self.queue.name,
            "dryRun": self.dry_run,
            **self.numbers(),
            "hidden": self.seen.hidden,
            "partly": self.seen.partly,
            "groups": [group.as_dict() for group in self.groups],
            "advice": self.advice,
        }


def drop(
    runtime: Runtime,
    queue: DeadQueue,
    truths: Truths,
    options: DropOptions,
    *,
    who: str = "",
    stop: StopSignal | None = None,
    on_progress: OnProgress = no_progress,
    on_step: OnStep = no_step,
) -> DropReport:
    """Count in a dry run, else copy and delete. Raises UsageError while somebody else works on the queue,
    TransientFailure when a dependency does not answer: what has no copy is then still there.
    """
    stop = stop or StopSignal()
    run = _Drop(runtime, queue, truths, options, stop, on_progress, on_step)
    if options.dry_run:
        run.go(None)
        return run.report
    arguments = {**options.choice.as_dict(), "verdicts": sorted(options.verdicts)}
    with working(runtime, queue, "drop", arguments, who=who) as work:
        try:
            run.go(work)
            run.report.closed = close_settled(runtime, queue, truths, by=work.who)
        finally:
            work.result = run.report.numbers()
        work.outcome = "done" if run.report.finished else "stopped"
    return run.report


class _Drop:
    def __init__(
        self,
        runtime: Runtime,
        queue: DeadQueue,
        truths: Truths,
        options: DropOptions,
        stop: StopSignal,
        on_progress: OnProgress,
        on_step: OnStep,
    ) -> None:
        self._runtime, self._queue, self._truths, self._options = runtime, queue, truths, options
        self._stop, self._on_progress, self._on_step = stop, on_progress, on_step
        self._began = runtime.clock()
        self.report = DropReport(queue, options.dry_run, options.verdicts)

    def go(self, work: Working | None) -> None:
        """One pass; without `work` it only counts."""

        def stopped() -> bool:
            return self._stop.is_set or (work is not None and work.lease.lost)

        report, copies = self.report, None
        if work is not None:
            day = iso(self._began)[:10]
            prefix = f"{PREFIX}{self._queue.name}/{day}/{work.action_id}/"
            copies = Copies(self._runtime.objects, prefix)
        with open_look(self._runtime, self._queue, batch_messages=_PART, stopped=stopped) as look:
            for letters in fitting(look, self._queue, self._options.choice, self._began, self._on_progress):
                judged = add_all(report.groups, letters, self._truths)
                chosen = self._chosen(judged)
                report.chosen += len(chosen)
                if chosen and work is not None and copies is not None:
                    look.settled([letter.message for letter in self._drop(chosen, copies, work.who)])
                    report.copies = copies.address
        report.seen.add(self._queue, look)
        report.seen.fitting = sum(group.messages for group in report.groups)

    def _chosen(self, judged: Sequence[Judged]) -> list[DeadMessage]:
        """Who names a campaign does not speak for the others: what they may need stays."""
        campaign_id = self._options.choice.campaign_id
        chosen = []
        for each in judged:
            if each.verdict not in self._options.verdicts:
                continue
            if campaign_id and each.may_be_needed_beyond(campaign_id):
                self.report.mixed += 1
            else:
                chosen.append(each.letter)
        return chosen

    def _drop(self, letters: list[DeadMessage], copies: Copies, who: str) -> list[DeadMessage]:
        """Those that are deleted."""
        days = self._runtime.settings.dead_letters.keep_copies_days
        copies.keep(as_lines(letters, at=self._runtime.clock(), keep_days=days))
        self._on_step("drop.after_copy")
        failed = self._runtime.queue(self._queue.name).delete([letter.message for letter in letters])
        left = {message.receipt for message in failed}
        deleted = [letter for letter in letters if letter.message.receipt not in left]
        self._on_step("drop.after_delete")
        self.report.dropped += len(deleted)
        self.report.left += len(left)
        close_moved(self._runtime, deleted, before=iso(self._runtime.clock()), by=who)
        return deleted
