"""Retention: deletes what has passed the period that the settings give its kind.

What a store deletes by itself (TTL of MongoDB and DynamoDB, lifecycle of S3) is not deleted here; data of campaigns is
marked for that. Documents, reviews, archived days and databases that a killed drill left are deleted here.

The period of a campaign's data begins when its last phase is COMPLETED, or its draw annulled; a phase that is opened
stops it. The end of the period is recorded once in the `draws` document, under the draw's lease: from then on no
top-up can begin. Then the data is marked, and files are deleted. No draw reads claims, which keep a fan from entering
twice: a CLOSED campaign that was never drawn loses them, counted from the end of its registration, and can be drawn.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from fairdraw.documents import as_document
from regworkers_core.adapters.mongo.draws import DrawRecord, Fenced, PhaseStatus, lease_name
from regworkers_core.adapters.mongo.entry_documents import ERASED_AT, REGISTRATION
from regworkers_core.adapters.mongo.store import Documents as Collection
from regworkers_core.adapters.mongo.store import expire_by_prefix, expire_codes, pages
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.snapshot import IncidentChange
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.dependency import Dependency
from regworkers_core.engine.leases import LeaseBusy, held_lease
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.reviews.sections import ROOT as REVIEWS
from regworkers_core.operations.reviews.sections import date_of
from regworkers_core.runtime import Runtime

Document = Mapping[str, Any]
# Called with the name of each part before it begins.
OnPart = Callable[[str], None]
KEPT = "kept for ever: no setting says otherwise"
_DAY_SECONDS = 24 * 3600.0
_BATCH = 500
# The most documents of one kind in one run; the next run continues.
_MOST = 200_000
# Longer than a drill takes: an older database was left by one that was killed.
_SCRATCH_DAYS = 1.0
_ARCHIVE_PATIENCE_SECONDS = 180.0


class Size(NamedTuple):
    """A number of documents, files or databases. `bytes` is None if the server does not say."""

    number: int
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PartResult:
    """The result for one kind of data."""

    name: str
    # Its period; None: it is kept for ever.
    older_than_days: float | None
    # What has passed its period.
    over: int = 0
    # What was deleted; 0 in a dry run.
    deleted: int = 0
    # Its size before the run.
    before: Size | None = None
    # Its size after the run.
    after: Size | None = None
    # A limit left some for the next run.
    more: bool = False
    # What else to know of it.
    note: str = ""
    # The error of a store that did not answer.
    trouble: str = ""

    def as_dict(self) -> dict[str, Any]:
        return as_document(self) | {"note": self.note or None, "trouble": self.trouble or None}


@dataclass(frozen=True, slots=True)
class RetentionPart:
    """One kind of data. `apply` takes `dry_run`; it raises what its stores raise."""

    name: str
    older_than_days: float | None
    apply: Callable[[bool], PartResult]


@dataclass(frozen=True, slots=True)
class RetentionReport:
    parts: tuple[PartResult, ...]
    dry_run: bool

    @property
    def over(self) -> int:
        return sum(part.over for part in self.parts)

    @property
    def deleted(self) -> int:
        return sum(part.deleted for part in self.parts)

    @property
    def fine(self) -> bool:
        return not any(part.trouble for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        return as_document(self, "dry_run", "fine", "over", "deleted", "parts")


def apply_retention(
    parts: Iterable[RetentionPart],
    *,
    dry_run: bool,
    stop: StopSignal | None = None,
    on_part: OnPart = lambda _name: None,
) -> RetentionReport:
    """Delete what has passed its period, or only count it, one part after the other. The report has the error of each
    unavailable store, which does not stop the other parts. A stop signal ends between two.
    """
    done = []
    for part in parts:
        if stop is not None and stop.is_set:
            done.append(PartResult(part.name, part.older_than_days, trouble="stopped before its turn"))
            continue
        on_part(part.name)
        if part.older_than_days is None:
            done.append(PartResult(part.name, None, note=KEPT))
            continue
        try:
            done.append(part.apply(dry_run))
        except (Failure, UsageError) as error:
            done.append(PartResult(part.name, part.older_than_days, trouble=str(error)))
    return RetentionReport(tuple(done), dry_run)


def all_parts(runtime: Runtime) -> Iterator[RetentionPart]:
    keep = runtime.settings.housekeeping
    yield from campaign_parts(runtime)
    yield from _document_parts(runtime)
    for name, days, apply in (
        ("reviews", keep.reviews_days, _reviews),
        ("archive", keep.archive_days, _archive),
    ):
        yield RetentionPart(name, days, partial(apply, runtime, days or 0))
    yield RetentionPart("drill_databases", _SCRATCH_DAYS, partial(_scratch, runtime))


@dataclass(frozen=True, slots=True)
class _CampaignData:
    """One kind of campaign data."""

    name: str
    # Its period; None: it is kept for ever.
    days: float | None
    # Marks or deletes it, and yields numbers, a call at a time.
    mark: Callable[[str, float], Iterator[int]]
    # It is kept while messages wait.
    must_be_delivered: bool = False
    # It is not needed once registration is over.
    needs_no_draw: bool = False


def campaign_parts(runtime: Runtime) -> list[RetentionPart]:
    settings = runtime.settings.housekeeping
    database, mongo = runtime.database, runtime.dependency("mongo")

    def by_prefix(*names: str) -> Callable[[str, float], Iterator[int]]:
        def mark(campaign_id: str, at: float) -> Iterator[int]:
            for name in names:
                yield from expire_by_prefix(database[name], mongo, f"{campaign_id}:", at)

        return mark

    def claims(campaign_id: str, at: float) -> Iterator[int]:
        yield from runtime.entry_claims.expire(campaign_id, int(at))

    kinds = (
        _CampaignData("claims", settings.claims_days, claims, needs_no_draw=True),
        _CampaignData("pipeline", settings.pipeline_days, partial(_pipeline, runtime)),
        _CampaignData("outbox", settings.outbox_days, by_prefix("outbox"), must_be_delivered=True),
        _CampaignData("selections", settings.selections_days, by_prefix("selections", "selection_chunks")),
        _CampaignData("codes", settings.codes_days, partial(expire_codes, database["codes"], mongo)),
    )
    return [RetentionPart(kind.name, kind.days, partial(_expire_kind, runtime, kind)) for kind in kinds]


def _pipeline(runtime: Runtime, campaign_id: str, _at: float) -> Iterator[int]:
    for key in runtime.objects.list(f"pipeline/{campaign_id}/"):
        runtime.objects.delete(key)
        yield 1


def _expire_kind(runtime: Runtime, kind: _CampaignData, dry_run: bool) -> PartResult:
    """`over` counts campaigns, `deleted` what was marked in them. Raises TransientFailure; a repeat continues."""
    days = kind.days or 0.0
    over, marked, notes = 0, 0, []
    for record in runtime.draws.all():
        if not _is_over(record, kind, runtime.clock() - days * _DAY_SECONDS):
            continue
        if kind.must_be_delivered and (waiting := _undelivered(record)):
            notes.append(f"{record.campaign_id} is kept: messages of {waiting} markets are not delivered")
            continue
        over += 1
        if dry_run:
            continue
        try:
            marked += _expire(runtime, kind, record.campaign_id, days)
        except (LeaseBusy, Fenced):
            notes.append(f"{record.campaign_id} is left for the next time: another run works on its draw")
    for campaign_id in _never_drawn(runtime, days) if kind.needs_no_draw else ():
        over += 1
        notes.append(f"{campaign_id} is closed and was never drawn")
        if not dry_run:
            marked += sum(kind.mark(campaign_id, runtime.clock()))
    return PartResult(kind.name, days, over, marked, note="; ".join(notes))


def _never_drawn(runtime: Runtime, days: float) -> Iterator[str]:
    """Campaigns whose registration ended `days` ago and whose draw never began: they cannot be opened again."""
    before = iso(runtime.clock() - days * _DAY_SECONDS)
    for campaign in runtime.campaigns.list(CampaignStatus.CLOSED):
        if campaign.takes_entries_until < before:
            yield campaign.campaign_id


def _expire(runtime: Runtime, kind: _CampaignData, campaign_id: str, days: float) -> int:
    lease_seconds = runtime.settings.selection.lease_seconds
    run_id = f"housekeeping-{uuid.uuid4().hex[:12]}"
    with held_lease(runtime.leases, lease_name(campaign_id), run_id, lease_seconds=lease_seconds) as lease:
        now = runtime.clock()
        record = runtime.draws.get(campaign_id)
        # A phase may have been opened since.
        if record is None or not _is_over(record, kind, now - days * _DAY_SECONDS):
            return 0
        runtime.draws.expire(campaign_id, kind.name, {"at": iso(now)}, token=lease.token)
        marked = sum(kind.mark(campaign_id, now))
        runtime.draws.expire(campaign_id, kind.name, {"doneAt": iso(runtime.clock())}, token=lease.token)
    return marked


def _is_over(record: DrawRecord, kind: _CampaignData, before: float) -> bool:
    """Whether the period of this kind began before `before` (epoch seconds) and its data is not marked yet."""
    if "doneAt" in record.expired.get(kind.name, {}):
        return False
    began = _period_began(record)
    return began is not None and began < before


def _period_began(record: DrawRecord) -> float | None:
    """Epoch seconds; None while a phase is open."""
    if record.annulled:
        return seconds(str(record.annulled["annulledAt"]))
    if not record.phases or not record.latest.reached(PhaseStatus.COMPLETED):
        return None
    return seconds(str(record.latest.fields.get("completedAt")))


def _undelivered(record: DrawRecord) -> int:
    """The number of markets with messages that are not on the mailer's queue; an annulled draw sends none."""
    if record.annulled:
        return 0
    markets = [market for phase in record.phases.values() for market in phase.markets.values()]
    return sum("deliveredAt" not in market for market in markets if market["planned"])


def _document_parts(runtime: Runtime) -> Iterator[RetentionPart]:
    settings, now = runtime.settings.housekeeping, runtime.clock()

    def before(days: float) -> str:
        return iso(now - days * _DAY_SECONDS)

    def part(
        name: str,
        days: float | None,
        query: Callable[[str], Document],
        may_delete: Callable[[Document], bool] = lambda _document: True,
        collection: str = "",
    ) -> RetentionPart:
        documents = Documents(
            name, runtime.database[collection or name], runtime.dependency("mongo"), may_delete
        )
        over = query(before(days or 0.0))
        return RetentionPart(name, days, lambda dry_run: documents.delete(days, over, dry_run=dry_run))

    def closed(at: str) -> Document:
        return {"status": {"$ne": "open"}, "resolvedAt": {"$lt": at}}

    # When these go, no message and no stream record is left that could bring an older state back. One with a leaf stays
    # until the tree of registrations has its notice.
    noted: Document = {REGISTRATION: {"$exists": False}}
    yield part(
        "tombstones",
        settings.tombstones_days,
        lambda at: {"deletedAt": {"$lt": at}, ERASED_AT: {"$exists": False}, **noted},
        collection="entries",
    )
    yield part(
        "erased_tombstones",
        settings.erased_tombstone_days,
        lambda at: {ERASED_AT: {"$lt": at}, "deletedAt": {"$exists": True, "$lt": at}, **noted},
        collection="entries",
    )
    yield part("alerts", settings.alerts_days, closed, _is_notified)
    yield part("dead_letters", settings.dead_letters_days, closed)
    yield part("operator_actions", settings.operator_actions_days, lambda at: {"startedAt": {"$lt": at}})


def _is_notified(incident: Document) -> bool:
    """A channel without the resolution would show the incident as open for ever."""
    changes = (incident.get("notified") or {}).values()
    return all(change == IncidentChange.RESOLVED for change in changes)


class Documents:
    """The documents of one collection that match a query and `may_delete`. Raises TransientFailure."""

    def __init__(
        self,
        name: str,
        collection: Collection,
        dependency: Dependency,
        may_delete: Callable[[Document], bool],
    ) -> None:
        self._name, self._collection, self._dependency = name, collection, dependency
        self._may_delete = may_delete

    def delete(
        self, days: float | None, over: Document, *, dry_run: bool, batch: int = _BATCH, most: int = _MOST
    ) -> PartResult:
        """Delete at most `most`, `batch` per call."""
        before = self._size()
        found = deleted = 0
        more = False
        for ids in self._pages(over, batch):
            if found + len(ids) > most:
                more = True
                break
            found += len(ids)
            if not dry_run:
                # With the query again: a document that was opened again meanwhile stays.
                query = {**over, "_id": {"$in": ids}}
                deleted += self._dependency.call(self._collection.delete_many, query).deleted_count
        after = before if dry_run else self._size()
        return PartResult(self._name, days, found, deleted, before, after, more)

    def _pages(self, over: Document, batch: int) -> Iterator[list[Any]]:
        """Ids in ascending order, so that documents that stay are read once."""
        for page in pages(self._collection, self._dependency, over, ("notified",), size=batch):
            if ids := [document["_id"] for document in page if self._may_delete(document)]:
                yield ids

    def _size(self) -> Size:
        from pymongo.errors import OperationFailure

        def stats() -> Size:
            try:
                answer = self._collection.database.command("collStats", self._collection.name)
            except OperationFailure:
                # Some servers raise this for a collection that does not exist yet.
                return Size(self._collection.estimated_document_count())
            return Size(int(answer.get("count", 0)), int(answer.get("size", 0)))

        return self._dependency.call(stats)


def _reviews(runtime: Runtime, days: int, dry_run: bool) -> PartResult:
    objects = runtime.objects
    sizes = objects.sizes(REVIEWS)
    first = iso(runtime.clock() - days * _DAY_SECONDS)[:10]
    over = [key for key in sizes if (date := date_of(key)) is not None and date < first]
    before = Size(len(sizes), sum(sizes.values()))
    if dry_run:
        return PartResult("reviews", days, len(over), 0, before, before)
    for key in over:
        objects.delete(key)
    after = Size(before.number - len(over), sum(sizes.values()) - sum(sizes[key] for key in over))
    return PartResult("reviews", days, len(over), len(over), before, after)


def _archive(runtime: Runtime, days: int, dry_run: bool) -> PartResult:
    # Imported late: it loads DuckDB and pyarrow.
    from regworkers_core.analytics.archive.files import expire

    first_day = iso(runtime.clock() - days * _DAY_SECONDS)[:10]
    found = expire(runtime, first_day=first_day, dry_run=dry_run, patience_seconds=_ARCHIVE_PATIENCE_SECONDS)
    before = Size(found.files + found.left_files, found.bytes + found.left_bytes)
    after = before if dry_run else Size(found.left_files, found.left_bytes)
    note = "" if dry_run or not found.files else "the next run of archive_events deletes these files"
    return PartResult("archive", days, found.files, 0 if dry_run else found.files, before, after, note=note)


def _scratch(runtime: Runtime, dry_run: bool) -> PartResult:
    from regworkers_core.replication.scratch_database import left_behind

    found = list(left_behind(runtime, older_than_seconds=_SCRATCH_DAYS * _DAY_SECONDS))
    if not dry_run:
        for each in found:
            each.drop()
    number, left = len(found), len(found) if dry_run else 0
    return PartResult("drill_databases", _SCRATCH_DAYS, number, number - left, Size(number), Size(left))
