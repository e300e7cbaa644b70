"""Incidents and mutes (collection `alerts`), and what one evaluation has to know of earlier ones (`alert_looks`)."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fairdraw.documents import as_document
from regworkers_core.adapters.mongo.store import Documents, Store
from regworkers_core.domain.snapshot import Alert, IncidentChange, Severity
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.dependency import Dependency

# The last change that a channel took, while it is still owed the resolution.
_OWED = (IncidentChange.OPENED, IncidentChange.ACKNOWLEDGED)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Who took an incident on, when (ISO time), and why."""

    by: str
    at: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """A condition that held. It stays the same when the condition holds again before every channel was notified of the
    resolution.
    """

    alert: Alert
    open: bool  # whether the condition holds
    serial: int  # how often the condition held: with the key it identifies one incident
    opened_at: str
    last_seen_at: str  # an ISO time
    resolved_at: str | None
    notified: Mapping[str, IncidentChange]  # the last change that each channel took
    acknowledged: Acknowledgement | None = None  # by an operator, None: not yet
    # Until when a process is busy notifying each channel (ISO time).
    claims: Mapping[str, str] = field(default_factory=dict)

    @property
    def dedup_key(self) -> str:
        """What a channel knows this incident by."""
        return f"{self.alert.key}#{self.serial}"

    def due_change(self, channel: str, severities: Container[Severity]) -> IncidentChange | None:
        """The change that the channel, which receives these severities, must be notified of. To it an incident that is
        no longer that severe is resolved. One that never took the incident gets no resolution.
        """
        last = self.notified.get(channel)
        if not self.open or self.alert.severity not in severities:
            return IncidentChange.RESOLVED if last in _OWED else None
        if last not in _OWED:
            return IncidentChange.OPENED
        return IncidentChange.ACKNOWLEDGED if self.acknowledged and last is IncidentChange.OPENED else None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Incident:
        alert = Alert(
            document["_id"],
            Severity(document["severity"]),
            document["summary"],
            document["runbook"],
            dict(document.get("details") or {}),
        )
        notified = document.get("notified") or {}
        return cls(
            alert,
            document["status"] == "open",
            int(document["serial"]),
            document["openedAt"],
            document["lastSeenAt"],
            document.get("resolvedAt"),
            {channel: IncidentChange(change) for channel, change in notified.items()},
            _acknowledgement(document.get("acknowledged")),
            dict(document.get("claims") or {}),
        )


class Incidents(Store):
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def of(self, *scopes: str) -> list[Incident]:
        """All incidents of these scopes, closed ones included."""
        return self._incidents({"scope": {"$in": list(scopes)}})

    def find(self, key: str) -> Incident | None:
        """Open or closed; None when there never was one with this key."""
        return next(iter(self._incidents({"_id": key, "serial": {"$exists": True}})), None)

    def all(self) -> list[Incident]:
        """Open and closed. A mute, in the same collection, has no serial."""
        return self._incidents({"serial": {"$exists": True}})

    def all_open(self) -> list[Incident]:
        return self._incidents({"status": "open"})

    def open(self, alert: Alert, at: str, channels: Sequence[str]) -> None:
        """The alert's condition holds at this time: open its incident, or keep it open.

        While one of `channels` was not notified of the last resolution, that incident is opened again: with a new
        serial the channel would show the old one for ever.
        """
        from pymongo.errors import DuplicateKeyError

        facts = {**_shown(alert), "lastSeenAt": at}
        seen = self._update({"_id": alert.key, "status": "open"}, {"$set": facts})
        reopened = {**facts, "status": "open", "openedAt": at, "resolvedAt": None, "acknowledged": None}
        new: dict[str, Any] = {**reopened, "notified": {}, "claims": {}}
        over = {"_id": alert.key, "status": "resolved"}
        # One by one: the embedded server takes an `$or` in an update for all documents that one side of it fits.
        not_resolved = {"$in": [change.value for change in _OWED]}
        owed = ({**over, f"notified.{channel}": not_resolved} for channel in channels)
        if (
            seen
            or any(self._update(guard, {"$set": reopened}) for guard in owed)
            or self._update(over, {"$set": new, "$inc": {"serial": 1}})
        ):
            return
        document = {"_id": alert.key, "scope": alert.scope, **new, "serial": 1}
        try:
            self._dependency.call(self._collection.insert_one, document)
        except DuplicateKeyError:
            # Another evaluation opened it at the same moment.
            self._update({"_id": alert.key, "status": "open"}, {"$set": facts})

    def resolve(self, incident: Incident, at: str) -> None:
        """Close exactly this incident: one that was opened again meanwhile stays open."""
        guard = {
            "_id": incident.alert.key,
            "status": "open",
            "serial": incident.serial,
            "openedAt": incident.opened_at,
        }
        self._update(guard, {"$set": {"status": "resolved", "resolvedAt": at}})

    def adopt(self, alert: Alert, at: str, channels: Iterable[str]) -> None:
        """Store an incident with serial 0, open since `at`, that these channels were notified of while MongoDB was
        unavailable: the next evaluation resolves it and notifies them. Does nothing when it is stored already.
        """
        from pymongo.errors import DuplicateKeyError

        facts = {
            "scope": alert.scope,
            **_shown(alert),
            "status": "open",
            "serial": 0,
            "openedAt": at,
            "lastSeenAt": at,
            "resolvedAt": None,
            "acknowledged": None,
            "notified": dict.fromkeys(channels, IncidentChange.OPENED.value),
            "claims": {},
        }
        # Where another evaluation was faster, its document has the key.
        with suppress(DuplicateKeyError):
            self._upsert({"_id": alert.key, "openedAt": {"$ne": at}}, {"$set": facts})

    def acknowledge(self, incident: Incident, by: str, at: str, why: str) -> bool:
        """Whether exactly this incident was still open, and is acknowledged now."""
        guard = {"_id": incident.alert.key, "status": "open", "serial": incident.serial}
        return self._update(guard, {"$set": {"acknowledged": {"by": by, "at": at, "why": why}}})

    def claim(self, incident: Incident, channel: str, until: str) -> bool:
        """Claim the right to notify the channel; of all processes that see the incident in the same state, one gets
        it. Returns whether this one did.
        """
        last = incident.notified.get(channel)
        guard = {
            "_id": incident.alert.key,
            "serial": incident.serial,
            f"notified.{channel}": {"$exists": False} if last is None else last.value,
            f"claims.{channel}": incident.claims.get(channel, {"$exists": False}),
        }
        return self._update(guard, {"$set": {f"claims.{channel}": until}})

    def release(self, incident: Incident, channel: str, until: str) -> None:
        """Give up the claim that lasts until then: the channel could not be notified."""
        guard = {"_id": incident.alert.key, f"claims.{channel}": until}
        self._update(guard, {"$unset": {f"claims.{channel}": ""}})

    def record_notified(self, incident: Incident, channel: str, change: IncidentChange) -> None:
        guard = {"_id": incident.alert.key, "serial": incident.serial}
        taken = {f"notified.{channel}": change.value}
        self._update(guard, {"$set": taken, "$unset": {f"claims.{channel}": ""}})

    def _update(self, guard: Mapping[str, Any], update: Mapping[str, Any]) -> bool:
        return bool(self._update_one(guard, update).matched_count)

    def _incidents(self, query: Mapping[str, Any]) -> list[Incident]:
        return [Incident.parse(document) for document in self._find(query, sort=[("_id", 1)])]


def _acknowledgement(document: Mapping[str, Any] | None) -> Acknowledgement | None:
    return Acknowledgement(document["by"], document["at"], document["why"]) if document else None


# The status and scope of a mute, where an incident has its own.
_MUTE = "mute"
# Difference between the clocks of two machines.
_SKEW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Mute:
    """No channel is notified of incidents whose key is the pattern, or begins with what is before its `*`."""

    pattern: str  # a key, or its beginning and `*`
    by: str  # the operator
    at: str  # an ISO time, from which it lasts
    seconds: float
    why: str  # in words

    @property
    def until(self) -> str:
        return iso((seconds(self.at) or 0.0) + self.seconds)

    def covers(self, key: str) -> bool:
        if self.pattern.endswith("*"):
            return key.startswith(self.pattern[:-1])
        return key == self.pattern

    def in_force(self, now: float) -> bool:
        """One that begins in the future is not: a clock was set back, and silence would be the greater harm."""
        began = seconds(self.at)
        return began is not None and began - _SKEW_SECONDS <= now < began + self.seconds


def _shown(alert: Alert) -> dict[str, Any]:
    return as_document(alert, "severity", "summary", "runbook") | {"details": alert.details}


class Mutes(Store):
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def in_force(self, now: float) -> list[Mute]:
        return [mute for mute in self.all() if mute.in_force(now)]

    def all(self) -> list[Mute]:
        """Those that have ended included."""
        return [_mute(document) for document in self._find({"scope": _MUTE}, sort=[("_id", 1)])]

    def put(self, mute: Mute) -> None:
        """Store it; replaces one with the same pattern."""
        stored = as_document(mute, "pattern", "by", "at", "seconds", "until", "why")
        self._upsert({"_id": _mute_id(mute.pattern)}, {"$set": {"scope": _MUTE, "status": _MUTE, **stored}})

    def remove(self, pattern: str) -> bool:
        """Whether there was one with exactly this pattern."""
        answer = self._dependency.call(self._collection.delete_one, {"_id": _mute_id(pattern)})
        return bool(answer.deleted_count)


def _mute_id(pattern: str) -> str:
    return f"{_MUTE}:{pattern}"


def _mute(document: Mapping[str, Any]) -> Mute:
    return Mute(
        document["pattern"], document["by"], document["at"], float(document["seconds"]), document["why"]
    )


_EVALUATED, _SUSPECTED, _UNREAD, _BEAT = "looked", "suspected", "unread", "beat"


class EvaluationState(Store):
    """Since when an alert is suspected or something cannot be read, when each evaluator ran last, and since when a
    lease has not moved. Moments are seconds since the epoch. `hello` is the server's command of that name.

    Every method raises TransientFailure when MongoDB cannot answer.
    """

    def __init__(
        self,
        collection: Documents,
        dependency: Dependency,
        hello: Callable[[], dict[str, Any]],
    ) -> None:
        super().__init__(collection, dependency)
        self._hello = hello

    def now(self) -> float:
        """Epoch seconds by the clock of MongoDB: the same for all evaluators, whose own clocks may jump."""
        stamp: datetime = self._dependency.call(self._hello)["localTime"]
        return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()

    def suspected(self) -> dict[str, float]:
        """Keys of alerts that are not open yet, and since when they are suspected."""
        return self._moments(_SUSPECTED)

    def suspect(self, key: str, now: float) -> None:
        self._put(_SUSPECTED, key, now)

    def clear(self, keys: Iterable[str]) -> None:
        self._remove(_SUSPECTED, keys)

    def unread(self) -> dict[str, float]:
        """What the last evaluation could not read, and since when."""
        return self._moments(_UNREAD)

    def keep_unread(self, since: Mapping[str, float], before: Mapping[str, float]) -> None:
        """Store what cannot be read now, and since when; `before` is what `unread` returned."""
        for key in since.keys() - before.keys():
            self._put(_UNREAD, key, since[key])
        self._remove(_UNREAD, before.keys() - since.keys())

    def evaluations(self) -> dict[str, float]:
        """When each evaluator ran last, by its name."""
        return self._moments(_EVALUATED)

    def record_evaluation(self, by: str, now: float) -> None:
        self._put(_EVALUATED, by, now)

    def beats(self) -> dict[str, tuple[str, float]]:
        """The last heartbeat of each lease, and since when it has not changed."""
        found = self._find({"kind": _BEAT})
        return {each["name"]: (each["beat"], seconds(each["at"]) or 0.0) for each in found}

    def beat(self, lease: str, beat: str, now: float) -> None:
        self._put(_BEAT, lease, now, beat=beat)

    def forget(self, leases: Iterable[str]) -> None:
        self._remove(_BEAT, leases)

    def _remove(self, kind: str, names: Iterable[str]) -> None:
        ids = [f"{kind}:{name}" for name in names]
        if ids:
            self._dependency.call(self._collection.delete_many, {"_id": {"$in": ids}})

    def _put(self, kind: str, name: str, now: float, **more: str) -> None:
        facts = {"kind": kind, "name": name, "at": iso(now), **more}
        self._upsert({"_id": f"{kind}:{name}"}, {"$set": facts})

    def _moments(self, kind: str) -> dict[str, float]:
        moments = ((document["name"], seconds(document["at"])) for document in self._find({"kind": kind}))
        return {name: at for name, at in moments if at is not None}
