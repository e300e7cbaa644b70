"""Mutes: whose incidents no channel is told of for a while. They lie in `alerts`, beside the incidents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.collection import Collection

from regworkers_core.adapters.mongo.client import find_all
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.dependency import Dependency

# Where others read the status of an incident; a mute is none.
_MUTE = "mute"
# Of the clocks of two machines.
_SKEW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Mute:
    """`pattern` is the key of an alert, or the beginning of keys and a `*`. It lasts `seconds` from `at` (ISO time)."""

    pattern: str
    by: str
    at: str
    seconds: float
    why: str

    @property
    def until(self) -> str:
        return iso((seconds(self.at) or 0.0) + self.seconds)

    def covers(self, key: str) -> bool:
        if self.pattern.endswith("*"):
            return key.startswith(self.pattern[:-1])
        return key == self.pattern

    def holds(self, now: float) -> bool:
        """One that begins in the future does not: a clock was set back, and then silence is the greater evil."""
        began = seconds(self.at)
        return began is not None and began - _SKEW_SECONDS <= now < began + self.seconds


class Mutes:
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Collection[dict[str, Any]], dependency: Dependency) -> None:
        self._collection, self._dependency = collection, dependency

    def holding(self, now: float) -> list[Mute]:
        """Those that are in force."""
        return [mute for mute in self.all() if mute.holds(now)]

    def all(self) -> list[Mute]:
        """Those that are over included."""
        found = self._dependency.call(find_all, self._collection, {"scope": _MUTE}, sort=[("_id", 1)])
        return [_parsed(document) for document in found]

    def put(self, mute: Mute) -> None:
        """In place of one that there is for the same pattern."""
        facts = {
            "scope": _MUTE,
            "status": _MUTE,
            "pattern": mute.pattern,
            "by": mute.by,
            "at": mute.at,
            "seconds": mute.seconds,
            "until": mute.until,
            "why": mute.why,
        }
        self._dependency.call(
            self._collection.update_one, {"_id": _id(mute.pattern)}, {"$set": facts}, upsert=True
        )

    def remove(self, pattern: str) -> bool:
        """Whether there was one for exactly this pattern."""
        answer = self._dependency.call(self._collection.delete_one, {"_id": _id(pattern)})
        return bool(answer.deleted_count)


def _id(pattern: str) -> str:
    return f"{_MUTE}:{pattern}"


def _parsed(document: Mapping[str, Any]) -> Mute:
    return Mute(
        document["pattern"], document["by"], document["at"], float(document["seconds"]), document["why"]
    )
