"""MongoDB, which stores the incidents, is unavailable: notify without it, and record the outage afterwards.

Two memories work without MongoDB: a row in `worker-leases`, which all evaluators share, and what the caller carries
from one evaluation to the next (the sensor's cursor). Without either, channels are notified at every evaluation: twice
is better than never.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import structlog

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import Alert, IncidentChange, Snapshot
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.leases import LeaseKey, LeaseRow, LeaseTable
from regworkers_core.operations.alerts.conditions.availability import mongo_down
from regworkers_core.operations.alerts.conditions.condition import Finding
from regworkers_core.operations.alerts.notifier import notifier_of
from regworkers_core.runtime import Runtime

log = structlog.get_logger(__name__)
ROW = LeaseKey("OUTAGE#alerts", "OUTAGE")
# Longer than a notification takes. A process that dies meanwhile delays the others by this time.
_CLAIM_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage of MongoDB. All times are epoch seconds."""

    # The first evaluation that found it.
    since: float
    # The latest evaluation that found it.
    last: float
    # The channels that accepted it.
    notified: frozenset[str] = frozenset()
    # While a process is notifying; 0: none is.
    claimed_until: float = 0.0

    def as_state(self) -> dict[str, str]:
        claimed = {"claimedUntil": iso(self.claimed_until)} if self.claimed_until else {}
        channels = " ".join(sorted(self.notified))
        return {"since": iso(self.since), "last": iso(self.last), "notified": channels, **claimed}

    @classmethod
    def parse(cls, state: Mapping[str, object]) -> Outage | None:
        """None for an invalid state: a memory is only a hint."""
        texts = {name: text for name, text in state.items() if isinstance(text, str)}
        since, last = seconds(texts.get("since", "")), seconds(texts.get("last", ""))
        if since is None or last is None:
            return None
        claimed = seconds(texts.get("claimedUntil", "")) or 0.0
        return cls(since, last, frozenset(texts.get("notified", "").split()), claimed)

    def merged(self, other: Outage | None) -> Outage:
        """Two memories of the same outage as one."""
        if other is None:
            return self
        return Outage(
            min(self.since, other.since),
            max(self.last, other.last),
            self.notified | other.notified,
            max(self.claimed_until, other.claimed_until),
        )

    def is_blip(self, runtime: Runtime) -> bool:
        """Whether no two evaluations that are `patience_seconds` apart have found it."""
        return self.last - self.since < runtime.settings.alerts.patience_seconds

    def is_claimed(self, now: float) -> bool:
        # A claim that ends too late was made by a clock that was set back since.
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
            log.warning("outage not stored", error=str(failure))
            return
        self.outage = None if self._seen is None else Outage.parse(self._seen.state)

    def store(self, outage: Outage) -> bool:
        """False if another process wrote the row since it was read. True if DynamoDB does not answer."""
        if self._leases is None:
            return True
        counter = 0 if self._seen is None else self._seen.counter + 1
        row = LeaseRow(ROW, counter=counter, state=outage.as_state())
        try:
            stored = self._leases.swap(row, self._seen)
        except (TransientFailure, UsageError) as failure:
            log.warning("outage not stored", error=str(failure))
            return True
        self._seen = row
        return stored

    def remove(self) -> None:
        try:
            if self._leases is not None and self._seen is not None:
                self._leases.remove(self._seen)
        except (TransientFailure, UsageError) as failure:
            # It is recorded once, however often it is found.
            log.warning("outage not removed", error=str(failure))


def notify_without_mongo(runtime: Runtime, snapshot: Snapshot, why: str, carried: Outage | None) -> Outage:
    """One evaluation without MongoDB: notify every channel that does not know of the outage yet, once it is no blip."""
    row, now = _Row(runtime), runtime.clock()
    known = (row.outage or Outage(now, now)).merged(carried)
    known = replace(known, last=max(known.last, now))
    if known.is_claimed(now):
        return known
    if known.is_blip(runtime):
        row.store(known)
        return known
    if not row.store(replace(known, claimed_until=now + _CLAIM_SECONDS)):
        return known
    incident = Incident(_alert(runtime, snapshot, why), True, 0, iso(known.since), iso(now), None, {})
    accepted = notifier_of(runtime).notify_unrecorded(incident, IncidentChange.OPENED, besides=known.notified)
    known = replace(known, notified=known.notified | accepted, claimed_until=0.0)
    row.store(known)
    return known


def record_outage(runtime: Runtime, snapshot: Snapshot, carried: Outage | None) -> None:
    """Record an outage that is over, unless it was a blip: as an open incident since its first evaluation, which the
    next settlement closes. Raises TransientFailure when MongoDB is unavailable again.
    """
    row = _Row(runtime)
    known = row.outage or carried
    if known is None:
        return
    known = known.merged(carried)
    if not known.is_blip(runtime):
        alert = _alert(runtime, snapshot, "it answers again")
        runtime.incidents.adopt(alert, iso(known.since), known.notified)
    row.remove()


def last_evaluation(
    runtime: Runtime, recorded: float | None, now: float, carried: Outage | None = None
) -> float | None:
    """When the sensor last evaluated (epoch seconds). `recorded` is what MongoDB has; if that is long ago, the end of
    an outage counts instead, because nothing could be recorded during it. Raises TransientFailure.
    """
    if recorded is None or now - recorded <= runtime.settings.alerts.silent_seconds:
        return recorded
    known, incident = _Row(runtime).outage or carried, runtime.incidents.find(mongo_down.key_of("mongo"))
    over = seconds(incident.resolved_at) if incident is not None and incident.resolved_at else None
    return max(recorded, min(now, max(known.last if known else recorded, over or recorded)))


def _alert(runtime: Runtime, snapshot: Snapshot, why: str) -> Alert:
    others = sorted(
        name for name, trouble in snapshot.dependencies.items() if trouble is not None and name != "mongo"
    )
    return mongo_down.alert(
        Finding(
            "mongo",
            runtime.settings.alerts.severity.mongo_away,
            "MongoDB does not answer: nothing is replicated, and no other alert can be stored or sent",
            {"why": snapshot.dependencies.get("mongo") or why, "alsoAway": others},
        )
    )
