"""What the drains did within a window: the only reader of what `drain_log` adds up to.

The log is read one day at a time, so that neither memory nor the time of a read grows with the window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from regworkers_core.adapters.mongo.activity import A_MINUTE, TEN_MINUTES, minute_of
from regworkers_core.domain.activity import DrainMinute, DrainWindow
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime

DAY_SECONDS, HOUR_SECONDS = 86_400.0, 3600.0
# Windows by the drain's name, and these by the date of a day.
Drains = Mapping[str, DrainWindow]
Days = Mapping[str, Drains]


@dataclass(frozen=True, slots=True)
class Window:
    """From the minute of `since` on, before that of `until`, in epoch seconds."""

    since: float
    until: float

    @property
    def seconds(self) -> float:
        return self.until - self.since

    def days(self) -> Iterator[Window]:
        """The window, split at each midnight (UTC)."""
        start = self.since
        while start < self.until:
            midnight = min((start // DAY_SECONDS + 1) * DAY_SECONDS, self.until)
            yield Window(start, midnight)
            start = midnight


def added_up(minutes: Iterable[DrainMinute], window_seconds: float = 0.0) -> dict[str, DrainWindow]:
    """The window of each drain; `minutes` are oldest first, those of a window of `window_seconds`."""
    found: dict[str, DrainWindow] = {}
    for minute in minutes:
        found.setdefault(minute.drain, DrainWindow(minute.drain, window_seconds)).add(minute)
    return found


def together(parts: Iterable[Drains]) -> dict[str, DrainWindow]:
    """Windows that follow each other as one, by drain."""
    merged: dict[str, DrainWindow] = {}
    for part in parts:
        for name, each in part.items():
            merged.setdefault(name, DrainWindow(name)).merge(each)
    return dict(sorted(merged.items()))


class Activity:
    """Every method raises TransientFailure."""

    def __init__(self, runtime: Runtime) -> None:
        self._log, self._now = runtime.drain_log, runtime.clock()

    def over(self, window: Window) -> dict[str, DrainWindow]:
        """The drains that worked within the window, by name."""
        found = together(self.by_day(window).values())
        for each in found.values():
            each.window_seconds = window.seconds
            each.count_active(min(self._now, window.until))
        return found

    def last(self, seconds: float) -> dict[str, DrainWindow]:
        return self.over(Window(self._now - seconds, self._now))

    def by_day(self, window: Window) -> dict[str, dict[str, DrainWindow]]:
        """The windows by the date of each day (UTC), as far as it is in the window, and drain."""
        # A window that lasts until now has this minute, too, and what clocks ahead of ours wrote.
        until = window.until if window.until < self._now else self._now + HOUR_SECONDS
        found: dict[str, dict[str, DrainWindow]] = {}
        for day in Window(window.since, until).days():
            minutes = self._log.between(minute_of(day.since), minute_of(day.until))
            if drains := added_up(minutes, day.seconds):
                found[iso(day.since)[:10]] = drains
        return found

    def counted(self, seconds: float) -> list[DrainMinute]:
        """Only what objectives count, of the last `seconds`, runs of a drain together: by the minute in the last hour,
        by ten minutes before it. What is over is read once in a process.
        """
        exact = minute_of(self._now - HOUR_SECONDS)[:TEN_MINUTES] + "0Z"
        return [
            *self._log.sums(minute_of(self._now - seconds), exact),
            *self._log.totals(exact, minute_of(self._now + HOUR_SECONDS), A_MINUTE),
        ]
