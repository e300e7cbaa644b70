"""Signs of life of drains: a row per running drain in `worker-leases`, however it was started.

A thread of the drain's process moves the row's counter every few seconds and removes the row at the end. A row whose
counter does not move while an observer watches belongs to a process that is gone: no clocks of two machines are
compared. The row carries how long the drain runs and its limits, so that the next one can be started in time.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from typing import Self

import structlog

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.engine.leases import LeaseKey, LeaseRow, LeaseTable
from regworkers_core.observability.logs import describe

# Well below the shortest time that an observer waits, so that a few beats may be late or lost.
BEAT_SECONDS = 5.0
# How long a drain that has ended waits for its row to be removed.
_LAST_WORDS_SECONDS = 1.0
_SCOPE, _RUN = "DRAIN#", "RUN#"
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Beat:
    """A drain's row as it was read. Seconds are those of its own clock; `process` is `<host>:<pid>`."""

    row: LeaseRow
    run_id: str
    running_seconds: float
    idle_seconds: float
    max_seconds: float
    started_at: str
    process: str

    @property
    def counter(self) -> int:
        return self.row.counter


def beats(table: LeaseTable, drain: str) -> list[Beat]:
    """The rows of a drain's runs, those of dead processes among them. Raises TransientFailure, and UsageError
    without the table.
    """
    return [_beat(row) for row in table.rows(_SCOPE + drain)]


def is_heartbeat(scope: str) -> bool:
    """Whether rows of this partition key are heartbeats, and no leases."""
    return scope.startswith(_SCOPE)


def _beat(row: LeaseRow) -> Beat:
    return Beat(
        row,
        row.key.sk.removeprefix(_RUN),
        running_seconds=_number(row.state, "runningSeconds"),
        idle_seconds=_number(row.state, "idleSeconds"),
        max_seconds=_number(row.state, "maxSeconds"),
        started_at=row.state.get("startedAt", ""),
        process=row.state.get("process", ""),
    )


def _number(state: Mapping[str, str], name: str) -> float:
    try:
        return float(state.get(name, ""))
    except ValueError:
        return 0.0


class Heartbeat:
    """As a context manager around a drain: its row, moved by a thread of its own. A beat that fails is logged once
    and costs the drain nothing; the next one is tried as if nothing had happened.

    `started_at` is an ISO time, for people.
    """

    def __init__(
        self,
        table: Callable[[], LeaseTable],
        drain: str,
        run_id: str,
        *,
        started_at: str,
        idle_seconds: float,
        max_seconds: float,
        beat_seconds: float = BEAT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table, self._key, self._run_id = table, LeaseKey(_SCOPE + drain, _RUN + run_id), run_id
        self._state = {
            "startedAt": started_at,
            "idleSeconds": str(idle_seconds),
            "maxSeconds": str(max_seconds),
            "process": f"{socket.gethostname()}:{os.getpid()}",
        }
        self._beat_seconds, self._clock, self._began = beat_seconds, clock, clock()
        self._seen: LeaseRow | None = None
        self._counter = 0
        self._failed = False
        self._ended = threading.Event()
        # A daemon: a server that hangs must not hold up the end of the process.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name=f"{drain}-life", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(_LAST_WORDS_SECONDS)

    def _run(self) -> None:
        self._quietly(self.beat)
        while not self._ended.wait(self._beat_seconds):
            self._quietly(self.beat)
        self._quietly(self.remove)

    def beat(self) -> None:
        """Move the counter; puts the row where there is none."""
        self._counter += 1
        state = {**self._state, "runningSeconds": f"{self._clock() - self._began:.1f}"}
        row = LeaseRow(self._key, owner=self._run_id, token=1, counter=self._counter, state=state)
        if self._table().swap(row, self._seen):
            self._seen = row
            return
        # An observer removed it, or the answer of a write that was done got lost.
        self._seen = self._table().get(self._key)
        self._seen = row if self._table().swap(row, self._seen) else self._seen

    def remove(self) -> None:
        """The drain ends: it must not be waited for."""
        seen = self._seen
        if seen is not None and not self._table().remove(seen):
            now = self._table().get(self._key)
            if now is not None:
                self._table().remove(now)

    def _quietly(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            # Whatever it is: the drain has better things to do than to fail for its heartbeat.
            if not self._failed:
                self._failed = True
                known = isinstance(error, Failure | UsageError)
                log.warning("heartbeat not written", error=str(error) if known else describe(error))
