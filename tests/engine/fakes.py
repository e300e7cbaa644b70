"""A clock that only moves when reported, a source with a script, a queue in memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.drain import Drain, DrainLimits, Post, Settlement
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.queue import NotHidden, Outgoing, QueueDepth, Received, SendFailure
from regworkers_core.engine.stop import StopSignal
from tests.support.waiting import Clock

# What a source's receive does next: hand these out, or raise this.
Move = Sequence[int] | BaseException
Failing = Callable[[], Exception] | None


def unavailable() -> TransientFailure:
    return TransientFailure("fake", "unavailable")


class FakeSource:
    """Plays `moves`, one a receive, then is empty; an empty receive takes a second on its clock."""

    def __init__(self, moves: Iterable[Move] = ()) -> None:
        self.clock = Clock()
        self._moves: Iterator[Move] = iter(moves)
        self._lock = threading.Lock()
        self.receives = 0
        # What was asked of the source, in order, as (verb, delivery).
        self.asked: list[tuple[str, int]] = []
        self.heartbeats = 0
        self.heartbeat_failure: Failing = None
        self.acknowledge_failure: Failing = None
        self.close_failure: Failing = None
        self.let_go_failures: list[Exception] = []
        # Empty receives that do not count as idle yet.
        self.busy_elsewhere = 0
        self.on_receive: Callable[[int], None] = lambda _number: None

    def receive(self) -> list[int]:
        self.receives += 1
        self.on_receive(self.receives)
        move = next(self._moves, ())
        if isinstance(move, BaseException):
            raise move
        if not move:
            self.clock.now += 1.0
        return list(move)

    def acknowledge(self, done: Sequence[int]) -> None:
        self._note("acknowledged", done)
        if self.acknowledge_failure is not None:
            raise self.acknowledge_failure()

    def give_back(self, again: Sequence[tuple[int, float]]) -> None:
        self._note("given back", [delivery for delivery, _ in again])

    def heartbeat(self) -> None:
        self.heartbeats += 1
        if self.heartbeat_failure is not None:
            raise self.heartbeat_failure()

    def may_idle(self) -> bool:
        self.busy_elsewhere -= 1
        return self.busy_elsewhere < 0

    def let_go(self) -> None:
        self._note("let go", [0])
        if self.let_go_failures:
            raise self.let_go_failures.pop()

    def close(self) -> None:
        self._note("closed", [0])
        if self.close_failure is not None:
            raise self.close_failure()

    def counts(self) -> Counter[str]:
        return Counter(source_trouble=1)

    def of(self, verb: str) -> list[int]:
        """The deliveries of which `verb` was asked, in order."""
        return [delivery for asked, delivery in self.asked if asked == verb]

    def _note(self, verb: str, deliveries: Sequence[int]) -> None:
        with self._lock:
            self.asked.extend((verb, delivery) for delivery in deliveries)


def all_done(batch: Sequence[int]) -> Settlement[int]:
    """Work that applies everything."""
    settlement = Settlement(done=list(batch))
    settlement.counts.update(received=len(batch), applied=len(batch))
    return settlement


def run_fake(
    source: FakeSource,
    work: Callable[[Sequence[int]], Settlement[int]] = all_done,
    *,
    limits: DrainLimits | None = None,
    stop: StopSignal | None = None,
    probe: Callable[..., str | None] = lambda *_names: None,
    down: Callable[[], str | None] = lambda: None,
    on_progress: Callable[[DrainReport], None] = lambda _report: None,
    post: Post | None = None,
) -> DrainReport:
    """One drain over fakes, to idle unless something ends it before."""
    limits = limits or DrainLimits(
        idle_seconds=3.0, max_seconds=1e9, concurrency=2, prefetch=1, heartbeat_seconds=3600, pause_seconds=0
    )
    return Drain(
        "fake",
        source,
        work,
        limits,
        probe=probe,
        down=down,
        stop=stop or StopSignal(),
        clock=source.clock,
        on_progress=on_progress,
        post=post or Post(),
    ).run()


def message(number: int) -> Received:
    return Received(f"m{number}", f"receipt-{number}", "{}", {}, 1)


class FakeQueue:
    """Hands out `waiting`; remembers what was deleted and every change of visibility, in order."""

    name = "fake-queue"

    def __init__(self, waiting: int = 0) -> None:
        self.waiting = [message(number) for number in range(waiting)]
        self.receive_calls: list[tuple[int, float, int]] = []
        self.failing_receives: set[int] = set()
        self.deleted: list[Received] = []
        self.undeletable: set[str] = set()
        self.visibility: list[tuple[str, int]] = []
        self.lost: set[str] = set()
        self.unhidable: set[str] = set()
        self.while_hiding: Callable[[], object] = lambda: None
        self.failure: Failing = None

    def send(self, messages: Sequence[Outgoing], *, within_seconds: float | None = None) -> list[SendFailure]:
        return []

    def receive(self, limit: int, wait_seconds: float, visibility_seconds: int) -> list[Received]:
        self.receive_calls.append((limit, wait_seconds, visibility_seconds))
        if len(self.receive_calls) in self.failing_receives:
            raise unavailable()
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    def delete(self, messages: Sequence[Received]) -> list[Received]:
        if self.failure is not None:
            raise self.failure()
        self.deleted.extend(each for each in messages if each.message_id not in self.undeletable)
        return [each for each in messages if each.message_id in self.undeletable]

    def change_visibility(self, messages: Sequence[tuple[Received, int]]) -> NotHidden:
        if self.failure is not None:
            raise self.failure()
        self.visibility.extend((each.message_id, seconds) for each, seconds in messages)
        self.while_hiding()
        return NotHidden(
            [each for each, _ in messages if each.message_id in self.lost],
            [each for each, _ in messages if each.message_id in self.unhidable],
        )

    def depth(self) -> QueueDepth:
        return QueueDepth(len(self.waiting), 0, 0)
