"""Heartbeats of drains: a row per running drain in `worker-leases`, however it was started.

A thread of the drain's process moves the row's counter every few seconds and removes the row at the end. A row whose
counter does not move while an observer watches belongs to a process that is gone: the clocks of two machines are never
compared. The row carries how long the drain has run, and its limits, so that the next one can be started in time.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Self

import structlog

from fairdraw import scheduling
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.engine.leases import LeaseKey, LeaseRow, LeaseTable
from regworkers_core.observability.logs import describe

# Well below the shortest time that an observer waits, so that a few beats may be late or lost.
BEAT_SECONDS = 5.0
# A standby takes over a few seconds after the last beat of the drain that works.
RESIDENT_BEAT_SECONDS = 1.0
# How long the end of a drain waits for the last write.
LAST_WRITE_SECONDS = 1.0
_SCOPE, _RUN = "DRAIN#", "RUN#"
_LAST = "LAST"
# The counters of residents' numbers, a row for each drain.
_NUMBERS = _SCOPE + "NUMBERS"
_ATTEMPTS = 10
log = structlog.get_logger(__name__)


class PeriodicWriter:
    """A context manager around a drain: calls `write` at once and every `every_seconds` in a thread of its own, and
    `write_last` at the end. What they raise is logged once, as `warning`: it must not fail or delay the drain, so the
    end blocks for at most `last_write_seconds`.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[], None],
        write_last: Callable[[], None],
        *,
        every_seconds: float,
        warning: str,
        last_write_seconds: float = LAST_WRITE_SECONDS,
    ) -> None:
        self._write, self._write_last, self._every_seconds = write, write_last, every_seconds
        self._warning, self._last_write_seconds = warning, last_write_seconds
        self._failed = False
        self._ended = scheduling.event()
        # A daemon: a server that hangs must not delay the end of the process.
        self._name = name

    def __enter__(self) -> Self:
        self._thread = scheduling.start(partial(copy_context().run, self._run), self._name)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(self._last_write_seconds)

    def _run(self) -> None:
        self._attempt(self._write)
        while not self._ended.wait(self._every_seconds):
            self._attempt(self._write)
        self._attempt(self._write_last)

    def _attempt(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            if not self._failed:
                self._failed = True
                known = isinstance(error, Failure | UsageError)
                log.warning(self._warning, error=str(error) if known else describe(error))


@dataclass(frozen=True, slots=True)
class Beat:
    """A drain's row as it was read. Seconds are those of the drain's own clock."""

    row: LeaseRow
    run_id: str
    running_seconds: float
    idle_seconds: float
    max_seconds: float  # how long it may run
    started_at: str  # an ISO time
    process: str  # `<host>:<pid>`
    role: str  # that of a resident (`drains.residency`), else empty
    number: int = 0  # orders residents

    @property
    def counter(self) -> int:
        return self.row.counter


@dataclass(frozen=True, slots=True)
class Watched:
    """What an observer remembers of a drain's rows: the time of its last read, and for each run its counter and the
    seconds for which it has not moved.
    """

    at: float = 0.0
    still: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def seen(self, beats: Iterable[Beat], now: float, *, longest_seconds: float) -> Self:
        """The state after reading the rows at `now`. One read adds at most `longest_seconds`: while DynamoDB is
        unavailable no row is read, and the drains cannot beat either.
        """
        more = min(max(0.0, now - self.at), longest_seconds)
        still = {}
        for beat in beats:
            counter, seconds = self.still.get(beat.run_id, (None, 0.0))
            still[beat.run_id] = (beat.counter, seconds + more if counter == beat.counter else 0.0)
        return type(self)(now, still)

    def seconds_still(self, beat: Beat) -> float:
        return self.still.get(beat.run_id, (0, 0.0))[1]


def beats(table: LeaseTable, drain: str) -> list[Beat]:
    """The rows of a drain's runs, including those of dead processes. Raises TransientFailure, and UsageError without
    the table.
    """
    return [_beat(row) for row in table.rows(_SCOPE + drain) if row.key.sk.startswith(_RUN)]


def row_that_stays(drain: str) -> LeaseKey:
    """The key of the drain's row that outlives its runs (`drains.acknowledged`)."""
    return LeaseKey(_SCOPE + drain, _LAST)


def is_heartbeat(scope: str) -> bool:
    """Whether rows of this partition key say how drains are, and are not leases."""
    return scope.startswith(_SCOPE)


def next_number(table: LeaseTable, drain: str) -> int:
    """A number above that of every resident of this drain before. Blocks for a few calls. Raises TransientFailure."""
    key = LeaseKey(_NUMBERS, drain)
    for _ in range(_ATTEMPTS):
        seen = table.get(key)
        # Also above the rows: the counter may have been deleted.
        last = max([seen.counter if seen else 0, *(beat.number for beat in beats(table, drain))])
        if table.swap(LeaseRow(key, counter=last + 1), seen):
            return last + 1
    raise TransientFailure("dynamodb", "others took every number that was tried")


def _beat(row: LeaseRow) -> Beat:
    return Beat(
        row,
        row.key.sk.removeprefix(_RUN),
        running_seconds=_number(row.state, "runningSeconds"),
        idle_seconds=_number(row.state, "idleSeconds"),
        max_seconds=_number(row.state, "maxSeconds"),
        started_at=row.state.get("startedAt", ""),
        process=row.state.get("process", ""),
        role=row.state.get("role", ""),
        number=int(_number(row.state, "number")),
    )


def _number(state: Mapping[str, str], name: str) -> float:
    try:
        return float(state.get(name, ""))
    except ValueError:
        return 0.0


@dataclass(eq=False)
class Heartbeat(PeriodicWriter):
    """The heartbeat of one drain, as a context manager around it."""

    table: Callable[[], LeaseTable]
    drain: str
    run_id: str
    _: KW_ONLY
    # An ISO time.
    started_at: str
    idle_seconds: float
    # It ends after these at the latest.
    max_seconds: float
    # It is called after every beat.
    look: Callable[[], None] = lambda: None
    # It is asked before each beat for further fields, and raises TransientFailure.
    more: Callable[[], Mapping[str, str]] = dict
    beat_seconds: float = BEAT_SECONDS
    clock: Callable[[], float] = scheduling.monotonic

    def __post_init__(self) -> None:
        super().__init__(
            f"{self.drain}-life",
            self._beat_and_look,
            self.remove,
            every_seconds=self.beat_seconds,
            warning="heartbeat not written",
        )
        self._key = LeaseKey(_SCOPE + self.drain, _RUN + self.run_id)
        self._state = {
            "startedAt": self.started_at,
            "idleSeconds": str(self.idle_seconds),
            "maxSeconds": str(self.max_seconds),
            "process": f"{socket.gethostname()}:{os.getpid()}",
        }
        self._began = self.clock()
        self._seen: LeaseRow | None = None
        self._counter = 0

    def _beat_and_look(self) -> None:
        self.beat()
        self.look()

    def beat(self) -> None:
        """Move the counter; creates the row if there is none. Raises TransientFailure."""
        self._counter += 1
        state = {**self._state, "runningSeconds": f"{self.clock() - self._began:.1f}", **self.more()}
        row = LeaseRow(self._key, owner=self.run_id, token=1, counter=self._counter, state=state)
        if self.table().swap(row, self._seen):
            self._seen = row
            return
        # An observer removed it, or the answer to a successful write was lost.
        self._seen = self.table().get(self._key)
        self._seen = row if self.table().swap(row, self._seen) else self._seen

    def remove(self) -> None:
        """The drain has ended, so nothing waits for its row to expire. Raises TransientFailure."""
        seen = self._seen
        if seen is not None and not self.table().remove(seen):
            now = self.table().get(self._key)
            if now is not None:
                self.table().remove(now)
