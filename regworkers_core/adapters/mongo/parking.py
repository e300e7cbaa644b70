"""Campaigns whose replication is paused (in `switches`), and the keys that wait for its end (`parked_entries`).

A key is parked, then the pause is read again; ending a pause removes it first, and then takes out what is parked. So a
key that is parked too late is seen by who parked it, and no clock decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairdraw import scheduling
from fairdraw.documents import as_document, from_document
from regworkers_core.adapters.mongo.store import Documents, Store, bulk_update, by_prefix
from regworkers_core.domain.messages import ReplicationItem
from regworkers_core.engine.dependency import Dependency

_SWITCH = "save:"
# For so long a process takes a campaign for one that is not paused.
KNOWN_SECONDS = 5.0
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Pause:
    """Why nothing of a campaign is saved."""

    at: str  # an ISO time
    by: str
    reason: str


class Parking(Store):
    """Every method raises TransientFailure when MongoDB cannot answer. Safe to share between threads."""

    def __init__(
        self,
        parked: Documents,
        switches: Documents,
        dependency: Dependency,
        *,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        super().__init__(parked, dependency)
        self._switches, self._clock = switches, clock
        self._known: frozenset[str] = frozenset()
        self._refresh_at = -KNOWN_SECONDS

    def pause(self, campaign_id: str, pause: Pause) -> Pause:
        """Returns the pause in force, which may be an earlier one."""
        query, update = {"_id": _SWITCH + campaign_id}, {"$setOnInsert": as_document(pause)}
        self._dependency.call(self._switches.update_one, query, update, upsert=True)
        return self.of(campaign_id) or pause

    def of(self, campaign_id: str) -> Pause | None:
        """None for a campaign that is not paused."""
        found = self._dependency.call(self._switches.find_one, {"_id": _SWITCH + campaign_id})
        return None if found is None else from_document(Pause, found)

    def end(self, campaign_id: str) -> bool:
        """Whether there was a pause."""
        query = {"_id": _SWITCH + campaign_id}
        return self._dependency.call(self._switches.delete_one, query).deleted_count == 1

    def pauses(self) -> dict[str, Pause]:
        """The pauses in force, by campaign."""
        names = ["at", "by", "reason"]
        found = by_prefix(self._switches, self._dependency, _SWITCH, ["_id", *names])
        return {each["_id"].removeprefix(_SWITCH): from_document(Pause, each) for each in found}

    def paused(self) -> frozenset[str]:
        """The campaigns that are paused, as of some seconds ago."""
        if self._clock() >= self._refresh_at:
            self._known = frozenset(self.pauses())
            self._refresh_at = self._clock() + KNOWN_SECONDS
        return self._known

    def park(self, campaign_id: str, items: Sequence[ReplicationItem]) -> bool:
        """Keep these keys of one campaign; False if its pause has ended: then they are the caller's."""
        documents = {_id_of(item): item.as_json() for item in items}
        self._bulk(
            [bulk_update({"_id": id_}, {"$set": each}, upsert=True) for id_, each in documents.items()]
        )
        if self.of(campaign_id) is not None:
            return True
        self._remove([*documents])
        return False

    def count(self, campaign_id: str, limit: int | None = None) -> int:
        """How many keys wait, counted up to `limit`; an entry may have several."""
        return self._count({"_id": _range(campaign_id)}, limit)

    def waiting(self, campaign_id: str, first: str, end: str | None) -> Iterator[Sequence[str]]:
        """The ids of entries whose keys wait, page by page: from the id `first` on, before `end` (None: all the rest).
        An entry with several keys comes as often.
        """
        before = _range(campaign_id)["$lt"] if end is None else f"{campaign_id}:{end}"
        ids = {"$gte": f"{campaign_id}:{first}", "$lt": before}
        while page := self._find({"_id": ids}, {"_id": 1}, sort=[("_id", 1)], limit=_PAGE):
            found = [str(each["_id"]) for each in page]
            yield [each[len(campaign_id) + 1 :].partition("\n")[0] for each in found]
            ids = {"$gt": found[-1], "$lt": before}

    def take(self, campaign_id: str, send: Callable[[Sequence[ReplicationItem]], object]) -> Iterator[int]:
        """Send what is parked page by page, and then remove it: a repeat sends again what was not removed. Yields how
        many a page had.
        """
        while page := self._find({"_id": _range(campaign_id)}, sort=[("_id", 1)], limit=_PAGE):
            send([ReplicationItem.parse(each) for each in page])
            self._remove([each["_id"] for each in page])
            yield len(page)

    def _remove(self, ids: Sequence[str]) -> None:
        self._dependency.call(self._collection.delete_many, {"_id": {"$in": list(ids)}})


def _id_of(item: ReplicationItem) -> str:
    """Removals are kept with each order: the highest decides, and the save finds it."""
    order: Mapping[str, Any] = item.order.as_fields()
    return f"{item.key.document_id}\n{item.op.value} {' '.join(map(str, order.values()))}"


def _range(campaign_id: str) -> dict[str, str]:
    # Up to what follows the colon.
    return {"$gte": f"{campaign_id}:", "$lt": f"{campaign_id};"}
