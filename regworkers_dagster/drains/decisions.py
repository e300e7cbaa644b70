"""How many drains to start, which are at work, and which died unnoticed: pure functions of what a sensor read.

A drain counts while its heartbeat moves, not until Dagster marks its run as ended: a process that was killed in a
terminal marks nothing. A drain that is silent for a while only lets a sensor start another one, which leases make
harmless. To report its run as failed takes much longer, and never follows from something that could not be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from regworkers_core.drains.heartbeat import Beat

# From the tick that requests it, a run needs 5 s to start work, and 12 s on a busy machine; several ticks have a
# chance.
HANDOVER_SECONDS = 20.0
# One crash may be an accident (a lost node); several in a row are a defect, and runs are not free.
_CRASHES_FORGIVEN = 2
_FIRST_PAUSE_SECONDS = 15.0
_LONGEST_PAUSE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ActiveDrain:
    """A run that was requested and has not ended: its age (None before its start) and its limits."""

    seconds_running: float | None
    idle_seconds: float
    max_seconds: float

    @property
    def leaves(self) -> bool:
        """Whether its time limit ends it soon; it had work within its idle time, or it would have ended."""
        running = self.seconds_running
        if running is None or running <= self.idle_seconds:
            return False
        return self.max_seconds - running <= HANDOVER_SECONDS


@dataclass(frozen=True, slots=True)
class Decision:
    """How many to start; `reason` says why, or why none."""

    start: int
    reason: str


def by_depth(
    waiting: int, in_flight: int, active: Sequence[ActiveDrain], *, per_drain: int, max_drains: int
) -> Decision:
    """For a queue: none while it is empty, one for a trickle, one more for every `per_drain` messages.

    Messages that are in flight start no drain: a drain works on them, or they wait for a retry and become visible when
    they are due.
    """
    wanted = 0
    if waiting:
        wanted = min(max_drains, math.ceil((waiting + in_flight) / per_drain))
    elif any(drain.leaves for drain in active):
        # Work arrives, and one moment without a message says little.
        wanted = 1
    return _missing(wanted, active, f"{waiting} messages wait, {in_flight} are in flight")


def by_age(
    oldest_seconds: float | None, active: Sequence[ActiveDrain], *, objective_seconds: float, max_drains: int
) -> Decision:
    """For the stream: one drain, and one more for every lag objective it is behind; drains that are about to end are
    replaced one by one. `oldest_seconds` is the age of the oldest unread record, None when nothing is unread or an
    active drain makes the question needless.
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
    """Seconds to wait before another drain is started, after `in_a_row` failed runs."""
    if in_a_row <= _CRASHES_FORGIVEN:
        return 0.0
    doublings = min(in_a_row - _CRASHES_FORGIVEN - 1, 10)
    pause: float = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0**doublings)
    return max(0.0, pause - seconds_since_last)


def worth_recording(before: float | None, now: float | None, seconds_since: float) -> bool:
    """Whether an observed number changed enough to be written to the event log: it became known, unknown, zero or more
    than zero, moved by a fifth, or is an hour old.
    """
    if seconds_since >= 3600:
        return True
    if before is None or now is None:
        return before is not now
    if (before == 0) != (now == 0):
        return True
    return abs(now - before) > 0.2 * max(abs(before), abs(now))


# Six beats are missing: it no longer counts as active.
SILENT_SECONDS = 30.0
# Long enough for a drain that lost DynamoDB to get through its breaker and retries, and to beat again.
DEAD_SECONDS = 120.0
# From the start of the run to its first beat: wiring, also on a busy machine.
FIRST_BEAT_SECONDS = 60.0
# Beyond its time limit a drain finishes what is in flight; it takes no new work, so it is not counted.
FINISHING_SECONDS = 60.0
# A drain that has not ended this long after its time limit hangs.
HUNG_SECONDS = 600.0
# How much one tick adds to the time that a counter has not moved: while DynamoDB is unavailable no tick reads the rows,
# and the drain cannot beat either.

_MAX_SECONDS_PER_TICK = 15.0


@dataclass(frozen=True, slots=True)
class DrainRun:
    """A run of Dagster. A run that is being cancelled counts as `ended`; `seconds_running` is None before its start."""

    run_id: str
    ended: bool
    seconds_running: float | None
    idle_seconds: float
    max_seconds: float


@dataclass(frozen=True, slots=True)
class Dead:
    """A run, or a drain that was started without Dagster, that has died or hangs. `beat` is its row, if it has one."""

    run_id: str
    why: str
    beat: Beat | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """What a sensor remembers of a drain's heartbeats: the time of its last tick (epoch seconds), and for each run its
    counter and the seconds for which it has not moved.
    """

    at: float = 0.0
    still: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def seen(self, beats: Iterable[Beat], now: float) -> Self:
        """The state after reading the rows at `now`."""
        more = min(max(0.0, now - self.at), _MAX_SECONDS_PER_TICK)
        still = {}
        for beat in beats:
            counter, seconds = self.still.get(beat.run_id, (None, 0.0))
            still[beat.run_id] = (beat.counter, seconds + more if counter == beat.counter else 0.0)
        return type(self)(now, still)

    def seconds_still(self, beat: Beat) -> float:
        return self.still.get(beat.run_id, (0, 0.0))[1]


@dataclass(frozen=True, slots=True)
class Life:
    """`ended` are rows of drains that ended without removing them."""

    active: list[ActiveDrain]
    dead: list[Dead] = field(default_factory=list)
    ended: list[Beat] = field(default_factory=list)


def by_runs(runs: Iterable[DrainRun]) -> Life:
    """Without heartbeats, which could not be read: what Dagster believes, within the time limits of the runs."""
    return Life([_of_run(run) for run in runs if not run.ended and _overrun(run) <= FINISHING_SECONDS])


def by_beats(runs: Sequence[DrainRun], beats: Sequence[Beat], watched: Watched) -> Life:
    """`runs` are those that are active for Dagster, and those that the rows name; `watched` includes the rows."""
    known = {run.run_id: run for run in runs}
    life = Life([])
    for beat in beats:
        run, still = known.get(beat.run_id), watched.seconds_still(beat)
        overrun = beat.running_seconds - beat.max_seconds
        if run is not None and run.ended:
            # It may still finish what is in flight and then remove its row itself.
            if still >= DEAD_SECONDS:
                life.ended.append(beat)
        elif still >= DEAD_SECONDS:
            why = f"its process ({beat.process}) has shown no sign of life for {still:.0f} s: it died"
            life.dead.append(Dead(beat.run_id, why, beat))
        elif overrun > HUNG_SECONDS and run is not None:
            why = f"its process ({beat.process}) hangs: it should have ended {overrun:.0f} s ago"
            life.dead.append(Dead(beat.run_id, why))
        elif still < SILENT_SECONDS and overrun <= FINISHING_SECONDS:
            life.active.append(ActiveDrain(beat.running_seconds, beat.idle_seconds, beat.max_seconds))
    with_row = {beat.run_id for beat in beats}
    for run in runs:
        if run.ended or run.run_id in with_row:
            continue
        if (run.seconds_running or 0.0) <= FIRST_BEAT_SECONDS:
            life.active.append(_of_run(run))
        elif _overrun(run) > HUNG_SECONDS:
            why = f"no process shows a sign of life, and it should have ended {_overrun(run):.0f} s ago"
            life.dead.append(Dead(run.run_id, why))
    return life


def _of_run(run: DrainRun) -> ActiveDrain:
    return ActiveDrain(run.seconds_running, run.idle_seconds, run.max_seconds)


def _overrun(run: DrainRun) -> float:
    return (run.seconds_running or 0.0) - run.max_seconds


def parse_watched(cursor: str | None) -> dict[str, Watched]:
    """What a sensor remembers, by drain. A damaged or lost cursor costs `DEAD_SECONDS` once."""
    try:
        document: Any = orjson.loads(cursor or "{}")
        return {
            str(drain): Watched(
                float(found["at"]),
                {str(run): (int(counter), float(still)) for run, (counter, still) in found["still"].items()},
            )
            for drain, found in document.items()
        }
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def cursor_of(watched: Mapping[str, Watched]) -> str:
    """The cursor. Drains without rows are left out, so that the cursor of an idle sensor does not change."""
    return orjson.dumps(
        {drain: {"at": each.at, "still": each.still} for drain, each in watched.items() if each.still}
    ).decode()
