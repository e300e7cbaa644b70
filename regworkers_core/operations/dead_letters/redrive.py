"""Send dead letters again: count first, a few of every cause as canaries, then the rest of what they prove.

All progress is in the queues themselves: whoever runs it again after a kill goes on with what is still there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.rate import TokenBucket
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.dead_letters.browse import (
    OnProgress,
    add_all,
    fitting,
    no_progress,
    open_look,
    set_trends,
)
from regworkers_core.operations.dead_letters.canary import FOLLOWS, CanaryOutcome, CanaryWatch
from regworkers_core.operations.dead_letters.choosing import Choice
from regworkers_core.operations.dead_letters.closing import close_cause, close_moved, close_settled
from regworkers_core.operations.dead_letters.groups import OTHERS, Group, total
from regworkers_core.operations.dead_letters.letters import DeadMessage
from regworkers_core.operations.dead_letters.moving import Moved, Mover
from regworkers_core.operations.dead_letters.queues import DeadQueue
from regworkers_core.operations.dead_letters.redrive_report import RedriveEnded, RedriveReport
from regworkers_core.operations.dead_letters.truth import SETTLED, Judged, Truths
from regworkers_core.operations.dead_letters.whole_queue import COMPLETED, move_whole
from regworkers_core.operations.dead_letters.working import Working, working
from regworkers_core.runtime import Runtime

# One send: what a kill between send and delete leaves on both queues.
_SEND = 10
# How often the history is asked, while the rest goes, whether a cause is back.
_ASK_SECONDS = 5.0
OnPhase = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RedriveOptions:
    """None: as the settings have it. `rate` is in items a second; `by_sqs`: let SQS move a whole queue itself."""

    choice: Choice = Choice()
    dry_run: bool = True
    canary_messages: int | None = None
    canary_seconds: float | None = None
    rate: float | None = None
    by_sqs: bool = True


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who is told while it runs, and who may stop it. `on_progress` gets messages done and about how many there are."""

    stop: StopSignal
    on_progress: OnProgress = no_progress
    on_phase: OnPhase = lambda _text: None
    on_step: OnStep = no_step


def redrive(
    runtime: Runtime,
    queue: DeadQueue,
    truths: Truths,
    options: RedriveOptions,
    *,
    who: str = "",
    hooks: Hooks | None = None,
) -> RedriveReport:
    """Count in a dry run, else send. Raises UsageError while somebody else works on the queue, TransientFailure when
    a dependency does not answer; the letters are then where they were, or on both queues.
    """
    hooks = hooks or Hooks(StopSignal())
    if options.dry_run:
        run = _Redrive(runtime, queue, truths, options, hooks, None)
        run.count(canaries=0)
        return run.report
    settings = runtime.settings.dead_letters
    arguments = {
        **options.choice.as_dict(),
        "canary": settings.canary_messages if options.canary_messages is None else options.canary_messages,
        "itemsPerSecond": options.rate or settings.redrive_items_per_second,
    }
    with working(runtime, queue, "redrive", arguments, who=who) as work:
        run = _Redrive(runtime, queue, truths, options, hooks, work)
        try:
            run.act()
        finally:
            work.result = run.report.numbers()
        work.outcome = "done" if run.report.finished else "stopped"
        return run.report


class _Redrive:
    """One redrive. Without `work` it only counts."""

    def __init__(
        self,
        runtime: Runtime,
        queue: DeadQueue,
        truths: Truths,
        options: RedriveOptions,
        hooks: Hooks,
        work: Working | None,
    ) -> None:
        self._runtime, self._queue, self._truths = runtime, queue, truths
        self._options, self._hooks, self._work = options, hooks, work
        self._settings = runtime.settings.dead_letters
        self._rate = options.rate or self._settings.redrive_items_per_second
        # What failed later than this is not sent a second time by this redrive.
        self._began = runtime.clock()
        self._since = iso(self._began)
        self._mover = Mover(runtime.queue(queue.source), runtime.queue(queue.name), on_step=hooks.on_step)
        self._bucket = TokenBucket(self._rate, burst=_SEND, sleep=hooks.stop.wait)
        self._asked_at = time.monotonic()
        self.report = RedriveReport(queue, dry_run=options.dry_run)

    def act(self) -> None:
        """Count, canaries, the rest, the history."""
        number = self._options.canary_messages
        canaries = self.count(canaries=self._settings.canary_messages if number is None else number)
        if self.report.ended is not RedriveEnded.STOPPED:
            self._wait_for(canaries)
            self._send_rest()
        if self._stopped():
            self.report.ended = RedriveEnded.STOPPED
        elif any(group.fingerprint == OTHERS and group.sendable for group in self.report.groups):
            self.report.ended = RedriveEnded.UNFINISHED
        self.report.closed = close_settled(self._runtime, self._queue, self._truths, by=self._by())

    def count(self, *, canaries: int) -> dict[str, list[DeadMessage]]:
        """Groups with verdicts, and the first of each group sent while the look still holds them."""
        self._hooks.on_phase("counting")
        number, waiting = Counter[str](), list[DeadMessage]()
        report, groups = self.report, self.report.groups
        with open_look(self._runtime, self._queue, stopped=self._stopped) as look:
            try:
                for letters in fitting(
                    look, self._queue, self._options.choice, self._began, self._hooks.on_progress
                ):
                    for judged in add_all(groups, letters, self._truths):
                        letter = judged.letter
                        wanted = groups.knows(letter) and number[letter.fingerprint] < canaries
                        if wanted and self._may_go(judged):
                            number[letter.fingerprint] += 1
                            waiting.append(letter)
                            look.settled([letter.message])
                report.add_look(look)
                sent = self._send_canaries(waiting)
            finally:
                look.hand_back([letter.message for letter in waiting])
        set_trends(self._runtime, self._queue, groups, self._began)
        if look.complete:
            report.ended = RedriveEnded.COUNTED
        elif self._stopped():
            report.ended = RedriveEnded.STOPPED
        return sent

    def _send_canaries(self, waiting: list[DeadMessage]) -> dict[str, list[DeadMessage]]:
        """By cause. What was sent is taken out of `waiting`; a cause of which nothing was has no leave to follow."""
        sent: dict[str, list[DeadMessage]] = {}
        if waiting:
            self._hooks.on_phase("sending canaries")
        canaries = list(waiting)
        for start in range(0, len(canaries), _SEND):
            if self._stopped():
                return sent
            for letter in self._send(canaries[start : start + _SEND]).sent:
                sent.setdefault(letter.fingerprint, []).append(letter)
                waiting.remove(letter)
        for letter in waiting:
            if letter.fingerprint not in sent:
                self.report.canaries[letter.fingerprint] = CanaryOutcome.NOT_TAKEN
        return sent

    def _wait_for(self, canaries: dict[str, list[DeadMessage]]) -> None:
        if not canaries:
            return
        number = sum(len(letters) for letters in canaries.values())
        self._hooks.on_phase(f"waiting for {number} canaries")
        limit = self._options.canary_seconds or self._settings.canary_seconds
        watch = CanaryWatch(
            self._queue,
            self._runtime.queue(self._queue.source),
            self._runtime.dead_letter_history,
            self._truths,
            since=self._since,
            limit_seconds=limit,
            sleep=self._hooks.stop.wait,
            stopped=self._stopped,
        )
        self.report.canaries.update(watch.wait(canaries))

    def _send_rest(self) -> None:
        left = [group for group in self.report.groups if self._left_of(group) > 0 and self._follows(group)]
        if not left or self._stopped():
            self._pass_ended(whole=True)
            return
        self._hooks.on_phase("sending the rest")
        if not (self._options.by_sqs and self.report.is_whole(self._options.choice) and self._by_sqs()):
            self._by_ourselves(sum(group.items for group in left))

    def _by_sqs(self) -> bool:
        """False where the endpoint cannot."""
        groups = self.report.groups
        expected = sum(self._left_of(group) for group in groups)
        # SQS counts messages, the rate counts items.
        share = min(1.0, total(groups) / max(1, sum(group.items for group in groups)))
        moved = move_whole(
            self._runtime.message_moves,
            self._queue,
            per_second=self._rate * share,
            stopped=self._stopped,
            on_progress=lambda done: self._hooks.on_progress(done, expected),
        )
        if moved is None:
            return False
        report = self.report
        report.mover, report.moved_by_sqs = "sqs", moved.moved
        report.ended = RedriveEnded.DONE if moved.status == COMPLETED else RedriveEnded.UNFINISHED
        report.trouble = moved.failure
        if moved.status == COMPLETED:
            for group in report.groups:
                close_cause(self._runtime, self._queue, group.fingerprint, before=self._since, by=self._by())
        return True

    def _by_ourselves(self, items: int) -> None:
        done, expected = 0, sum(self._left_of(group) for group in self.report.groups)
        with open_look(
            self._runtime, self._queue, seconds_more=items / self._rate, stopped=self._stopped
        ) as look:
            for letters in fitting(look, self._queue, self._options.choice, self._began):
                wanted = self._wanted(letters)
                for start in range(0, len(wanted), _SEND):
                    batch = wanted[start : start + _SEND]
                    if self._stopped() or not self._bucket.take(sum(letter.size for letter in batch)):
                        break
                    moved = self._send(batch)
                    look.settled([letter.message for letter in moved.sent])
                    done += len(moved.sent)
                    self._hooks.on_progress(done, max(expected, done))
                self._ask_whether_it_is_back()
        self._pass_ended(whole=look.complete)

    def _pass_ended(self, *, whole: bool) -> None:
        """Causes that the first look did not come to are still there, however much of the queue a later one saw."""
        done = whole and not self.report.seen.partly
        self.report.ended = RedriveEnded.DONE if done else RedriveEnded.UNFINISHED

    def _wanted(self, letters: Sequence[DeadMessage]) -> list[DeadMessage]:
        """Of the groups that may follow, judged anew: the truth may have moved on since it was counted."""
        due = []
        for letter in letters:
            group = self.report.groups.get(letter)
            if group is not None and self._follows(group) and not self._failed_since(letter):
                due.append(letter)
        return [judged.letter for judged in self._truths(due) if self._may_go(judged)]

    def _failed_since(self, letter: DeadMessage) -> bool:
        return letter.last_failed is not None and letter.last_failed >= self._began

    def _ask_whether_it_is_back(self) -> None:
        if time.monotonic() - self._asked_at < _ASK_SECONDS:
            return
        self._asked_at = time.monotonic()
        for group in self.report.groups:
            if self._follows(group) and self._runtime.dead_letter_history.came_back(
                self._queue.source, group.fingerprint, self._since
            ):
                self.report.canaries[group.fingerprint] = CanaryOutcome.FAILED_AGAIN

    def _send(self, letters: Sequence[DeadMessage]) -> Moved:
        moved = self._mover.move(letters)
        close_moved(self._runtime, moved.sent, before=self._since, by=self._by())
        self.report.add_moved(moved)
        return moved

    def _left_of(self, group: Group) -> int:
        return group.sendable - self.report.sent[group.fingerprint]

    def _follows(self, group: Group) -> bool:
        """Causes beyond those that are told apart had no canary: they wait for the next redrive."""
        outcome = self.report.canaries.get(group.fingerprint, CanaryOutcome.NONE)
        return group.fingerprint != OTHERS and outcome in FOLLOWS

    def _by(self) -> str:
        return self._work.who if self._work is not None else ""

    def _stopped(self) -> bool:
        return self._hooks.stop.is_set or (self._work is not None and self._work.lease.lost)

    @staticmethod
    def _may_go(judged: Judged) -> bool:
        return judged.verdict not in SETTLED and judged.letter.unreadable is None
