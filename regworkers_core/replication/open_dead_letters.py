"""Closes dead letters once their entry is saved after all, without a call per batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso

log = structlog.get_logger(__name__)
# A failed entry is corrected minutes later, and mostly saved in another run.
_REFRESH_SECONDS = 30.0
# More open dead letters of a queue are an incident, in which a call per batch is worth its cost.
_MOST_KNOWN = 10_000


class DeadLetterRecords(Protocol):
    def open_entries(self, queue: str, limit: int) -> set[EntryKey] | None: ...
    def resolve(self, queue: str, saved: Mapping[EntryKey, Order], *, at: str) -> int: ...


class OpenDeadLetters:
    """The entries with an open dead letter of `queue`, as known up to half a minute ago. Shared by all threads of a
    drain; `clock` is in epoch seconds.
    """

    def __init__(
        self, records: DeadLetterRecords, queue: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._records, self._queue, self._clock = records, queue, clock
        self._lock = threading.Lock()
        # None: too many to know.
        self._known: set[EntryKey] | None = set()
        self._refresh_at = 0.0

    def expect(self, failed: Iterable[EntryKey]) -> None:
        """These entries failed just now, so they may soon have a dead letter."""
        with self._lock:
            if self._known is not None:
                self._known.update(failed)

    def close(self, saved: Mapping[EntryKey, Order]) -> int:
        """Close the dead letters of saved entries under their order or a smaller one; returns how many.

        Never raises TransientFailure: the entries are saved, and a later save closes what stays open.
        """
        try:
            some = self._with_dead_letters(saved)
            return self._records.resolve(self._queue, some, at=iso(self._clock())) if some else 0
        except TransientFailure as failure:
            log.warning("dead letters not closed", dependency=failure.dependency, error=failure.error)
            return 0

    def _with_dead_letters(self, saved: Mapping[EntryKey, Order]) -> Mapping[EntryKey, Order]:
        with self._lock:
            if self._clock() >= self._refresh_at:
                self._known = self._records.open_entries(self._queue, _MOST_KNOWN)
                self._refresh_at = self._clock() + _REFRESH_SECONDS
            if self._known is None:
                return saved
            return {key: order for key, order in saved.items() if key in self._known}
