"""The `alerts` collection: one document an incident, by the key of its alert, and what each channel was told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from regworkers_core.adapters.mongo.client import find_all
from regworkers_core.domain.alert import Alert, Change, Severity
from regworkers_core.engine.dependency import Dependency

# What a channel was told last while it still has to hear of the end.
_HEARD = (Change.OPENED, Change.ACKNOWLEDGED)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Who has taken an incident on, when (ISO time), and what they said."""

    by: str
    at: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """`serial` counts how often the trouble came: with the key it names one incident for good. It stays the same
    when the trouble comes back before every channel has heard that it was over. `told` has, for each channel, the
    last change that it has taken, `claims` until when somebody is busy telling it (ISO time).
    """

    alert: Alert
    open: bool
    serial: int
    opened_at: str
    last_seen_at: str
    resolved_at: str | None
    told: Mapping[str, Change]
    acknowledged: Acknowledgement | None = None
    claims: Mapping[str, str] = field(default_factory=dict)

    @property
    def dedup_key(self) -> str:
        """What a channel knows this incident by."""
        return f"{self.alert.key}#{self.serial}"

    def untold(self, channel: str) -> Change | None:
        """What the channel has still to be told; one that never heard of it need not hear that it is over."""
        last = self.told.get(channel)
        if not self.open:
            return Change.RESOLVED if last in _HEARD else None
        if last not in _HEARD:
            return Change.OPENED
        return Change.ACKNOWLEDGED if self.acknowledged and last is Change.OPENED else None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Incident:
        alert = Alert(
            document["_id"],
            Severity(document["severity"]),
            document["summary"],
            document["runbook"],
            dict(document.get("details") or {}),
        )
        return cls(
            alert,
            document["status"] == "open",
            int(document["serial"]),
            document["openedAt"],
            document["lastSeenAt"],
            document.get("resolvedAt"),
            {channel: Change(change) for channel, change in (document.get("told") or {}).items()},
            _acknowledgement(document.get("acknowledged")),
            dict(document.get("claims") or {}),
        )


class Incidents:
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Collection[dict[str, Any]], dependency: Dependency) -> None:
        self._collection, self._dependency = collection, dependency

    def of(self, *scopes: str) -> list[Incident]:
        """All incidents of these scopes, closed ones included."""
        return self._find({"scope": {"$in": list(scopes)}})

    def find(self, key: str) -> Incident | None:
        """Open or closed; None when there never was one under this key."""
        return next(iter(self._find({"_id": key, "serial": {"$exists": True}})), None)

    def all(self) -> list[Incident]:
        """Open and closed. A mute, which lies beside them, has no serial."""
        return self._find({"serial": {"$exists": True}})

    def all_open(self) -> list[Incident]:
        return self._find({"status": "open"})

    def holds(self, alert: Alert, at: str, channels: Sequence[str]) -> None:
        """The alert's condition holds at this time: open its incident, or keep it open.

        While one of `channels` has not taken yet that the incident before is over, that one is opened again: under
        a new serial nobody would ever close the old one there.
        """
        facts = {
            "severity": alert.severity.value,
            "summary": alert.summary,
            "runbook": alert.runbook,
            "details": alert.details,
            "lastSeenAt": at,
        }
        seen = self._update({"_id": alert.key, "status": "open"}, {"$set": facts})
        again = {**facts, "status": "open", "openedAt": at, "resolvedAt": None, "acknowledged": None}
        anew: dict[str, Any] = {**again, "told": {}, "claims": {}}
        over = {"_id": alert.key, "status": "resolved"}
        # One by one: the embedded server takes an `$or` in an update for all documents that one side of it fits.
        heard = {"$in": [change.value for change in _HEARD]}
        owed = ({**over, f"told.{channel}": heard} for channel in channels)
        if (
            seen
            or any(self._update(guard, {"$set": again}) for guard in owed)
            or self._update(over, {"$set": anew, "$inc": {"serial": 1}})
        ):
            return
        document = {"_id": alert.key, "scope": alert.scope, **anew, "serial": 1}
        try:
            self._dependency.call(self._collection.insert_one, document)
        except DuplicateKeyError:
            # Somebody saw it in the same moment.
            self._update({"_id": alert.key, "status": "open"}, {"$set": facts})

    def is_over(self, incident: Incident, at: str) -> None:
        """Close exactly this incident: one that was opened again meanwhile stays."""
        guard = {
            "_id": incident.alert.key,
            "status": "open",
            "serial": incident.serial,
            "openedAt": incident.opened_at,
        }
        self._update(guard, {"$set": {"status": "resolved", "resolvedAt": at}})

    def adopt(self, alert: Alert, at: str, channels: Iterable[str]) -> None:
        """An incident with serial 0 since `at` that these channels were told of while nothing could be written here. It
        is kept as open, so that the next look closes it and tells them; does nothing when it is known already.
        """
        facts = {
            "scope": alert.scope,
            "severity": alert.severity.value,
            "summary": alert.summary,
            "runbook": alert.runbook,
            "details": alert.details,
            "status": "open",
            "serial": 0,
            "openedAt": at,
            "lastSeenAt": at,
            "resolvedAt": None,
            "acknowledged": None,
            "told": dict.fromkeys(channels, Change.OPENED.value),
            "claims": {},
        }
        try:
            self._dependency.call(
                self._collection.update_one,
                {"_id": alert.key, "openedAt": {"$ne": at}},
                {"$set": facts},
                upsert=True,
            )
        except DuplicateKeyError:
            # Another look at the same time was faster.
            return

    def acknowledge(self, incident: Incident, by: str, at: str, why: str) -> bool:
        """Whether exactly this incident is still open, and is now known to be taken on."""
        guard = {"_id": incident.alert.key, "status": "open", "serial": incident.serial}
        return self._update(guard, {"$set": {"acknowledged": {"by": by, "at": at, "why": why}}})

    def claim(self, incident: Incident, channel: str, until: str) -> bool:
        """Whether it is ours to tell the channel: of all who see the same incident in the same state only one may."""
        told = incident.told.get(channel)
        guard = {
            "_id": incident.alert.key,
            "serial": incident.serial,
            f"told.{channel}": {"$exists": False} if told is None else told.value,
            f"claims.{channel}": incident.claims.get(channel, {"$exists": False}),
        }
        return self._update(guard, {"$set": {f"claims.{channel}": until}})

    def give_back(self, incident: Incident, channel: str, until: str) -> None:
        """The claim that lasts until then: the channel could not be told."""
        guard = {"_id": incident.alert.key, f"claims.{channel}": until}
        self._update(guard, {"$unset": {f"claims.{channel}": ""}})

    def was_told(self, incident: Incident, channel: str, change: Change) -> None:
        guard = {"_id": incident.alert.key, "serial": incident.serial}
        self._update(guard, {"$set": {f"told.{channel}": change.value}, "$unset": {f"claims.{channel}": ""}})

    def _update(self, guard: Mapping[str, Any], update: Mapping[str, Any]) -> bool:
        answer = self._dependency.call(self._collection.update_one, guard, update)
        return bool(answer.matched_count)

    def _find(self, query: Mapping[str, Any]) -> list[Incident]:
        found: Sequence[Mapping[str, Any]] = self._dependency.call(
            find_all, self._collection, query, sort=[("_id", 1)]
        )
        return [Incident.parse(document) for document in found]


def _acknowledgement(document: Mapping[str, Any] | None) -> Acknowledgement | None:
    return Acknowledgement(document["by"], document["at"], document["why"]) if document else None
