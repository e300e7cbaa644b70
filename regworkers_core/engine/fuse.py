"""The fuse of a drain: one cause that makes too many items a dead letter is a bug, and ends the drain.

A blown fuse stays behind as a row of `worker-leases`. It holds for the code that blew it: another version starts and
removes it; `regworkers drain resume` removes it by hand.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from regworkers_core.domain.dead_letter import fingerprint
from regworkers_core.domain.reasons import PermanentFailure
from regworkers_core.engine.leases import LeaseKey, LeaseRow, LeaseTable

# More than this many of the last items with one fingerprint are a bug, and no odd items any more.
MOST_DEFECTS = 20
WINDOW_ITEMS = 400
FUSES = "FUSE#"


class FuseBlown(Exception):
    """Nothing more is to be handled by this drain: what it holds goes back."""


class Fuse:
    """Counts how the items of one drain end; safe to share between threads.

    Every defect is counted before its dead letter is sent, so no more than `MOST_DEFECTS` of one cause are sent
    within a window, however many batches are at work at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items = 0
        # Which item of the drain ended as a defect, and with which fingerprint.
        self._defects: deque[tuple[int, str]] = deque()
        self.blown: PermanentFailure | None = None

    def passed(self, items: int) -> None:
        """Count `items` that ended in any other way."""
        with self._lock:
            self._items += items

    def failed(self, failure: PermanentFailure) -> None:
        """An item is about to end as a defect. Raises FuseBlown when that is one too many."""
        cause = fingerprint(failure.reason, failure.error)
        with self._lock:
            self._items += 1
            self._defects.append((self._items, cause))
            while self._defects[0][0] <= self._items - WINDOW_ITEMS:
                self._defects.popleft()
            if sum(each == cause for _, each in self._defects) > MOST_DEFECTS:
                self.blown = self.blown or failure
            if self.blown is not None:
                raise FuseBlown


@dataclass(frozen=True, slots=True)
class BlownFuse:
    """The fuse of a drain as its row tells: `reason` is what failed, `tripped_at` an ISO time."""

    drain: str
    fingerprint: str
    reason: str
    tripped_at: str
    code_version: str
    run_id: str

    def as_dict(self) -> dict[str, str]:
        return {
            "fingerprint": self.fingerprint,
            "reason": self.reason,
            "trippedAt": self.tripped_at,
            "codeVersion": self.code_version,
            "runId": self.run_id,
        }

    @property
    def in_words(self) -> str:
        return blown_in_words(self.drain, self.reason, f" at {self.tripped_at}")


def blown_in_words(drain: str, reason: str, when: str = "") -> str:
    """What happened, and what helps."""
    return (
        f"the fuse of the drain {drain} blew{when}: more than {MOST_DEFECTS} of its last {WINDOW_ITEMS} items failed "
        f"with {reason}; deploy a version without that defect, or run `regworkers drain resume {drain}` to try this "
        "one again"
    )


def blown_fuse(table: LeaseTable, drain: str) -> BlownFuse | None:
    """Raises TransientFailure when the table cannot be read."""
    row = table.get(_key(drain))
    return None if row is None else _blown(drain, row)


def keep_blown(table: LeaseTable, blown: BlownFuse) -> None:
    """Write it down; the last drain that blew is the one that is kept."""
    key = _key(blown.drain)
    seen = table.get(key)
    table.swap(LeaseRow(key, counter=1 + (seen.counter if seen else 0), state=blown.as_dict()), seen)


def remove_blown(table: LeaseTable, drain: str) -> BlownFuse | None:
    """What was removed; None when there was nothing, or another process was faster."""
    row = table.get(_key(drain))
    return _blown(drain, row) if row is not None and table.remove(row) else None


def _key(drain: str) -> LeaseKey:
    return LeaseKey(FUSES + drain, "FUSE")


def _blown(drain: str, row: LeaseRow) -> BlownFuse:
    names = ("fingerprint", "reason", "trippedAt", "codeVersion", "runId")
    return BlownFuse(drain, *(row.state.get(name, "") for name in names))
