"""Documents of MongoDB that are over: tombstones, closed incidents and dead letters, old actions, minutes of drains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from regworkers_core.adapters.mongo.activity import DRAIN_LOG_DAYS, minute_of
from regworkers_core.adapters.mongo.entry_documents import ERASED_AT
from regworkers_core.adapters.mongo.pages import pages
from regworkers_core.domain.alert import Change
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import Dependency
from regworkers_core.operations.retention.results import Part, Size, Tidied
from regworkers_core.runtime import Runtime

_DAY_SECONDS = 24 * 3600.0
_BATCH = 500
# A part of one run; the next one goes on.
_MOST = 200_000
Document = Mapping[str, Any]


def parts(runtime: Runtime) -> Iterator[Part]:
    settings, now = runtime.settings.housekeeping, runtime.clock()

    def before(days: float) -> str:
        return iso(now - days * _DAY_SECONDS)

    def closed(days: float) -> Document:
        return {"status": {"$ne": "open"}, "resolvedAt": {"$lt": before(days)}}

    def part(
        name: str,
        days: float | None,
        over: Callable[[float], Document],
        may_go: Callable[[Document], bool] = lambda _document: True,
        collection: str = "",
    ) -> Part:
        documents = Documents(name, runtime.database[collection or name], runtime.dependency("mongo"), may_go)
        return Part(name, days, lambda dry_run: documents.tidy(days, over(days or 0.0), dry_run=dry_run))

    # By then no message and no record of the stream is left that could bring an older state back.
    yield part(
        "tombstones",
        settings.tombstones_days,
        lambda days: {"deletedAt": {"$lt": before(days)}, ERASED_AT: {"$exists": False}},
        collection="entries",
    )
    yield part(
        "erased_tombstones",
        settings.erased_tombstone_days,
        lambda days: {ERASED_AT: {"$lt": before(days)}, "deletedAt": {"$exists": True, "$lt": before(days)}},
        collection="entries",
    )
    yield part("alerts", settings.alerts_days, closed, _everybody_knows)
    yield part("dead_letters", settings.dead_letters_days, closed)
    yield part(
        "operator_actions", settings.operator_actions_days, lambda days: {"startedAt": {"$lt": before(days)}}
    )
    # Its index lets them go by itself; not every server has such indexes.
    yield part(
        "drain_log",
        DRAIN_LOG_DAYS + 1,
        lambda days: {"minute": {"$lt": minute_of(now - days * _DAY_SECONDS)}},
    )


def _everybody_knows(incident: Document) -> bool:
    """A channel that was not told of the end would show the incident as open for ever."""
    return all(change == Change.RESOLVED for change in (incident.get("told") or {}).values())


class Documents:
    """Those of one collection that fit a query and `may_go`. Raises TransientFailure when MongoDB cannot answer."""

    def __init__(
        self,
        name: str,
        collection: Collection[dict[str, Any]],
        dependency: Dependency,
        may_go: Callable[[Document], bool],
    ) -> None:
        self._name, self._collection, self._dependency, self._may_go = name, collection, dependency, may_go

    def tidy(
        self, days: float | None, over: Document, *, dry_run: bool, batch: int = _BATCH, most: int = _MOST
    ) -> Tidied:
        """At most `most` go at a time, `batch` a call."""
        name, before = self._name, self._size()
        found = deleted = 0
        more = False
        for ids in self._pages(over, batch):
            if found + len(ids) > most:
                more = True
                break
            found += len(ids)
            if not dry_run:
                # With the query once more: one that was opened again meanwhile stays.
                query = {**over, "_id": {"$in": ids}}
                gone = self._dependency.call(self._collection.delete_many, query)
                deleted += gone.deleted_count
        return Tidied(name, days, found, deleted, before, before if dry_run else self._size(), more)

    def _pages(self, over: Document, batch: int) -> Iterator[list[Any]]:
        """Ids that may go, by ascending id, so that those which stay are met once."""
        for page in pages(self._collection, self._dependency, over, ("told",), size=batch):
            if ids := [document["_id"] for document in page if self._may_go(document)]:
                yield ids

    def _size(self) -> Size:
        def stats() -> Size:
            try:
                answer = self._collection.database.command("collStats", self._collection.name)
            except OperationFailure:
                # A collection that is not there yet, on some servers.
                return Size(self._collection.estimated_document_count())
            return Size(int(answer.get("count", 0)), int(answer.get("size", 0)))

        return self._dependency.call(stats)
