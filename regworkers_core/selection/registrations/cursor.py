"""How far the entries of a campaign were read, in the order of their saving.

A save may become visible after later ones: its write was slow, or its worker's clock is. So what was read is read again
some seconds after its time, and once more when the clocks of all workers must be past it. No I/O.
"""

from __future__ import annotations

from typing import NamedTuple

from regworkers_core.domain.timestamps import iso

# The slowest writes of this system, with their retries, are visible by then.
_SLOW_WRITE_SECONDS = 20.0


class Span(NamedTuple):
    """What to read next: what was saved after a time, and up to another (ISO; None: whatever there is)."""

    number: int  # 0: to be read for the first time, greater: again
    after: str
    until: str | None = None


class Cursor:
    """Begins at `position`, an ISO time; empty: at the first entry. What was saved is read the last time
    `overlap_seconds` later.
    """

    def __init__(self, position: str, overlap_seconds: float) -> None:
        self._delays = sorted({0.0, min(_SLOW_WRITE_SECONDS, overlap_seconds), overlap_seconds})
        # Until when everything was read for the first time, and again by each delay.
        self._read = [position] * len(self._delays)

    @property
    def position(self) -> str:
        """Until when everything was read for the last time."""
        return min(self._read)

    @property
    def is_settled(self) -> bool:
        """Whether nothing that was read has to be read again."""
        return self.position == self._read[0]

    def next(self, now: float) -> Span:
        """What to read at `now` (epoch seconds): what is to be read again by then, else what is new."""
        for number in range(len(self._delays) - 1, 0, -1):
            until = min(self._read[0], iso(now - self._delays[number]))
            if self._read[number] < until:
                return Span(number, self._read[number], until)
        return Span(0, self._read[0])

    def advance(self, span: Span, through: str, read_at: float) -> None:
        """Nothing is left to do of a span up to a time. What was old enough at `read_at` is not read again."""
        for number, delay in enumerate(self._delays):
            if number == span.number:
                self._read[number] = max(self._read[number], through)
            elif self._read[number] >= span.after:
                self._read[number] = max(self._read[number], min(through, iso(read_at - delay)))
