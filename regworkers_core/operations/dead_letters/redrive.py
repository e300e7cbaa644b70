"""Send dead letters back to their queue: count, send a few of every cause as canaries, then the rest of what passed.

All progress is in the queues: run it again after a kill, and it continues with what is still there. A message is
deleted only after its send was confirmed. Killed in between, it is on both queues: a repeat, which every flow
tolerates, and never a loss.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from regworkers_core.adapters.aws.sqs import MessageMoves, MoveTask, Unsupported
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.engine.queue import Queue
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.operations.dead_letters.audit import (
    Working,
    close_cause,
    close_moved,
    close_settled,
    working,
)
from regworkers_core.operations.dead_letters.browse import OnProgress, matching, no_progress, open_browser
from regworkers_core.operations.dead_letters.canary import wait_for_canaries
from regworkers_core.operations.dead_letters.model import Choice, DeadMessage, DeadQueue
from regworkers_core.operations.dead_letters.report import (
    FOLLOWS,
    OTHERS,
    CanaryOutcome,
    Cause,
    RedriveEnded,
    RedriveReport,
)
from regworkers_core.operations.dead_letters.verdict import SETTLED, Assessed, Assessor
from regworkers_core.runtime import Runtime

# Messages of one send: as many as a kill between send and delete can leave on both queues.
_SEND = 10
# How often the history is read, while the rest is sent, for causes that came back.
_CHECK_SECONDS = 5.0
_POLL_SECONDS = 1.0
_COMPLETED = "COMPLETED"


@dataclass(frozen=True, slots=True)
class RedriveOptions:
    """None: use the setting. `rate` is in items a second. `by_sqs`: let SQS move a whole queue itself."""

    choice: Choice = Choice()
    dry_run: bool = True
    canary_messages: int | None = None
    canary_seconds: float | None = None
    rate: float | None = None
    by_sqs: bool = True


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a command reports while it runs, and how it is stopped. `on_progress` gets the messages done and about how
    many there are.
    """

    stop: StopSignal = field(default_factory=StopSignal)
    on_progress: OnProgress = no_progress
    on_phase: Callable[[str], None] = lambda _text: None
    on_step: OnStep = no_step


def redrive(
    runtime: Runtime,
    queue: DeadQueue,
    assessor: Assessor,
    options: RedriveOptions,
    *,
    who: str = "",
    callbacks: Callbacks | None = None,
) -> RedriveReport:
    """Count in a dry run, else send. Raises UsageError while another command works on the queue, TransientFailure when
    a dependency does not answer; the messages are then where they were, or on both queues.
    """
    callbacks = callbacks or Callbacks()
    if options.dry_run:
        run = _Redrive(runtime, queue, assessor, options, callbacks, None)
        run.count(canaries=0)
        return run.report
    settings = runtime.settings.dead_letters
    canaries = settings.canary_messages if options.canary_messages is None else options.canary_messages
    arguments = {
        **options.choice.as_dict(),
        "canary": canaries,
        "itemsPerSecond": options.rate or settings.redrive_items_per_second,
    }
    with working(runtime, queue, "redrive", arguments, who=who) as work:
        run = _Redrive(runtime, queue, assessor, options, callbacks, work)
        try:
            run.act(canaries, by=work.who)
        finally:
            work.result = run.report.numbers()
        work.outcome = "done" if run.report.finished else "stopped"
        return run.report


class _Redrive:
    """The state of one redrive. Without `work` it only counts."""

    def __init__(
        self,
        runtime: Runtime,
        queue: DeadQueue,
        assessor: Assessor,
        options: RedriveOptions,
        callbacks: Callbacks,
        work: Working | None,
    ) -> None:
        self._runtime, self._queue, self._assessor = runtime, queue, assessor
        self._options, self._callbacks, self._work = options, callbacks, work
        self._rate = options.rate or runtime.settings.dead_letters.redrive_items_per_second
        # A message that failed later than this is not sent a second time by this redrive.
        self._began = runtime.clock()
        self._since = iso(self._began)
        self._checked_at = time.monotonic()
        self.report = RedriveReport(queue, dry_run=options.dry_run)

    def act(self, canaries: int, *, by: str) -> None:
        sent = self.count(canaries=canaries)
        if self.report.ended is not RedriveEnded.STOPPED:
            self._wait_for(sent)
            self._send_rest()
        if self._stopped():
            self.report.ended = RedriveEnded.STOPPED
        elif any(cause.fingerprint == OTHERS and cause.sendable for cause in self.report.groups):
            self.report.ended = RedriveEnded.UNFINISHED
        self.report.closed = close_settled(self._runtime, self._queue, self._assessor, by=by)

    def count(self, *, canaries: int) -> dict[str, list[DeadMessage]]:
        """Count causes with verdicts, and send the first of each cause while the browser still hides them."""
        self._callbacks.on_phase("counting")
        number, waiting = Counter[str](), list[DeadMessage]()
        report, causes, choice = self.report, self.report.groups, self._options.choice
        with open_browser(self._runtime, self._queue, stopped=self._stopped) as browser:
            try:
                for messages in matching(
                    browser, self._queue, choice, self._began, self._callbacks.on_progress
                ):
                    for assessed in causes.add_all(messages, self._assessor):
                        message = assessed.message
                        wanted = causes.knows(message) and number[message.fingerprint] < canaries
                        if wanted and _is_sendable(assessed):
                            number[message.fingerprint] += 1
                            waiting.append(message)
                            browser.settle([message.received])
                report.seen.add(self._queue, browser)
                report.seen.fitting = causes.total("messages")
                sent = self._send_canaries(waiting)
            finally:
                browser.give_back([message.received for message in waiting])
        causes.read_trends(self._runtime, self._queue, self._began)
        if browser.complete:
            report.ended = RedriveEnded.COUNTED
        elif self._stopped():
            report.ended = RedriveEnded.STOPPED
        return sent

    def _send_canaries(self, waiting: list[DeadMessage]) -> dict[str, list[DeadMessage]]:
        """By cause. Removes what was sent from `waiting`. A cause of which nothing was sent is not continued."""
        sent: dict[str, list[DeadMessage]] = {}
        if waiting:
            self._callbacks.on_phase("sending canaries")
        canaries = list(waiting)
        for start in range(0, len(canaries), _SEND):
            if self._stopped():
                return sent
            for message in self._send(canaries[start : start + _SEND]):
                sent.setdefault(message.fingerprint, []).append(message)
                waiting.remove(message)
        for message in waiting:
            if message.fingerprint not in sent:
                self.report.canaries[message.fingerprint] = CanaryOutcome.NOT_TAKEN
        return sent

    def _wait_for(self, canaries: dict[str, list[DeadMessage]]) -> None:
        if not canaries:
            return
        number = sum(len(messages) for messages in canaries.values())
        self._callbacks.on_phase(f"waiting for {number} canaries")
        outcomes = wait_for_canaries(
            canaries,
            self._queue,
            self._runtime.queue(self._queue.source),
            self._runtime.dead_letters,
            self._assessor,
            since=self._since,
            limit_seconds=self._options.canary_seconds or self._runtime.settings.dead_letters.canary_seconds,
            stopped=self._stopped,
            sleep=self._callbacks.stop.wait,
        )
        self.report.canaries.update(outcomes)

    def _send_rest(self) -> None:
        left = [cause for cause in self.report.groups if self._left_of(cause) > 0 and self._follows(cause)]
        if not left or self._stopped():
            self._end_pass(complete=True)
            return
        self._callbacks.on_phase("sending the rest")
        by_sqs = self._options.by_sqs and self.report.can_move_whole(self._options.choice)
        if not (by_sqs and self._move_by_sqs()):
            self._send_matching(sum(cause.items for cause in left))

    def _move_by_sqs(self) -> bool:
        """False if the endpoint does not support it."""
        report, causes = self.report, self.report.groups
        expected = sum(self._left_of(cause) for cause in causes)
        # SQS's rate counts messages, ours counts items.
        share = min(1.0, causes.total("messages") / max(1, causes.total("items")))
        task = move_whole_queue(
            self._runtime.message_moves,
            self._queue,
            per_second=self._rate * share,
            stopped=self._stopped,
            on_progress=lambda done: self._callbacks.on_progress(done, expected),
        )
        if task is None:
            return False
        completed = task.status == _COMPLETED
        report.mover, report.moved_by_sqs, report.trouble = "sqs", task.moved, task.failure
        report.ended = RedriveEnded.DONE if completed else RedriveEnded.UNFINISHED
        for cause in report.groups if completed else ():
            close_cause(self._runtime, self._queue, cause.fingerprint, before=self._since, by=self._by())
        return True

    def _send_matching(self, items: int) -> None:
        """Send the rest ourselves, ten at a time, at the rate."""
        bucket = TokenBucket(self._rate, burst=_SEND, sleep=self._callbacks.stop.wait)
        done, expected = 0, sum(self._left_of(cause) for cause in self.report.groups)
        with open_browser(
            self._runtime, self._queue, extra_seconds=items / self._rate, stopped=self._stopped
        ) as browser:
            for messages in matching(browser, self._queue, self._options.choice, self._began):
                wanted = self._wanted(messages)
                for start in range(0, len(wanted), _SEND):
                    batch = wanted[start : start + _SEND]
                    if self._stopped() or not bucket.take(sum(message.size for message in batch)):
                        break
                    sent = self._send(batch)
                    browser.settle([message.received for message in sent])
                    done += len(sent)
                    self._callbacks.on_progress(done, max(expected, done))
                self._stop_returned_causes()
        self._end_pass(complete=browser.complete)

    def _end_pass(self, *, complete: bool) -> None:
        """Causes that the first pass did not reach are still there, however much a later pass saw."""
        done = complete and not self.report.seen.partly
        self.report.ended = RedriveEnded.DONE if done else RedriveEnded.UNFINISHED

    def _wanted(self, messages: Sequence[DeadMessage]) -> list[DeadMessage]:
        """Messages of causes that may follow, assessed again: the stores may have changed since the count."""
        due = []
        for message in messages:
            cause = self.report.groups.get(message)
            failed_since = message.last_failed is not None and message.last_failed >= self._began
            if cause is not None and self._follows(cause) and not failed_since:
                due.append(message)
        return [assessed.message for assessed in self._assessor(due) if _is_sendable(assessed)]

    def _stop_returned_causes(self) -> None:
        if time.monotonic() - self._checked_at < _CHECK_SECONDS:
            return
        self._checked_at = time.monotonic()
        for cause in self.report.groups:
            if self._follows(cause) and self._runtime.dead_letters.came_back(
                self._queue.source, cause.fingerprint, self._since
            ):
                self.report.canaries[cause.fingerprint] = CanaryOutcome.FAILED_AGAIN

    def _send(self, messages: Sequence[DeadMessage]) -> list[DeadMessage]:
        source, dead = self._runtime.queue(self._queue.source), self._runtime.queue(self._queue.name)
        sent = move(messages, source, dead, self.report, on_step=self._callbacks.on_step)
        close_moved(self._runtime, sent, before=self._since, by=self._by())
        return sent

    def _left_of(self, cause: Cause) -> int:
        return cause.sendable - self.report.sent[cause.fingerprint]

    def _follows(self, cause: Cause) -> bool:
        """Causes beyond the counted ones had no canary: they wait for the next redrive."""
        return cause.fingerprint != OTHERS and self.report.canary(cause) in FOLLOWS

    def _by(self) -> str:
        return self._work.who if self._work is not None else ""

    def _stopped(self) -> bool:
        return self._callbacks.stop.is_set or (self._work is not None and self._work.lease.lost)


def _is_sendable(assessed: Assessed) -> bool:
    return assessed.verdict not in SETTLED and assessed.message.unreadable is None


def move(
    messages: Sequence[DeadMessage],
    source: Queue,
    dead: Queue,
    report: RedriveReport,
    *,
    on_step: OnStep = no_step,
) -> list[DeadMessage]:
    """One send, one delete of what the send confirmed. Returns the messages that were sent.

    Raises TransientFailure when the delete gets no answer: what was sent is then on both queues.
    """
    failures = {failure.index: failure for failure in source.send([each.revived() for each in messages])}
    sent = [message for index, message in enumerate(messages) if index not in failures]
    report.refused += sum(failure.permanent for failure in failures.values())
    report.unsent += sum(not failure.permanent for failure in failures.values())
    on_step("redrive.after_send")
    if sent:
        report.doubled += len(dead.delete([message.received for message in sent]))
    on_step("redrive.after_delete")
    report.sent.update(message.fingerprint for message in sent)
    return sent


def move_whole_queue(
    moves: MessageMoves,
    queue: DeadQueue,
    *,
    per_second: float,
    stopped: Callable[[], bool],
    on_progress: Callable[[int], None],
    sleep: Callable[[float], object] = time.sleep,
) -> MoveTask | None:
    """Start SQS's own move task and follow it to its end; cancel it when `stopped`. None: the endpoint has none.

    Raises UsageError while another task of this queue runs, TransientFailure when SQS does not answer.
    """
    try:
        latest = moves.latest(queue.name)
        if latest is not None and latest.runs:
            raise UsageError(f"SQS moves {queue.name} already, {latest.moved} messages so far: wait for it")
        handle = moves.start(queue.name, queue.source, int(per_second))
    except Unsupported:
        return None
    cancelled = False
    while True:
        task = moves.latest(queue.name)
        if task is not None:
            on_progress(task.moved)
            if not task.runs:
                return task
        if stopped() and not cancelled:
            moves.cancel(handle)
            cancelled = True
        sleep(_POLL_SECONDS)
