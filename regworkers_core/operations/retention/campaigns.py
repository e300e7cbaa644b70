"""Data of campaigns whose draw is over: claims, pipeline files, outbox, selections and codes.

The period of each kind begins when the last phase is COMPLETED, or the draw annulled; a phase that is opened stops it.
When it is over, that is decided once in the `draws` document, under the draw's lease: from then on no top-up can begin.
Then the data is marked, and MongoDB and DynamoDB delete it by their TTL; files are deleted, and the bucket's lifecycle
takes their versions.

Claims keep an entry from being made twice, and no draw reads them. So those of a campaign that is CLOSED and was never
drawn go as well, counted from the end of its registration; nothing is decided with that, and it can still be drawn.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from regworkers_core.adapters.mongo.draws import DrawRecord, Fenced, PhaseStatus, lease_name
from regworkers_core.adapters.mongo.pages import expire_by_prefix, expire_codes
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.leases import LeaseBusy, held_lease
from regworkers_core.operations.retention.results import Part, Tidied
from regworkers_core.runtime import Runtime

_DAY_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Kind:
    """`mark` marks (or deletes) what a campaign has of it and yields how much, a call at a time; `must_be_delivered`:
    not as long as messages wait; `needs_no_draw`: once registration is over, nothing needs it.
    """

    name: str
    days: float | None
    mark: Callable[[str, float], Iterator[int]]
    must_be_delivered: bool = False
    needs_no_draw: bool = False


def parts(runtime: Runtime) -> Iterator[Part]:
    settings = runtime.settings.housekeeping
    database, mongo = runtime.database, runtime.dependency("mongo")

    def by_prefix(*names: str) -> Callable[[str, float], Iterator[int]]:
        def mark(campaign_id: str, at: float) -> Iterator[int]:
            for name in names:
                yield from expire_by_prefix(database[name], mongo, f"{campaign_id}:", at)

        return mark

    for kind in (
        _Kind("claims", settings.claims_days, partial(_claims, runtime), needs_no_draw=True),
        _Kind("pipeline", settings.pipeline_days, partial(_pipeline, runtime)),
        _Kind("outbox", settings.outbox_days, by_prefix("outbox"), must_be_delivered=True),
        _Kind("selections", settings.selections_days, by_prefix("selections", "selection_chunks")),
        _Kind("codes", settings.codes_days, partial(expire_codes, database["codes"], mongo)),
    ):
        yield Part(kind.name, kind.days, partial(_tidy, runtime, kind))


def _claims(runtime: Runtime, campaign_id: str, at: float) -> Iterator[int]:
    yield from runtime.entry_claims.expire(campaign_id, int(at))


def _pipeline(runtime: Runtime, campaign_id: str, _at: float) -> Iterator[int]:
    for key in runtime.objects.list(f"pipeline/{campaign_id}/"):
        runtime.objects.delete(key)
        yield 1


def _tidy(runtime: Runtime, kind: _Kind, dry_run: bool) -> Tidied:
    """`over` counts campaigns, `deleted` what was marked in them. Raises TransientFailure; a repeat goes on."""
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
    return Tidied(kind.name, days, over, marked, note="; ".join(notes))


def _never_drawn(runtime: Runtime, days: float) -> Iterator[str]:
    """Campaigns whose registration ended so long ago, and whose draw never began: it cannot be opened again."""
    before = iso(runtime.clock() - days * _DAY_SECONDS)
    for campaign in runtime.campaigns.list(CampaignStatus.CLOSED):
        if campaign.takes_entries_until < before:
            yield campaign.campaign_id


def _expire(runtime: Runtime, kind: _Kind, campaign_id: str, days: float) -> int:
    seconds_of_lease = runtime.settings.selection.lease_seconds
    run_id = f"housekeeping-{uuid.uuid4().hex[:12]}"
    with held_lease(runtime.leases, lease_name(campaign_id), run_id, lease_seconds=seconds_of_lease) as lease:
        now = runtime.clock()
        record = runtime.draws.get(campaign_id)
        # A phase may have been opened since.
        if record is None or not _is_over(record, kind, now - days * _DAY_SECONDS):
            return 0
        runtime.draws.expire(campaign_id, kind.name, {"at": iso(now)}, token=lease.token)
        marked = sum(kind.mark(campaign_id, now))
        runtime.draws.expire(campaign_id, kind.name, {"doneAt": iso(runtime.clock())}, token=lease.token)
    return marked


def _is_over(record: DrawRecord, kind: _Kind, before: float) -> bool:
    """Whether the kind's period began before `before` (epoch seconds) and its data is not marked yet."""
    if "doneAt" in record.expired.get(kind.name, {}):
        return False
    began = _began(record)
    return began is not None and began < before


def _began(record: DrawRecord) -> float | None:
    """When the periods began, in epoch seconds; None while a phase is open."""
    if record.annulled:
        return seconds(str(record.annulled["annulledAt"]))
    if not record.phases or not record.latest.reached(PhaseStatus.COMPLETED):
        return None
    return seconds(str(record.latest.fields.get("completedAt")))


def _undelivered(record: DrawRecord) -> int:
    """How many markets have messages that are not with the mailer's queue; those of an annulled draw never go."""
    if record.annulled:
        return 0
    markets = [entry for phase in record.phases.values() for entry in phase.markets.values()]
    return sum("deliveredAt" not in entry for entry in markets if entry["planned"])
