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

from regworkers_core.drains.heartbeat import Beat, Watched
from regworkers_core.drains.residency import BLIND

# The time of a start that was not measured yet: from its request until it works, a run on Kubernetes may take a minute.
UNKNOWN_START_SECONDS = 60.0
# The next tick of a sensor whose residents live comes so late.
NEXT_TICK_SECONDS = 30.0
_STARTS_REMEMBERED = 20
# One works, one stands by.
_RESIDENTS = 2
# While all residents are blind, another one is tried so often: on another host it may reach what they do not.
TRY_SECONDS = 60.0
# One crash may be an accident (a lost node); several in a row are a defect, and runs are not free.
_CRASHES_FORGIVEN = 2
_FIRST_PAUSE_SECONDS = 15.0
_LONGEST_PAUSE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ActiveDrain:
    """A run that was requested and has not ended, with its limits."""

    # None before its start.
    seconds_running: float | None
    idle_seconds: float
    # It ends after these at the latest.
    max_seconds: float
    # It stays until another one works.
    resident: bool = False
    # It is no run of Dagster.
    outside: bool = False
    # Its heartbeat has not moved since the last look.
    silent: bool = False
    # It is a resident that cannot work.
    blind: bool = False

    def leaves(self, lead_seconds: float) -> bool:
        """Whether its time limit ends it within `lead_seconds`; if it is no resident, it had work within its idle time,
        or it would have ended.
        """
        running = self.seconds_running
        if running is None or (running <= self.idle_seconds and not self.resident):
            return False
        return self.max_seconds - running <= lead_seconds


@dataclass(frozen=True, slots=True)
class Decision:
    """What a sensor does."""

    # How many drains to start.
    start: int
    # Why, or why none.
    reason: str
    # How many of these are residents.
    residents: int = 0
    # Residents live, so the next look may be late.
    late: bool = False
    # It is only a try, of which there is one in `TRY_SECONDS`.
    tries: bool = False


@dataclass(frozen=True, slots=True)
class Staff:
    """The active drains of one kind: `lead_seconds` before one leaves, its successor is started; `residents`: there are
    to be some.
    """

    active: Sequence[ActiveDrain]
    lead_seconds: float = UNKNOWN_START_SECONDS
    residents: bool = False

    @property
    def leaving(self) -> int:
        """How many leave soon and need a successor: residents that are no longer wanted do not."""
        mine = (drain for drain in self.active if self.residents or not drain.resident)
        return sum(drain.leaves(self.lead_seconds) for drain in mine)

    @property
    def blind(self) -> bool:
        """Whether there are drains, and all of them are blind residents."""
        return bool(self.active) and all(drain.blind for drain in self.active)

    def missing(self, wanted: int, what: str) -> Decision:
        """The decision when `wanted` drains have work to do, because of `what`. A blind one counts as any other; while
        all are blind, one more is tried: if it can work, they give way to it.
        """
        drains = f"{len(self.active)} drain{'s' * (len(self.active) != 1)} active"
        if self.blind:
            outside = any(drain.outside for drain in self.active)
            tried = sum(not drain.outside for drain in self.active) - (0 if outside else _RESIDENTS)
            start = int(tried <= 0)
            return Decision(start, f"{what}; {drains}, and all are blind", residents=start, tries=True)
        # A silent one is looked at again soon, until it moves or counts as dead.
        lively = not any(drain.silent for drain in self.active)
        if any(drain.outside and drain.resident for drain in self.active):
            said = "work" if lively else f"are silent, and count as dead after {SILENT_SECONDS:.0f} s"
            return Decision(0, f"{what}; {drains}: residents outside of Dagster {said}", late=lively)
        staying = [drain for drain in self.active if not drain.leaves(self.lead_seconds)]
        kept = sum(drain.resident for drain in staying)
        residents = max(0, _RESIDENTS - kept) if self.residents else 0
        # The newest resident only stands by.
        workers = len(staying) - kept + max(min(kept + residents, 1), kept + residents - 1)
        if self.leaving:
            drains += f", {self.leaving} about to leave"
        start = residents + max(0, wanted - workers)
        return Decision(start, f"{what}; {drains}", residents, late=lively and kept >= _RESIDENTS)


def by_depth(waiting: int, in_flight: int, staff: Staff, *, per_drain: int, max_drains: int) -> Decision:
    """For a queue: none while it is empty, one for a trickle, one more for every `per_drain` messages.

    Messages that are in flight start no drain: a drain works on them, or they wait for a retry and become visible when
    they are due.
    """
    wanted = 0
    if waiting:
        wanted = min(max_drains, math.ceil((waiting + in_flight) / per_drain))
    elif staff.leaving:
        # Work arrives, and one moment without a message says little.
        wanted = 1
    return staff.missing(wanted, f"{waiting} messages wait, {in_flight} are in flight")


def by_age(
    oldest_seconds: float | None, staff: Staff, *, objective_seconds: float, max_drains: int
) -> Decision:
    """For the stream: one drain, and one more for every lag objective it is behind; drains that are about to end are
    replaced one by one. `oldest_seconds` is the age of the oldest unread record, None when nothing is unread or an
    active drain makes the question needless.
    """
    if staff.active:
        ordinary = sum(not drain.resident for drain in staff.active)
        wanted = min(max_drains, ordinary) if staff.leaving else 0
        return staff.missing(wanted, "the stream is being read")
    if oldest_seconds is None:
        return staff.missing(0, "nothing is unread")
    wanted = min(max_drains, 1 + int(max(0.0, oldest_seconds) / objective_seconds))
    return staff.missing(wanted, f"unread records, the oldest {oldest_seconds:.0f} s old")


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


# Eight beats of the slower kind are missing: it no longer counts as active.
SILENT_SECONDS = 40.0
# Long enough for a drain that lost DynamoDB to get through its breaker and retries, and to beat again.
DEAD_SECONDS = 120.0
# From the start of the run to its first beat: wiring, also on a busy machine.
FIRST_BEAT_SECONDS = 60.0
# Beyond its time limit a drain finishes what is in flight; it takes no new work, so it is not counted.
FINISHING_SECONDS = 60.0
# A drain that has not ended this long after its time limit hangs.
HUNG_SECONDS = 600.0
# How much one tick adds to the time that a counter has not moved: more than lies between two ticks, and so little that
# a drain does not count as silent after one look.
MAX_SECONDS_PER_TICK = 35.0


@dataclass(frozen=True, slots=True)
class DrainRun:
    """A run of Dagster."""

    run_id: str
    # A run that is being cancelled counts as ended.
    ended: bool
    # None before its start.
    seconds_running: float | None
    idle_seconds: float
    # It ends after these at the latest.
    max_seconds: float
    # It stays until another one works.
    resident: bool = False
    # They count from its request.
    seconds_known: float = 0.0


@dataclass(frozen=True, slots=True)
class Dead:
    """A run, or a drain that was started without Dagster, that has died or hangs. `beat` is its row, if it has one."""

    run_id: str
    why: str
    beat: Beat | None = None


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
        elif overrun > HUNG_SECONDS and run is not None and beat.role in ("", BLIND):
            why = f"its process ({beat.process}) hangs: it should have ended {overrun:.0f} s ago"
            life.dead.append(Dead(beat.run_id, why))
        elif still < SILENT_SECONDS and (overrun <= FINISHING_SECONDS or beat.role):
            life.active.append(
                ActiveDrain(
                    beat.running_seconds,
                    beat.idle_seconds,
                    beat.max_seconds,
                    resident=bool(beat.role),
                    outside=run is None,
                    silent=still > 0,
                    blind=beat.role == BLIND,
                )
            )
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
    return ActiveDrain(run.seconds_running, run.idle_seconds, run.max_seconds, run.resident)


def _overrun(run: DrainRun) -> float:
    return (run.seconds_running or 0.0) - run.max_seconds


@dataclass(frozen=True, slots=True)
class Memory:
    """What a sensor remembers of a drain: its heartbeats, and for the latest runs the seconds from the request until
    the process had wired itself.
    """

    watched: Watched = field(default_factory=Watched)
    starts: Mapping[str, float] = field(default_factory=dict)

    def seen(self, runs: Iterable[DrainRun], beats: Iterable[Beat], now: float) -> Self:
        """The memory after reading the rows at `now` (epoch seconds)."""
        rows = {beat.run_id: beat for beat in beats}
        starts = dict(self.starts)
        for run in runs:
            beat = rows.get(run.run_id)
            if beat is not None and run.run_id not in starts:
                starts[run.run_id] = round(max(0.0, run.seconds_known - beat.running_seconds), 1)
        latest = dict(list(starts.items())[-_STARTS_REMEMBERED:])
        watched = self.watched.seen(rows.values(), now, longest_seconds=MAX_SECONDS_PER_TICK)
        return type(self)(watched, latest)

    @property
    def lead_seconds(self) -> float:
        """How long before a drain leaves its successor is to be started: the 95th percentile of the latest starts, and
        the time to the next tick.
        """
        taken = sorted(self.starts.values())
        usual = taken[math.ceil(0.95 * len(taken)) - 1] if taken else UNKNOWN_START_SECONDS
        return usual + NEXT_TICK_SECONDS


def parse_memory(cursor: str | None) -> dict[str, Memory]:
    """What a sensor remembers, by drain. A damaged or lost cursor costs `DEAD_SECONDS` once."""
    try:
        document: Any = orjson.loads(cursor or "{}")
        return {
            str(drain): Memory(
                Watched(
                    float(found["at"]),
                    {
                        str(run): (int(counter), float(still))
                        for run, (counter, still) in found["still"].items()
                    },
                ),
                {str(run): float(seconds) for run, seconds in found["starts"].items()},
            )
            for drain, found in document.items()
        }
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def cursor_of(memory: Mapping[str, Memory]) -> str:
    """The cursor. That of an idle sensor does not change."""
    return orjson.dumps(
        {
            drain: {
                "at": each.watched.at if each.watched.still else 0.0,
                "still": each.watched.still,
                "starts": each.starts,
            }
            for drain, each in memory.items()
            if each.watched.still or each.starts
        }
    ).decode()
