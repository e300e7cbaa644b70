"""How many drains to start: pure functions of what a sensor read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# From the tick that asks for it, a run takes 5 s to work, and 12 s on a busy machine; several ticks have a chance.
HANDOVER_SECONDS = 20.0
# One crash may be an accident (a node went away); a row of them is a defect, and runs are not free.
_CRASHES_FORGIVEN = 2
_FIRST_PAUSE_SECONDS = 15.0
_LONGEST_PAUSE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ActiveDrain:
    """A run that was asked for and has not ended: how long it runs (None before its start) and its limits."""

    seconds_running: float | None
    idle_seconds: float
    max_seconds: float

    @property
    def leaves(self) -> bool:
        """It ends soon by its time limit, and it had work within its idle time, or it would have left."""
        running = self.seconds_running
        if running is None or running <= self.idle_seconds:
            return False
        return self.max_seconds - running <= HANDOVER_SECONDS


@dataclass(frozen=True, slots=True)
class Decision:
    """Start so many; `reason` says why, or why none."""

    start: int
    reason: str


def by_depth(
    waiting: int, in_flight: int, active: Sequence[ActiveDrain], *, per_drain: int, max_drains: int
) -> Decision:
    """For a queue: none while nothing waits, one for a trickle, one more for every `per_drain` messages.

    Messages that are only in flight start no drain: their drain is at work on them, or they wait for a
    retry and will be seen when they are due.
    """
    wanted = 0
    if waiting:
        wanted = min(max_drains, math.ceil((waiting + in_flight) / per_drain))
    elif any(drain.leaves for drain in active):
        # Work flows, and this moment without a message says little.
        wanted = 1
    return _missing(wanted, active, f"{waiting} messages wait, {in_flight} are in flight")


def by_age(
    oldest_seconds: float | None, active: Sequence[ActiveDrain], *, objective_seconds: float, max_drains: int
) -> Decision:
    """For the stream: `oldest_seconds` is the age of its oldest unread record, None when nothing is unread or
    nobody looked because a drain is at work. One drain, and one more for every lag objective it is behind;
    drains about to leave are replaced one by one.
    """
    if active:
        leaving = sum(drain.leaves for drain in active)
        wanted = min(max_drains, len(active)) if leaving else 0
        return _missing(wanted, active, "the stream is being read")
    if oldest_seconds is None:
        return Decision(0, "nothing is unread")
    wanted = min(max_drains, 1 + int(max(0.0, oldest_seconds) / objective_seconds))
    return _missing(wanted, active, f"unread records, the oldest {oldest_seconds:.0f} s old")


def _missing(wanted: int, active: Sequence[ActiveDrain], what: str) -> Decision:
    staying = sum(not drain.leaves for drain in active)
    start = max(0, wanted - staying)
    drains = f"{len(active)} drain{'s' * (len(active) != 1)} active"
    if len(active) > staying:
        drains += f", {len(active) - staying} about to leave"
    return Decision(start, f"{what}; {drains}")


def pause_after_crashes(in_a_row: int, seconds_since_last: float) -> float:
    """Seconds still to wait before another drain is started, after so many failed runs in a row."""
    if in_a_row <= _CRASHES_FORGIVEN:
        return 0.0
    doublings = min(in_a_row - _CRASHES_FORGIVEN - 1, 10)
    pause: float = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0**doublings)
    return max(0.0, pause - seconds_since_last)


def worth_recording(before: float | None, now: float | None, seconds_since: float) -> bool:
    """Whether an observed number changed enough to be written to the event log, which keeps observations for
    ever: it became known, unknown, zero or more than zero, moved by a fifth, or is ten minutes old.
    """
    if seconds_since >= 600:
        return True
    if before is None or now is None:
        return before is not now
    if (before == 0) != (now == 0):
        return True
    return abs(now - before) > 0.2 * max(abs(before), abs(now))
