"""Residents: drains that stay while a campaign is open, so that no entry waits for a start.

Of the living residents of one kind, the newest stands by and the others work; a single one works. A resident whose time
is over leaves once a newer one has begun to work, so a successor is warm before it is needed. All decide by the same
rows (`drains.heartbeat`), and nothing goes wrong if two of them read different ones: leases and the visibility of
messages divide the work, also between two that work when one would do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.timestamps import seconds
from regworkers_core.drains.heartbeat import RESIDENT_BEAT_SECONDS, Beat, Watched
from regworkers_core.engine import scheduling
from regworkers_core.engine.deadline import Background
from regworkers_core.engine.drain import Post
from regworkers_core.runtime import Runtime

log = structlog.get_logger(__name__)
# Residents are ready before the first fan, and stay for those who come late and for what is still on its way.
BEFORE_OPENING_SECONDS = 600.0
AFTER_CLOSING_SECONDS = 3600.0
# How often a resident asks whether a campaign is open, and how long after its last beat it counts as alive for others.
_ASK_SECONDS = 60.0
_SILENT_SECONDS = 3.5
STARTING, STANDBY, WORKING, LEAVING = "starting", "standby", "working", "leaving"


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


class Residency(Post):
    """The post of one resident. `look` runs after every beat, in the thread of the heartbeat; the drain's own thread
    asks the rest. `started_at` is the ISO time of its row, `read` returns the rows of its kind and raises
    TransientFailure, `wanted` is `residents_wanted`, `stopping` says whether a signal ends it.
    """

    def __init__(
        self,
        run_id: str,
        read: Callable[[], Sequence[Beat]],
        wanted: Callable[[], bool],
        *,
        started_at: str,
        max_seconds: float,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._me, self._read, self._wanted, self._clock = (started_at, run_id), read, wanted, clock
        self._over_at, self._stopping = clock() + max_seconds, stopping
        self._asking, self._ask_at = Background("residents-wanted"), clock()
        # Unknown counts as wanted: a resident that leaves for an outage of MongoDB costs a cold start.
        self._is_wanted = True
        self._watched = Watched(clock())
        self._ready = self._works = self._newer_ready = self._newer_works = False

    @property
    def role(self) -> str:
        if not self._ready:
            return STARTING
        if not self._works:
            return STANDBY
        over = self._newer_ready and self._clock() >= self._over_at
        return LEAVING if over or self._stopping() else WORKING

    def look(self) -> None:
        """Find the place among the others. Raises TransientFailure; then the last one holds."""
        now = self._clock()
        if now >= self._ask_at:
            self._ask_at = now + _ASK_SECONDS
            self._asking.start(self._ask)
        residents = [beat for beat in self._read() if beat.role]
        self._watched = self._watched.seen(residents, now, longest_seconds=2 * RESIDENT_BEAT_SECONDS)
        living = [beat for beat in residents if self._watched.seconds_still(beat) < _SILENT_SECONDS]
        newer = [beat for beat in living if (beat.started_at, beat.run_id) > self._me]
        older = [beat for beat in living if (beat.started_at, beat.run_id) < self._me]
        self._newer_ready = any(beat.role != STARTING for beat in newer)
        self._newer_works = any(beat.role == WORKING for beat in newer)
        if not self._works and (self._newer_ready or all(beat.role == LEAVING for beat in older)):
            log.info("the resident begins to work", older=len(older), newer=len(newer))
            self._works = True

    def works(self) -> bool:
        self._ready = True
        return self._works

    def may_end(self, why: str) -> bool:
        """Once residents are no longer wanted; at its time limit also once a newer one works."""
        return not self._is_wanted or (why == "time_limit" and self._newer_works)

    def _ask(self) -> None:
        try:
            self._is_wanted = self._wanted()
        except (Failure, UsageError) as error:
            log.warning("not known whether a campaign is open: the drain stays", error=str(error))
