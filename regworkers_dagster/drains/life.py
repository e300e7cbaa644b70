"""Which drains are at work, and which died unnoticed: pure functions of Dagster's runs and the drains' heartbeats.

A drain counts while it shows life, not while nothing has marked it as ended: a process that was killed in a terminal
marks nothing. That a drain is silent for a while only lets a sensor start another one, which leases make harmless;
that its run is reported as failed takes much longer, and never follows from something that could not be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from regworkers_core.drains.heartbeat import Beat
from regworkers_dagster.drains.decisions import ActiveDrain

# Six beats are missing: it is not waited for.
SILENT_SECONDS = 30.0
# For sure: a drain whose DynamoDB was away has its breaker and its retries behind it, and has beaten again.
DEAD_SECONDS = 120.0
# From its start in Dagster's eyes to its first beat: wiring, also on a machine that is busy.
FIRST_BEAT_SECONDS = 60.0
# Beyond its time limit a drain finishes what is in flight; it takes no work any more, so it is not counted.
FINISHING_SECONDS = 60.0
# What is not finished so long after its time limit hangs.
HUNG_SECONDS = 600.0
# How much one look adds to the time that a counter has not moved. While no tick could read the rows (DynamoDB was away)
# nothing was seen, and the drain could not beat either.
_MOST_PER_LOOK_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class DrainRun:
    """A run of Dagster. `ended` also for one that is being cancelled; `seconds_running` is None before its start."""

    run_id: str
    ended: bool
    seconds_running: float | None
    idle_seconds: float
    max_seconds: float


@dataclass(frozen=True, slots=True)
class Dead:
    """A run, or a drain that was started without Dagster, that is gone or hangs. `beat` is its row, if it has one."""

    run_id: str
    why: str
    beat: Beat | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """What a sensor remembers of a drain's heartbeats: when it looked last (epoch seconds), and of each run its
    counter and the seconds for which it was seen not to move.
    """

    at: float = 0.0
    still: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def seen(self, beats: Iterable[Beat], now: float) -> Self:
        """After a look at the rows at `now`."""
        more = min(max(0.0, now - self.at), _MOST_PER_LOOK_SECONDS)
        still = {}
        for beat in beats:
            counter, seconds = self.still.get(beat.run_id, (None, 0.0))
            still[beat.run_id] = (beat.counter, seconds + more if counter == beat.counter else 0.0)
        return type(self)(now, still)

    def seconds_still(self, beat: Beat) -> float:
        return self.still.get(beat.run_id, (0, 0.0))[1]


@dataclass(frozen=True, slots=True)
class Life:
    """`ended` are rows that drains left behind which ended otherwise."""

    active: list[ActiveDrain]
    dead: list[Dead] = field(default_factory=list)
    ended: list[Beat] = field(default_factory=list)


def by_runs(runs: Iterable[DrainRun]) -> Life:
    """Where the heartbeats could not be read: what Dagster believes, as far as its time limits allow."""
    return Life([_of_run(run) for run in runs if not run.ended and _overrun(run) <= FINISHING_SECONDS])


def by_beats(runs: Sequence[DrainRun], beats: Sequence[Beat], watched: Watched) -> Life:
    """`runs` are those that Dagster takes for active, and those that the rows name; `watched` has seen the rows."""
    known = {run.run_id: run for run in runs}
    life = Life([])
    for beat in beats:
        run, still = known.get(beat.run_id), watched.seconds_still(beat)
        overrun = beat.running_seconds - beat.max_seconds
        if run is not None and run.ended:
            # It may still finish what is in flight: its row is left to it.
            if still >= DEAD_SECONDS:
                life.ended.append(beat)
        elif still >= DEAD_SECONDS:
            why = f"its process ({beat.process}) has shown no sign of life for {still:.0f} s: it is gone"
            life.dead.append(Dead(beat.run_id, why, beat))
        elif overrun > HUNG_SECONDS and run is not None:
            why = f"its process ({beat.process}) hangs: it should have left {overrun:.0f} s ago"
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
            why = f"no process shows a sign of life, and it should have left {_overrun(run):.0f} s ago"
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
    """Drains without rows are left out, so that an idle sensor's cursor stays as it is."""
    return orjson.dumps(
        {drain: {"at": each.at, "still": each.still} for drain, each in watched.items() if each.still}
    ).decode()
