"""A look through a queue that leaves everything in it: SQS cannot be browsed, so each message is received, hidden from
others while the look lasts, and given back at its end.

The time for which messages are hidden follows the depth, and a look that takes longer ends: so it meets no message
twice and needs no memory of those it saw. Receipts lie in a file. A look that is killed leaves its messages hidden
for that time, then they are there again: nothing is lost, and a dead-letter queue without a redrive policy of its own
does not count receives.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from types import TracebackType
from typing import IO, Self

import structlog

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.ports import Queue, Received

log = structlog.get_logger(__name__)
_RECEIVE = 10
# Slower than any server that is worth waiting for, so that a look through all of it ends in time.
_SLOWEST_PER_SECOND = 50.0
# SQS's longest.
_LONGEST_SECONDS = 43_200
# Of the time for which messages are hidden; the rest is for what is done with the last of them.
_SHARE = 0.8
# An empty answer while the depth says that there is more is asked for again so often.
_EMPTY_ANSWERS = 3
_IN_MEMORY_BYTES = 256 * 1024
# SQS's answer at 120,000 messages in flight.
_TOO_MANY_IN_FLIGHT = "OverLimit"


class Ended(StrEnum):
    """Why a look ended. Only after EMPTY did it see everything that was visible."""

    EMPTY = "empty"
    ENOUGH = "enough"
    TIME = "time"
    STOPPED = "stopped"
    IN_FLIGHT_LIMIT = "in_flight_limit"


def never() -> bool:
    """The default of `stopped`."""
    return False


class Look:
    """One pass: `for batch in look.batches()`, inside `with`. What a batch's user has deleted it names with `settled`
    before it asks for the next batch; everything else is given back. `hidden` others held when it began.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        wait_seconds: float = 1.0,
        hide_seconds: int = 60,
        batch_messages: int = 50,
        seconds_more: float = 0.0,
        stopped: Callable[[], bool] = never,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`hide_seconds`: how long messages are hidden at least; `seconds_more`: how much longer than reading it will
        take, because its user works at a rate.
        """
        self._queue, self._wait_seconds, self._batch_messages = queue, wait_seconds, batch_messages
        self._stopped, self._clock = stopped, clock
        depth = queue.depth()
        self.expected, self.hidden = depth.visible, depth.in_flight
        wanted = hide_seconds + (depth.total / _SLOWEST_PER_SECOND + seconds_more) / _SHARE
        self.visibility_seconds = int(min(wanted, _LONGEST_SECONDS))
        # Of the current batch: what was received, and what of it is not to be given back.
        self._batch: list[Received] = []
        self._settled: set[str] = set()
        self._receipts: IO[str] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, mode="w+")  # noqa: SIM115
        self._enough = False
        self.seen = 0
        self.ended: Ended | None = None

    @property
    def complete(self) -> bool:
        """Whether it saw all that was visible."""
        return self.ended is Ended.EMPTY

    def batches(self) -> Iterator[list[Received]]:
        """Up to `batch_messages` at a time. Raises TransientFailure when the queue does not answer."""
        end = self._clock() + self.visibility_seconds * _SHARE
        empty = 0
        while self.ended is None:
            self._keep()
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
        """Nothing more is needed: the look ends before its next receive."""
        self._enough = True

    def settled(self, messages: Sequence[Received]) -> None:
        """Of the current batch: these are deleted, or kept by the caller, and shall not be given back."""
        self._settled.update(message.receipt for message in messages)

    def hand_back(self, messages: Sequence[Received]) -> None:
        """Kept ones that shall be given back at the end after all."""
        self._receipts.writelines(message.receipt + "\n" for message in messages)

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

    def _keep(self) -> None:
        self.hand_back([message for message in self._batch if message.receipt not in self._settled])
        self._batch, self._settled = [], set()

    def _give_back(self) -> None:
        """All at once: what cannot be given back now is there again when its time is over."""
        self._keep()
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
                "messages not given back, they come again by themselves",
                queue=self._queue.name,
                seconds=self.visibility_seconds,
                error=failure.error,
            )
        finally:
            self._receipts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
