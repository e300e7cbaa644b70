"""MongoDB, which keeps the incidents, is away: who is notified without it, and what is written down afterwards.

Two memories do without MongoDB: a row in `worker-leases`, which all who look share, and what the caller carries from
look to look (the sensor's cursor). Where neither is at hand, channels are told at every look: better twice than never.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import structlog

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.alert import Alert, Change
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import Snapshot
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.leases import LeaseKey, LeaseRow, LeaseTable
from regworkers_core.operations.alerts.conditions.condition import Finding
from regworkers_core.operations.alerts.notifier import alerting
from regworkers_core.operations.alerts.table import MONGO_DOWN
from regworkers_core.runtime import Runtime

log = structlog.get_logger(__name__)
ROW = LeaseKey("OUTAGE#alerts", "OUTAGE")
# Longer than notifying takes. A process that dies meanwhile keeps others from it for this long.
_CLAIM_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Outage:
    """`since` is the first look that found MongoDB away, `last` the latest, `claimed_until` until when a process is
    notifying (all in seconds since the epoch); `told` are the channels that have taken it.
    """

    since: float
    last: float
    told: frozenset[str] = frozenset()
    claimed_until: float = 0.0

    def as_state(self) -> dict[str, str]:
        claimed = {"claimedUntil": iso(self.claimed_until)} if self.claimed_until else {}
        told = " ".join(sorted(self.told))
        return {"since": iso(self.since), "last": iso(self.last), "told": told, **claimed}

    @classmethod
    def parse(cls, state: Mapping[str, object]) -> Outage | None:
        """None for what is none: a memory is a hint."""
        texts = {name: text for name, text in state.items() if isinstance(text, str)}
        since, last = seconds(texts.get("since", "")), seconds(texts.get("last", ""))
        if since is None or last is None:
            return None
        claimed = seconds(texts.get("claimedUntil", "")) or 0.0
        return cls(since, last, frozenset(texts.get("told", "").split()), claimed)

    def with_what(self, other: Outage | None) -> Outage:
        """Of two memories of one outage."""
        if other is None:
            return self
        return Outage(
            min(self.since, other.since),
            max(self.last, other.last),
            self.told | other.told,
            max(self.claimed_until, other.claimed_until),
        )

    def is_blink(self, runtime: Runtime) -> bool:
        """No two looks that are far enough apart have found it."""
        return self.last - self.since < runtime.settings.alerts.patience_seconds

    def is_claimed(self, now: float) -> bool:
        # One that ends too late is of a clock that was set back since.
        return now < self.claimed_until <= now + _CLAIM_SECONDS


class _Row:
    """The memory in `worker-leases`, as far as it can be read and written."""

    def __init__(self, runtime: Runtime) -> None:
        self._leases: LeaseTable | None = None
        self._seen: LeaseRow | None = None
        self.outage: Outage | None = None
        try:
            self._leases = runtime.leases
            self._seen = self._leases.get(ROW)
        except (TransientFailure, UsageError) as failure:
            log.warning("outage not remembered", error=str(failure))
            return
        self.outage = None if self._seen is None else Outage.parse(self._seen.state)

    def keep(self, outage: Outage) -> bool:
        """False when another process kept something since it was read. True where nothing can be kept."""
        if self._leases is None:
            return True
        counter = 0 if self._seen is None else self._seen.counter + 1
        row = LeaseRow(ROW, counter=counter, state=outage.as_state())
        try:
            kept = self._leases.swap(row, self._seen)
        except (TransientFailure, UsageError) as failure:
            log.warning("outage not remembered", error=str(failure))
            return True
        self._seen = row
        return kept

    def forget(self) -> None:
        try:
            if self._leases is not None and self._seen is not None:
                self._leases.remove(self._seen)
        except (TransientFailure, UsageError) as failure:
            # It is written down once, however often it is found.
            log.warning("outage not forgotten", error=str(failure))


def notify_directly(runtime: Runtime, snapshot: Snapshot, why: str, carried: Outage | None) -> Outage:
    """One look while MongoDB is away: every channel that has not heard of it yet is notified, once it is no blink."""
    row, now = _Row(runtime), runtime.clock()
    known = (row.outage or Outage(now, now)).with_what(carried)
    known = replace(known, last=max(known.last, now))
    if known.is_claimed(now):
        return known
    if known.is_blink(runtime):
        row.keep(known)
        return known
    if not row.keep(replace(known, claimed_until=now + _CLAIM_SECONDS)):
        return known
    incident = Incident(_alert(runtime, snapshot, why), True, 0, iso(known.since), iso(now), None, {})
    told = alerting(runtime).tell_directly(incident, Change.OPENED, besides=known.told)
    known = replace(known, told=known.told | told, claimed_until=0.0)
    row.keep(known)
    return known


def record_outage(runtime: Runtime, snapshot: Snapshot, carried: Outage | None) -> None:
    """MongoDB answers again: an outage that was no blink is kept as an open incident since its first look, which the
    next settlement closes. Raises TransientFailure when MongoDB is away again.
    """
    row = _Row(runtime)
    known = row.outage or carried
    if known is None:
        return
    known = known.with_what(carried)
    if not known.is_blink(runtime):
        alert = _alert(runtime, snapshot, "it answers again")
        runtime.incidents.adopt(alert, iso(known.since), known.told)
    row.forget()


def last_look(
    runtime: Runtime, noted: float | None, now: float, carried: Outage | None = None
) -> float | None:
    """When the sensor looked last (seconds since the epoch), of which `noted` is what MongoDB has. Where that is long
    ago, the end of an outage counts instead: no look could be noted meanwhile. Raises TransientFailure.
    """
    if noted is None or now - noted <= runtime.settings.alerts.silent_seconds:
        return noted
    known, told = _Row(runtime).outage or carried, runtime.incidents.find(MONGO_DOWN.key_of("mongo"))
    over = seconds(told.resolved_at) if told is not None and told.resolved_at else None
    return max(noted, min(now, max(known.last if known else noted, over or noted)))


def _alert(runtime: Runtime, snapshot: Snapshot, why: str) -> Alert:
    others = sorted(
        name for name, trouble in snapshot.dependencies.items() if trouble is not None and name != "mongo"
    )
    return MONGO_DOWN.alert(
        Finding(
            "mongo",
            runtime.settings.alerts.severity.mongo_away,
            "MongoDB does not answer: nothing is replicated, and no other alert can be kept or told",
            {"why": snapshot.dependencies.get("mongo") or why, "alsoAway": others},
        )
    )
