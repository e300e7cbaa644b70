"""Residents: drains that stay while a campaign is open, so that no entry waits for a start.

Of the living residents of one kind, the newest stands by and the others work; a single one works. A resident whose time
is over leaves once a newer one has begun to work, so a successor is warm before it is needed. One that cannot work, as
its `Sight` tells, says that it is blind. Who has just reached everything works in its place, and only then does it let
go of what it holds: while all are blind, each keeps that, as a single one does. It comes back as the newest.

All decide by the same rows (`drains.heartbeat`), and nothing goes wrong if two of them read different ones: leases and
the visibility of messages divide the work, also between two that work when one would do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import structlog

from fairdraw import scheduling
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.timestamps import seconds
from regworkers_core.drains.heartbeat import RESIDENT_BEAT_SECONDS, Beat, Watched, beats, next_number
from regworkers_core.engine.deadline import Background, Steps
from regworkers_core.engine.dependency import Dependency, apart
from regworkers_core.engine.drain import Post
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

log = structlog.get_logger(__name__)
# Without an answer for so long it is blind, and with nothing but answers for so long it sees again.
BLIND_SECONDS = 5.0


def longest_call(settings: Settings) -> float:
    """Seconds after which every call of a drain has ended, by its time-outs."""
    aws, mongo, kafka = settings.aws, settings.mongo, settings.kafka
    receive = max(settings.save.receive_wait_seconds, settings.analytics.receive_wait_seconds)
    return max(
        aws.connect_timeout_seconds + aws.read_timeout_seconds + receive,
        mongo.server_selection_timeout_seconds + mongo.connect_timeout_seconds + mongo.socket_timeout_seconds,
        kafka.timeout_seconds + kafka.delivery_seconds,
    )


class Sight:
    """The sight of one resident. `needs` are the guards of its dependencies, each with the call that probes it;
    `longest_call_seconds` is the longest time after which a call of theirs ends; `steps` are those of its drain. All
    methods belong to one thread.
    """

    def __init__(
        self,
        needs: Mapping[str, tuple[Dependency, Callable[[], object]]],
        longest_call_seconds: float,
        *,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._needs, self._clock = needs, clock
        self._hangs_after = longest_call_seconds + BLIND_SECONDS
        self._probing = Background("sight")
        self._blind_because = ""

    def look(self, steps: Steps) -> str:
        """Probe what is due, and return why it is blind: empty if it is not. Does not block."""
        for name, (guard, _) in self._needs.items():
            if guard.failing or not self._held(guard) or guard.seconds_since_call >= BLIND_SECONDS:
                self._probe(name)
        because = self._reason(steps)
        if because != self._blind_because:
            self._blind_because = because
            log.warning(f"blind: {because}" if because else "no longer blind")
        return because

    def confirmed(self, within_seconds: float) -> bool:
        """Probe all dependencies now. Whether each has answered within the seconds, for which it blocks at most."""
        asked_at = self._clock()
        for name in self._needs:
            self._probe(name)
        self._probing.wait(within_seconds)
        return all(not guard.failing and guard.answered_at >= asked_at for guard, _ in self._needs.values())

    @property
    def steady(self) -> bool:
        """Whether no call failed for so long that it may come back."""
        return all(not guard.failing and self._held(guard) for guard, _ in self._needs.values())

    def hangs(self, steps: Steps) -> bool:
        return steps.still_seconds() >= self._hangs_after

    def _reason(self, steps: Steps) -> str:
        for name, (guard, _) in self._needs.items():
            if guard.failing and self._clock() - guard.answered_at >= BLIND_SECONDS:
                return f"{name} does not answer"
        return f"no step ended for {self._hangs_after:.0f} s" if self.hangs(steps) else ""

    def _held(self, guard: Dependency) -> bool:
        return self._clock() - guard.failed_at >= BLIND_SECONDS

    def _probe(self, name: str) -> None:
        self._probing.start(partial(_quietly, self._needs[name][1]), name)


def _quietly(call: Callable[[], object]) -> None:
    """The guard has noted how it ended."""
    try:
        with apart():
            call()
    except (Failure, UsageError):
        pass


# Residents are ready before the first fan, and stay for those who come late and for what is still on its way.
BEFORE_OPENING_SECONDS = 600.0
AFTER_CLOSING_SECONDS = 3600.0
# How often a resident asks whether a campaign is open, and how long after its last beat it counts as alive for others.
_ASK_SECONDS = 60.0
_SILENT_SECONDS = 3.5
# How long a standby waits for the answers of all dependencies before it takes over from a blind one.
_CONFIRM_SECONDS = 0.5
# One works and one stands by: a further one that never got ready is not needed.
_ENOUGH = 2
STARTING, STANDBY, WORKING, LEAVING, BLIND = "starting", "standby", "working", "leaving", "blind"


def residents_wanted(runtime: Runtime) -> bool:
    """Whether drains are to be resident now, by `drain.resident` and the campaigns. Raises TransientFailure."""
    resident = runtime.settings.drain.resident
    if resident != "open":
        return resident == "always"
    return any_open(runtime.campaigns.list(), runtime.clock())


def any_open(campaigns: Iterable[Campaign], now: float) -> bool:
    """Whether a campaign takes entries at `now` (epoch seconds), will do so in ten minutes, or did within the last
    hour. A draft counts, too: it may be opened late.
    """
    for campaign in campaigns:
        opens, closes = seconds(campaign.opens_at), seconds(campaign.takes_entries_until)
        if opens is None or closes is None:
            continue
        if opens - BEFORE_OPENING_SECONDS <= now <= closes + AFTER_CLOSING_SECONDS:
            return True
    return False


class _Residents(NamedTuple):
    older: list[Beat]
    newer: list[Beat]


class Residency(Post):
    """The post of one resident. `look` and `state` belong to the thread of its heartbeat; the drain's own threads ask
    the rest. `read` returns the rows of its kind and `take_number` the number of the newest; both raise
    TransientFailure. `sight` says whether it could work, `wanted` is `residents_wanted`, `stopping` says whether a
    signal ends it. While `held` it waits for the end of a pause.
    """

    held = False

    def __init__(
        self,
        run_id: str,
        read: Callable[[], Sequence[Beat]],
        take_number: Callable[[], int],
        wanted: Callable[[], bool],
        sight: Sight,
        *,
        max_seconds: float,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        super().__init__()
        self._run_id, self._read, self._take_number = run_id, read, take_number
        self._wanted, self._sight, self._clock = wanted, sight, clock
        self._over_at, self._stopping = clock() + max_seconds, stopping
        self._asking, self._ask_at = Background("residents-wanted"), clock()
        # Unknown counts as wanted: a resident that leaves for an outage of MongoDB costs a cold start.
        self._is_wanted = True
        self._watched = Watched(clock())
        self._number: int | None = None
        self._begun_at: float | None = None
        self._ready = self._works = self._begun_to_work = False
        self._newer_ready = self._newer_works = self._others = False
        self._blind = ""
        # It was blind and another one works in its place: it comes back as the newest.
        self._gave_way = False
        self._both_work_since: float | None = None

    @property
    def role(self) -> str:
        if self._works and (self._stopping() or (self._newer_ready and self._clock() >= self._over_at)):
            return LEAVING
        if self._blind or self._gave_way:
            return BLIND
        if not self._ready:
            return STARTING
        return WORKING if self._works else STANDBY

    def state(self) -> dict[str, str]:
        """What its row says of it. Takes its number first, so that it is there from the first beat on."""
        self._look_at_itself()
        if self._number is None:
            self._number = self._take_number()
        return {"role": self.role, "number": str(self._number)}

    @property
    def hangs(self) -> bool:
        return self._ready and self._sight.hangs(self.steps)

    def _look_at_itself(self) -> None:
        if self.held:
            return
        now = self._clock()
        if self._begun_at is None:
            self._begun_at = now
        self._blind = self._sight.look(self.steps)
        if not self._ready and not self._blind and now - self._begun_at >= BLIND_SECONDS:
            self._blind = "it never got ready"
        if self._gave_way and not self._blind and self._ready and self._sight.steady:
            self._gave_way, self._number = False, None

    def look(self) -> None:
        """Find the place among the others. Raises TransientFailure; then the last one holds."""
        now = self._clock()
        if now >= self._ask_at:
            self._ask_at = now + _ASK_SECONDS
            self._asking.start(self._ask)
        older, newer = self._residents()
        self._newer_ready = any(beat.role not in (STARTING, BLIND) for beat in newer)
        self._newer_works = any(beat.role == WORKING for beat in newer)
        self._others = len(older) + len(newer) >= _ENOUGH
        others_work = any(beat.role == WORKING for beat in (*older, *newer))
        if self._blind or self._gave_way:
            if others_work or (not self._works and (older or newer)):
                # What it cannot do, another one does. A standby waits as well until its sight is steady.
                self._gave_way, self._works = True, False
        elif not self._works:
            self._works = self._newer_ready or self._succeeds(older)
        elif self._is_stand_in(older):
            log.info("the resident is the standby again: an older one works")
            self._works = False

    def _residents(self) -> _Residents:
        """The others that live."""
        residents = [beat for beat in self._read() if beat.role and beat.run_id != self._run_id]
        longest = 2 * RESIDENT_BEAT_SECONDS
        self._watched = self._watched.seen(residents, self._clock(), longest_seconds=longest)
        living = [beat for beat in residents if self._watched.seconds_still(beat) < _SILENT_SECONDS]
        me = (self._number or 0, self._run_id)
        older = [beat for beat in living if (beat.number, beat.run_id) < me]
        return _Residents(older, [beat for beat in living if (beat.number, beat.run_id) > me])

    def _succeeds(self, older: Sequence[Beat]) -> bool:
        """Whether none of the older ones works any more. A blind one works as well as any other if its dependency
        is unavailable for all: only who has just reached everything takes over from it.
        """
        if any(beat.role not in (LEAVING, BLIND) for beat in older):
            return False
        if all(beat.role == LEAVING for beat in older):
            return True
        if not (self._ready and self._sight.confirmed(_CONFIRM_SECONDS)):
            return False
        older, _ = self._residents()
        return all(beat.role in (LEAVING, BLIND) for beat in older)

    def _is_stand_in(self, older: Sequence[Beat]) -> bool:
        """Whether an older one that was silent works again, and for long enough: the newest one is the standby."""
        now = self._clock()
        if self._newer_ready or not any(beat.role == WORKING for beat in older):
            self._both_work_since = None
            return False
        if self._both_work_since is None:
            self._both_work_since = now
        return now - self._both_work_since >= BLIND_SECONDS

    def works(self) -> bool:
        self._ready = True
        if self._works and not self._begun_to_work:
            log.info("the resident begins to work")
        self._begun_to_work = self._works
        return self._works

    def gives_way(self, *, busy: bool) -> bool:
        return not self._works and (bool(self._blind) or not busy)

    def may_end(self, why: str) -> bool:
        """Once residents are no longer wanted; at its time limit also once a newer one works; and where enough others
        are there, one that could never work: it was a try.
        """
        if not self._is_wanted or (why == "time_limit" and self._newer_works):
            return True
        return why == "dependency_down" and self._others and not self._ready

    def _ask(self) -> None:
        try:
            self._is_wanted = self._wanted()
        except (Failure, UsageError) as error:
            log.warning("not known whether a campaign is open: the drain stays", error=str(error))


def residency_of(
    runtime: Runtime, drain: str, needs: Sequence[str], run_id: str, max_seconds: float, stop: StopSignal
) -> Residency:
    """The life of a resident of the drain, which cannot work without `needs`, for at most so long."""
    probed = {name: (runtime.dependency(name), partial(runtime.probe, name)) for name in needs}
    return Residency(
        run_id,
        lambda: beats(runtime.heartbeats, drain),
        lambda: next_number(runtime.heartbeats, drain),
        partial(residents_wanted, runtime),
        Sight(probed, longest_call(runtime.settings)),
        max_seconds=max_seconds,
        stopping=lambda: stop.is_set,
    )
