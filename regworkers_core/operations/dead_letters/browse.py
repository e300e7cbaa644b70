"""Read a dead-letter queue and leave everything in it: list messages, find one.

SQS cannot be browsed, so each message is received, hidden from other consumers while the browser is open, and returned
when it closes. The time for which messages are hidden grows with the depth, and a browser that takes longer stops: so
it meets no message twice and needs no memory of those it saw. Receipts are kept in a file. If the process is killed,
its messages stay hidden for that time and then return by themselves. A dead-letter queue without a redrive policy of
its own does not count receives, so nothing is lost.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import IO, Any, Generic, NamedTuple, Self, TypeVar

import structlog

from fairdraw import scheduling
from fairdraw.documents import as_document
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.queue import Queue, Received
from regworkers_core.operations.dead_letters.model import Choice, DeadMessage, DeadQueue, read_message
from regworkers_core.operations.dead_letters.verdict import Assess, Assessed
from regworkers_core.runtime import Runtime

log = structlog.get_logger(__name__)
# SQS's limits: messages of one call, and the longest visibility time-out.
_RECEIVE = 10
_LONGEST_SECONDS = 43_200
# Slower than any server that is worth waiting for, so that one pass through the whole queue ends in time.
_SLOWEST_PER_SECOND = 50.0
# Share of the hidden time that reading may use; the rest is for work on the last messages.
_SHARE = 0.8
# How often an empty answer is repeated while the depth says that there is more.
_EMPTY_ANSWERS = 3
_IN_MEMORY_BYTES = 256 * 1024
# SQS's answer at 120,000 messages in flight.
_TOO_MANY_IN_FLIGHT = "OverLimit"
_LIST_BATCH = 50

# Messages read so far, and about how many there are.


class Ended(StrEnum):
    """Why a browser stopped. Only after EMPTY has it read everything that was visible."""

    EMPTY = "empty"
    ENOUGH = "enough"
    TIME = "time"
    STOPPED = "stopped"
    IN_FLIGHT_LIMIT = "in_flight_limit"


def never() -> bool:
    """The default of every `stopped`."""
    return False


class QueueBrowser:
    """One pass through a queue: `for batch in browser.batches()`, inside `with`.

    The caller names messages of the current batch that it deleted with `settle` before it asks for the next batch;
    all others are returned to the queue. `hidden` messages were in flight elsewhere when the pass began.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        wait_seconds: float = 1.0,
        hide_seconds: int = 60,
        batch_messages: int = 50,
        extra_seconds: float = 0.0,
        stopped: Callable[[], bool] = never,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        """Hides messages for at least `hide_seconds`; `extra_seconds` is the time that the caller's own work takes."""
        self._queue, self._wait_seconds, self._batch_messages = queue, wait_seconds, batch_messages
        self._stopped, self._clock = stopped, clock
        depth = queue.depth()
        self.expected, self.hidden = depth.visible, depth.in_flight
        wanted = hide_seconds + (depth.total / _SLOWEST_PER_SECOND + extra_seconds) / _SHARE
        self.visibility_seconds = int(min(wanted, _LONGEST_SECONDS))
        self._batch: list[Received] = []
        # Receipts of the current batch that are not returned.
        self._settled: set[str] = set()
        self._receipts: IO[str] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, mode="w+")  # noqa: SIM115
        self._enough = False
        self.seen = 0
        self.ended: Ended | None = None

    @property
    def complete(self) -> bool:
        return self.ended is Ended.EMPTY

    def batches(self) -> Iterator[list[Received]]:
        """Up to `batch_messages` at a time. Raises TransientFailure when the queue does not answer."""
        end = self._clock() + self.visibility_seconds * _SHARE
        empty = 0
        while self.ended is None:
            self._close_batch()
            while len(self._batch) < self._batch_messages and self.ended is None:
                self.ended = self._reason_to_end(end)
                if self.ended is not None:
                    break
                found = self._receive(min(_RECEIVE, self._batch_messages - len(self._batch)))
                self._batch.extend(found)
                self.seen += len(found)
                empty = 0 if found else empty + 1
                if found or self.ended is not None:
                    continue
                if self.seen >= self.expected or empty >= _EMPTY_ANSWERS:
                    self.ended = Ended.EMPTY
                elif self._batch:
                    break
            if self._batch:
                yield list(self._batch)

    def enough(self) -> None:
        """Stop before the next receive."""
        self._enough = True

    def settle(self, messages: Sequence[Received]) -> None:
        """Do not return these messages of the current batch: the caller deleted them."""
        self._settled.update(message.receipt for message in messages)

    def _reason_to_end(self, end: float) -> Ended | None:
        if self._stopped():
            return Ended.STOPPED
        if self._enough:
            return Ended.ENOUGH
        return Ended.TIME if self._clock() >= end else None

    def _receive(self, limit: int) -> list[Received]:
        try:
            return self._queue.receive(limit, self._wait_seconds, self.visibility_seconds)
        except TransientFailure as failure:
            if failure.error != _TOO_MANY_IN_FLIGHT:
                raise
            self.ended = Ended.IN_FLIGHT_LIMIT
            return []

    def _close_batch(self) -> None:
        kept = [message for message in self._batch if message.receipt not in self._settled]
        self._receipts.writelines(message.receipt + "\n" for message in kept)
        self._batch, self._settled = [], set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_batch()
        self._receipts.seek(0)
        batch: list[tuple[Received, int]] = []
        try:
            for line in self._receipts:
                batch.append((Received("", line.rstrip("\n"), "", {}, 1), 0))
                if len(batch) == _RECEIVE:
                    self._queue.change_visibility(batch)
                    batch = []
            if batch:
                self._queue.change_visibility(batch)
        except TransientFailure as failure:
            log.warning(
                "messages not returned to the queue, they become visible again by themselves",
                queue=self._queue.name,
                seconds=self.visibility_seconds,
                error=failure.error,
            )
        finally:
            self._receipts.close()


def open_browser(
    runtime: Runtime,
    queue: DeadQueue,
    *,
    batch_messages: int = 100,
    extra_seconds: float = 0.0,
    stopped: Callable[[], bool] = never,
) -> QueueBrowser:
    """Raises UsageError for a dead-letter queue that has a redrive policy of its own: it would count the receives and
    move the messages elsewhere.
    """
    if runtime.message_moves.has_redrive_policy(queue.name):
        raise UsageError(
            f"{queue.name} has a redrive policy of its own, so reading it would use up its receives: "
            "remove that policy first"
        )
    settings = runtime.settings.dead_letters
    return QueueBrowser(
        runtime.queue(queue.name),
        wait_seconds=settings.look_wait_seconds,
        hide_seconds=settings.hide_seconds,
        batch_messages=batch_messages,
        extra_seconds=extra_seconds,
        stopped=stopped,
    )


def matching(
    browser: QueueBrowser,
    queue: DeadQueue,
    choice: Choice,
    now: float,
    on_progress: Progress = no_progress,
) -> Iterator[list[DeadMessage]]:
    """The chosen messages of each batch; a list may be empty."""
    for batch in browser.batches():
        messages = [read_message(queue, message) for message in batch]
        yield [message for message in messages if choice.matches(message, now)]
        on_progress(browser.seen, max(browser.expected, browser.seen))


@dataclass(slots=True)
class Seen:
    """How much of the queues was read."""

    messages: int = 0
    # How many messages fit the choice.
    fitting: int = 0
    # Messages that are in flight elsewhere.
    hidden: int = 0
    # The queues that were not read to the end, and why.
    partly: dict[str, str] = field(default_factory=dict)

    def add(self, queue: DeadQueue, browser: QueueBrowser) -> None:
        self.messages += browser.seen
        self.hidden += browser.hidden
        if not browser.complete:
            self.partly[queue.name] = browser.ended.value if browser.ended else "unfinished"

    def as_dict(self) -> dict[str, Any]:
        return {"seen": self.messages, **as_document(self, "fitting", "hidden", "partly")}


T = TypeVar("T")


class Read(NamedTuple, Generic[T]):
    found: T
    seen: Seen


def list_messages(
    runtime: Runtime, queues: Sequence[DeadQueue], choice: Choice, assess: Assess, *, limit: int
) -> Read[list[Assessed]]:
    """The first `limit` that match, each with its verdict. Receives no more messages than that takes."""
    found: list[Assessed] = []
    seen, now = Seen(), runtime.clock()
    for queue in queues:
        if len(found) >= limit:
            seen.partly[queue.name] = Ended.ENOUGH
            continue
        with open_browser(runtime, queue, batch_messages=min(_LIST_BATCH, max(1, limit))) as browser:
            for messages in matching(browser, queue, choice, now):
                wanted = messages[: limit - len(found)]
                found += assess(wanted) if wanted else []
                if len(found) >= limit:
                    browser.enough()
        seen.add(queue, browser)
    seen.fitting = len(found)
    return Read(found, seen)


def find_message(runtime: Runtime, queue: DeadQueue, wanted: str, assess: Assess) -> Read[Assessed | None]:
    """The message with this id, or the first about the item with this id. None: it is not among the messages that
    were read, which may not be all.
    """
    found, seen, now = None, Seen(), runtime.clock()
    with open_browser(runtime, queue) as browser:
        for messages in matching(browser, queue, Choice(), now):
            named = [each for each in messages if each.is_about(wanted)]
            if named:
                found = assess(named[:1])[0]
                break
    seen.add(queue, browser)
    return Read(found, seen)
