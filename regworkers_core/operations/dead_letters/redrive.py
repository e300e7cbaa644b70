"""Send dead letters back to their queue: count, then send rounds that grow for each cause and stop one that fails.

All progress is in the queues: run it again after a kill, and it continues with what is still there. A message is
deleted only after its send was confirmed. Killed in between, it is on both queues: a repeat, which every flow
tolerates, and never a loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fairdraw import scheduling
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.snapshot import PausedDrain
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.defects import hold_of
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.engine.queue import Queue
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.flows import DRAIN_OF
from regworkers_core.operations.dead_letters.browse import (
    Ended,
    QueueBrowser,
    matching,
    open_browser,
)
from regworkers_core.operations.dead_letters.model import Choice, DeadMessage, DeadQueue
from regworkers_core.operations.dead_letters.report import OTHERS, RedriveEnded, RedriveReport
from regworkers_core.operations.dead_letters.rounds import MOST_IN_ROUND, Growth, Outcome, Round
from regworkers_core.operations.dead_letters.verdict import (
    SETTLED,
    Assessed,
    Assessor,
    Working,
    close_moved,
    close_settled,
    working,
)
from regworkers_core.runtime import Runtime

# Messages of one send: as many as a kill between send and delete can leave on both queues.
_SEND = 10
# How often the history is read, while a round is sent, for causes that fail again.
_CHECK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RedriveOptions:
    """What to send again, and how fast. None: use the setting."""

    # The messages that are meant.
    choice: Choice = Choice()
    dry_run: bool = True
    # Rounds are as large as they may be and are not waited for; a cause stops only if failures return while it is sent.
    at_once: bool = False
    outcome_seconds: float | None = None
    # Items a second.
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a command reports while it runs, and how it is stopped. `on_progress` gets the messages done and about how
    many there are.
    """

    stop: StopSignal = field(default_factory=StopSignal)
    on_progress: Progress = no_progress
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
        run.count()
        return run.report
    arguments = {
        **options.choice.as_dict(),
        "atOnce": options.at_once,
        "itemsPerSecond": options.rate or runtime.settings.dead_letters.redrive_items_per_second,
    }
    with working(runtime, queue, "redrive", arguments, who=who) as work:
        run = _Redrive(runtime, queue, assessor, options, callbacks, work)
        try:
            run.act(by=work.who)
        finally:
            work.result = run.report.numbers()
        work.outcome = "done" if run.report.finished else "stopped"
        return run.report


class _Pass(NamedTuple):
    tried: Counter[str]  # messages by cause
    ended: Ended | None  # why it did


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
        self._bucket = TokenBucket(self._rate, burst=_SEND, sleep=callbacks.stop.wait)
        # A message that failed later than this is not sent a second time by this redrive.
        self._began = runtime.clock()
        self._since = iso(self._began)
        self._source, self._dead = runtime.queue(queue.source), runtime.queue(queue.name)
        # Ids of messages that the queue did not take, and of those that came back.
        self._set_aside: set[str] = set()
        self._passing: dict[str, list[str]] = {}
        # Those that came back before the history had their failure, by the cause that was sent.
        self._back = Counter[str]()
        self._sendable: dict[str, int] = {}
        self.report = RedriveReport(queue, dry_run=options.dry_run)

    def act(self, *, by: str) -> None:
        moved = self._runtime.message_moves.moved_by_sqs(self._queue.name)
        if moved is not None:
            raise UsageError(
                f"SQS moves {self._queue.name} itself, {moved} messages so far: wait, or cancel it in AWS's console"
            )
        drain = DRAIN_OF.get(self._queue.source.removeprefix(self._runtime.names.prefix), "")
        paused = (
            hold_of(self._runtime.leases, PausedDrain, drain) if drain and not self._options.at_once else None
        )
        if paused is not None:
            raise UsageError(
                f"the drain {drain} is {paused.text}; resume it first: `regworkers drain resume {drain}`"
            )
        self.count()
        report = self.report
        if report.ended is not RedriveEnded.STOPPED:
            # Causes beyond the counted ones wait for the next redrive.
            counted = [cause for cause in report.groups if cause.fingerprint != OTHERS and cause.sendable]
            self._sendable = {cause.fingerprint: cause.sendable for cause in counted}
            report.growth = {cause: Growth() for cause in self._sendable}
            self._grow()
            partly = report.seen.partly or any(cause.fingerprint == OTHERS for cause in report.groups)
            goes_on = any(growth.goes_on for growth in report.growth.values())
            report.ended = RedriveEnded.UNFINISHED if partly or goes_on else RedriveEnded.DONE
        if self._stopped():
            report.ended = RedriveEnded.STOPPED
        report.closed = close_settled(self._runtime, self._queue, self._assessor, by=by)

    def count(self) -> None:
        self._callbacks.on_phase("counting")
        report, causes = self.report, self.report.groups
        with open_browser(self._runtime, self._queue, stopped=self._stopped) as browser:
            for messages in self._matching(browser, self._callbacks.on_progress, held=report.hold):
                causes.add_all(messages, self._assessor)
        report.seen.add(self._queue, browser)
        report.seen.fitting = causes.total("messages")
        causes.read_history(self._runtime, self._queue, self._began)
        if browser.complete:
            report.ended = RedriveEnded.COUNTED
        elif self._stopped():
            report.ended = RedriveEnded.STOPPED

    def _grow(self) -> None:
        """One round after the other, until no cause has more that may be sent."""
        growth, number = self.report.growth, 0
        while any(each.goes_on for each in growth.values()) and not self._stopped():
            number += 1
            sizes = {
                cause: MOST_IN_ROUND if self._options.at_once else each.size
                for cause, each in growth.items()
                if each.goes_on
            }
            self._callbacks.on_phase(f"round {number}: sending {len(sizes)} causes")
            before = self._dead.depth().total
            sent = Round(
                self._queue,
                self._source,
                self._runtime.dead_letters,
                self._assessor,
                self._since,
                self._passing,
            )
            tried, ended = self._send_round(sent, sizes)
            if not tried and ended not in (Ended.EMPTY, Ended.ENOUGH):
                return
            if not self._options.at_once and sent.open and not self._stopped():
                self._callbacks.on_phase(f"round {number}: waiting for {sent.sent.total()} messages")
                sent.wait(
                    limit_seconds=self._options.outcome_seconds
                    or self._runtime.settings.dead_letters.outcome_seconds,
                    stopped=self._stopped,
                    sleep=self._callbacks.stop.wait,
                )
                if self._dead.depth().total > before - sent.sent.total() + sent.failed.total():
                    # More came back than the history shows, perhaps as another cause than the chosen ones.
                    with open_browser(self._runtime, self._queue, stopped=self._stopped) as browser:
                        for messages in matching(browser, self._queue, Choice(), self._began):
                            self._wanted(messages, {}, Counter())
            for cause, size in sizes.items():
                self._judge(cause, sent, tried[cause], cut=tried[cause] < size and ended is Ended.EMPTY)
            for cause in list(self._back):
                growth[cause].judge(0, self._back.pop(cause))

    def _judge(self, cause: str, sent: Round, tried: int, *, cut: bool) -> None:
        """`cut`: the round was smaller than the cause's size, because the queue has no more of it."""
        growth = self.report.growth[cause]
        growth.judge(tried, sent.failed[cause] + self._back.pop(cause, 0) + tried - sent.sent[cause])
        growth.exhausted = cut or self._left_of(cause) <= 0
        if tried and not self.report.sent[cause] and not growth.goes_on:
            growth.outcome = Outcome.NOT_TAKEN
        elif growth.outcome is Outcome.NONE and sent.open.get(cause) and not self._options.at_once:
            growth.outcome = Outcome.UNANSWERED

    def _send_round(self, sent: Round, sizes: dict[str, int]) -> _Pass:
        """Send up to `sizes` messages of each cause, at the rate."""
        tried = Counter[str]()
        report, sizes = self.report, dict(sizes)
        left = {cause: self._left_of(cause) for cause in sizes}
        expected = sum(min(sizes[cause], left[cause]) for cause in sizes)
        share = report.groups.total("items") / max(1, report.groups.total("messages"))
        checked_at = scheduling.monotonic()
        with open_browser(
            self._runtime,
            self._queue,
            extra_seconds=min(expected, MOST_IN_ROUND) * share / self._rate,
            stopped=self._stopped,
        ) as browser:
            for messages in self._matching(browser):
                wanted = self._wanted(messages, sizes, tried)
                for start in range(0, len(wanted), _SEND):
                    batch = wanted[start : start + _SEND]
                    if self._stopped() or not self._bucket.take(sum(message.size for message in batch)):
                        break
                    tried.update(message.fingerprint for message in batch)
                    moved = self._send(batch)
                    browser.settle([message.received for message in moved])
                    sent.add(moved)
                    self._callbacks.on_progress(tried.total(), max(expected, tried.total()))
                if scheduling.monotonic() - checked_at >= _CHECK_SECONDS:
                    checked_at = scheduling.monotonic()
                    sent.look()
                for cause in sizes:
                    if report.growth[cause].stops(sent.failed[cause] + self._back[cause], sent.sent[cause]):
                        sizes[cause] = tried[cause]
                if tried.total() >= MOST_IN_ROUND or all(
                    tried[cause] >= min(size, left[cause]) for cause, size in sizes.items()
                ):
                    browser.enough()
        return _Pass(tried, browser.ended)

    def _wanted(
        self, messages: Sequence[DeadMessage], sizes: dict[str, int], tried: Counter[str]
    ) -> list[DeadMessage]:
        """Messages of causes whose round has room, assessed again: the stores may have changed since the count."""
        due = []
        for message in messages:
            if message.id in self._set_aside:
                continue
            if message.last_failed is not None and message.last_failed >= self._began:
                self._came_back(message)
            elif message.fingerprint in sizes and tried[message.fingerprint] < sizes[message.fingerprint]:
                due.append(message)
        room, wanted = Counter(tried), list[DeadMessage]()
        for assessed in self._assessor(due) if due else ():
            cause = assessed.message.fingerprint
            if _is_sendable(assessed) and room[cause] < sizes[cause] and room.total() < MOST_IN_ROUND:
                room[cause] += 1
                wanted.append(assessed.message)
        return wanted

    def _came_back(self, message: DeadMessage) -> None:
        """It failed, whatever its cause is now. If no failure was recorded, workers died on it, gave it back each time,
        or have a clock that is behind.
        """
        self._set_aside.add(message.id)
        if causes := self._passing.get(message.received.origin):
            self._back[causes.pop()] += 1

    def _left_of(self, cause: str) -> int:
        return self._sendable[cause] - self.report.sent[cause]

    def _send(self, messages: Sequence[DeadMessage]) -> list[DeadMessage]:
        sent, met_again = move(
            messages, self._source, self._dead, self.report, on_step=self._callbacks.on_step
        )
        self._set_aside |= {each.id for each in messages} - {each.id for each in sent} | met_again
        close_moved(self._runtime, sent, before=self._since, by=self._work.who if self._work else "")
        return sent

    def _matching(
        self,
        browser: QueueBrowser,
        on_progress: Progress = no_progress,
        held: Callable[[int], None] = lambda _number: None,
    ) -> Iterator[list[DeadMessage]]:
        """What the choice matches and lets be sent; `held` gets the number of the others."""
        choice = self._options.choice
        for messages in matching(browser, self._queue, choice, self._began, on_progress):
            sent = [message for message in messages if choice.may_send(message)]
            held(len(messages) - len(sent))
            yield sent

    def _stopped(self) -> bool:
        return self._callbacks.stop.is_set or (self._work is not None and self._work.lease.lost)


def _is_sendable(assessed: Assessed) -> bool:
    return assessed.verdict not in SETTLED and assessed.message.unreadable is None


class Moved(NamedTuple):
    sent: list[DeadMessage]
    kept: set[str]  # ids of those among them that could not be deleted


def move(
    messages: Sequence[DeadMessage],
    source: Queue,
    dead: Queue,
    report: RedriveReport,
    *,
    on_step: OnStep = no_step,
) -> Moved:
    """One send, one delete of what the send confirmed.

    Raises TransientFailure when the delete gets no answer: what was sent is then on both queues.
    """
    failures = {failure.index: failure for failure in source.send([each.revived() for each in messages])}
    sent = [message for index, message in enumerate(messages) if index not in failures]
    report.refused += sum(failure.permanent for failure in failures.values())
    report.unsent += sum(not failure.permanent for failure in failures.values())
    on_step("redrive.after_send")
    kept = (
        {message.message_id for message in dead.delete([each.received for each in sent])} if sent else set()
    )
    report.doubled += len(kept)
    on_step("redrive.after_delete")
    report.sent.update(message.fingerprint for message in sent)
    return Moved(sent, kept)
