"""The `alert_looks` collection: what one look has to know of those before. Since when an alert is suspected or
something cannot be read, when the last look was, and since when a lease has not moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pymongo.collection import Collection

from regworkers_core.adapters.mongo.client import find_all
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.dependency import Dependency

_LOOKED, _SUSPECTED, _UNREAD, _BEAT = "looked", "suspected", "unread", "beat"


class AlertLooks:
    """Every method raises TransientFailure when MongoDB cannot answer. `hello` asks the server who it is."""

    def __init__(
        self,
        collection: Collection[dict[str, Any]],
        dependency: Dependency,
        hello: Callable[[], dict[str, Any]],
    ) -> None:
        self._collection, self._dependency, self._hello = collection, dependency, hello

    def now(self) -> float:
        """Seconds since the epoch by the clock of MongoDB: one for all who look, whose own may jump."""
        stamp: datetime = self._dependency.call(self._hello)["localTime"]
        return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()

    def suspected(self) -> dict[str, float]:
        """Keys of alerts that are not open yet, and since when (seconds since the epoch) they are suspected."""
        return self._moments(_SUSPECTED)

    def suspect(self, key: str, now: float) -> None:
        self._put(_SUSPECTED, key, now)

    def clear(self, keys: Iterable[str]) -> None:
        self._remove(_SUSPECTED, keys)

    def unread(self) -> dict[str, float]:
        """What could not be read at the look before, and since when (seconds since the epoch)."""
        return self._moments(_UNREAD)

    def keep_unread(self, since: Mapping[str, float], before: Mapping[str, float]) -> None:
        """All that cannot be read now and since when (seconds since the epoch); `before` is what `unread` has said."""
        for key in since.keys() - before.keys():
            self._put(_UNREAD, key, since[key])
        self._remove(_UNREAD, before.keys() - since.keys())

    def looks(self) -> dict[str, float]:
        """Who looked, and when last (seconds since the epoch)."""
        return self._moments(_LOOKED)

    def looked(self, by: str, now: float) -> None:
        self._put(_LOOKED, by, now)

    def beats(self) -> dict[str, tuple[str, float]]:
        """The last beat of each lease, and since when (seconds since the epoch) it is that one."""
        found = self._dependency.call(find_all, self._collection, {"kind": _BEAT})
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
        self._dependency.call(
            self._collection.update_one, {"_id": f"{kind}:{name}"}, {"$set": facts}, upsert=True
        )

    def _moments(self, kind: str) -> dict[str, float]:
        found = self._dependency.call(find_all, self._collection, {"kind": kind})
        moments = ((document["name"], seconds(document["at"])) for document in found)
        return {name: at for name, at in moments if at is not None}
