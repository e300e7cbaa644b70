"""Dead letters are closed when their entry is saved after all, without a call per batch."""

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
# Whoever mends an entry does so minutes after it failed, and mostly in another run.
_REFRESH_SECONDS = 30.0
# Above this many open letters of a queue there is an incident, and a call per batch is no longer a waste.
_MOST_KNOWN = 10_000


class LetterLog(Protocol):
    def open_entries(self, queue: str, limit: int) -> set[EntryKey] | None: ...
    def resolve(self, queue: str, saved: Mapping[EntryKey, Order], *, at: str) -> int: ...


class OpenLetters:
    """Which entries have an open dead letter of `queue`, as it was known up to half a minute ago. Shared by all
    threads of a drain; `clock` gives epoch seconds.
    """

    def __init__(self, letters: LetterLog, queue: str, *, clock: Callable[[], float] = time.time) -> None:
        self._letters, self._queue, self._clock = letters, queue, clock
        self._lock = threading.Lock()
        # None: too many to know.
        self._known: set[EntryKey] | None = set()
        self._refresh_at = 0.0

    def expect(self, failed: Iterable[EntryKey]) -> None:
        """Entries that failed just now, which may have a letter soon."""
        with self._lock:
            if self._known is not None:
                self._known.update(failed)

    def close(self, saved: Mapping[EntryKey, Order]) -> int:
        """Close the letters of saved entries under their order or a smaller one; how many.

        Never raises TransientFailure: the entries are saved, and what stays open is closed by a later save.
        """
        try:
            some = self._with_letters(saved)
            return self._letters.resolve(self._queue, some, at=iso(self._clock())) if some else 0
        except TransientFailure as failure:
            log.warning("dead letters not closed", dependency=failure.dependency, error=failure.error)
            return 0

    def _with_letters(self, saved: Mapping[EntryKey, Order]) -> Mapping[EntryKey, Order]:
        with self._lock:
            if self._clock() >= self._refresh_at:
                self._known = self._letters.open_entries(self._queue, _MOST_KNOWN)
                self._refresh_at = self._clock() + _REFRESH_SECONDS
            if self._known is None:
                return saved
            return {key: order for key, order in saved.items() if key in self._known}
