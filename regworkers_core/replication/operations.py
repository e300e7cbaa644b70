"""Rehearse the recovery of the replica; compare it with its source, repair and rebuild it."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from pydantic import Field

from regworkers_core.domain.entry import Order
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.snapshot import CopyJob
from regworkers_core.domain.timestamps import parse_since
from regworkers_core.operation import CAMPAIGN, Call, Effect, Input, Report, Table, operation
from regworkers_core.replication.backfill import Backfill, backfill_status, pause_backfill, start_backfill
from regworkers_core.replication.reconcile import reconciliation
from regworkers_core.replication.reconcile.acceptance import Accept, AcceptanceReport
from regworkers_core.replication.reconcile.reconciliation import Comparing, ReconcileResult
from regworkers_core.replication.reconcile.undo import undo_acceptance

_SINCE = "Only entries that changed since: 2026-11-25T18:00:00Z, 2026-11-25, 90m, 12h, 7d. Empty: all."
_RATE = "Items a second. Empty: replication.backfillItemsPerSecond."


class Part(Input):
    words: ClassVar = ()
    campaign_id: str = Field("", description=f"{CAMPAIGN} Empty: all of them.")

    def campaign(self, call: Call) -> str | None:
        """The id of the campaign, None for all."""
        return call.campaign_id(self.campaign_id) if self.campaign_id else None


class Compared(Part):
    repair: bool = Field(False, description="List what a repair would do. To apply is to repair.")
    yes_remove: int | None = Field(
        None, ge=0, description="Allow up to this many removals where a repair would refuse that many."
    )
    accept_source: int | None = Field(
        None, ge=0, description="Let the source win in the entries that are ahead, which are this many."
    )
    after_restore: bool = Field(
        False,
        description="Accept the source also if the number suggests a table that was restored from a backup, whose "
        "losses you accept.",
    )
    since: str = Field("", description=_SINCE)
    cycle: bool = Field(
        False,
        description="Only the segments that are due, which were not verified within `replication.verifiedHours`, "
        "beside other workers that do the same. The result is that of all segments. Repairs nothing.",
    )


class OneBackfill(Part):
    backfill_id: str = Field("", description="Which backfill. Empty: the campaign's, or `all`.")

    @property
    def named(self) -> str | None:
        return self.backfill_id or None


class Continued(OneBackfill):
    rate: float | None = Field(None, gt=0, description=_RATE)


class Queued(Continued):
    segments: int | None = Field(
        None, ge=1, le=64, description="Parallel segments of the scan. Empty: replication.scanSegments."
    )
    since: str = Field("", description=_SINCE)


class Rebuilt(Input):
    words: ClassVar = ()
    max_entries: int | None = Field(
        None, ge=1, description="Rebuild at most this many entries. Empty: reviews.drillMaxEntries."
    )
    everything: bool = Field(False, description="Rebuild all of them.")


@operation(
    "reconcile",
    CopyJob.RECONCILE,
    Effect.CHANGE,
    duty="replication",
    size="large",
    unlimited=True,
    alone="reconcile",
)
def reconcile(call: Call, given: Compared) -> Report:
    """Compare the replica with the demand table, and repair it.

    Compares the content, too. Fails if they differ. A repair queues the keys of what differs and waits until it heals;
    it removes nothing if the source holds no entry of a campaign, or if it would remove too much of the replica.
    """
    runtime, number = call.runtime, given.accept_source
    if call.apply and given.after_restore and number is None:
        after, source = call.face.field("after_restore"), call.face.field("accept_source")
        raise RequestError(f"{after} needs {source} where it is applied")
    listed = given.repair or given.after_restore or (given.yes_remove, number) != (None, None)
    accept = None
    if number is not None or (listed and not call.apply):
        accept = Accept(number if call.apply else None, given.after_restore)
    result = reconciliation.reconcile(
        runtime,
        Comparing(
            given.campaign(call),
            repair=call.apply,
            yes_remove=given.yes_remove,
            accept=accept,
            since=parse_since(given.since, runtime.clock()),
            cycle=given.cycle,
        ),
        on_progress=partial(call.face.progress, unit="entries"),
        on_phase=call.face.tell,
    )
    return compared(
        result, whole=not given.campaign_id and not given.since, pending=listed and not call.apply
    )


@operation(
    "reconcile undo",
    "undo_acceptance",
    Effect.DELETE,
    duty="replication",
    size="large",
    long=True,
    counted=True,
)
def undo(call: Call, given: Part) -> Report:
    """Restore what the last acceptance of the source replaced. Afterwards the replica is ahead of it again.

    Fails if an entry cannot be restored, because it was changed, removed or erased since.
    """
    report = undo_acceptance(
        call.runtime,
        given.campaign(call),
        confirmed=call.confirmed,
        on_progress=partial(call.face.progress, unit="entries"),
    )
    numbers = ", ".join(f"{number} {now.value}" for now, number in report.counts.items() if number)
    said = [numbers] if numbers else []
    said += [f"{report.restored} restored"] if report.restored else []
    returnable = report.returnable
    return Report(
        document=report.as_dict(),
        facts={"acceptance": report.acceptance, "restored": report.restored},
        tables=[
            Table.first(
                "entries",
                ("entry", "now"),
                [(id_, now.value) for id_, now in report.entries],
                sum(report.counts.values()),
            )
        ],
        said=[*said, report.advice] if report.clean and report.advice else said,
        left="" if report.clean else report.advice or "not every entry can be restored",
        counts={"acceptance": report.acceptance, "restored": report.restored},
        word=str(returnable) if returnable else "",
        question=f"{returnable} entries will be restored",
        changed=report.restored > 0,
    )


@operation(
    "backfill",
    CopyJob.BACKFILL,
    Effect.CHANGE,
    duty="replication",
    size="drain",
    asset="replication_queue",
    target="backfill_id",
    unlimited=True,
    alone="backfill",
)
def backfill(call: Call, given: Queued) -> Report:
    """Queue the keys of all entries again, or of one campaign.

    Rebuilds an emptied replica, and cannot overwrite anything newer: the save drain reads the current state. Repeat it
    with the same id to continue one that was paused, stopped or killed.
    """
    return _queued(call, given, since=parse_since(given.since, call.runtime.clock()), segments=given.segments)


@operation("backfill resume", effect=Effect.ADD, target="backfill_id", unlimited=True)
def resume(call: Call, given: Continued) -> Report:
    """Continue a paused, stopped or killed backfill."""
    return _queued(call, given, only_resume=True)


@operation("backfill pause", effect=Effect.ADD, target="backfill_id")
def pause(call: Call, given: OneBackfill) -> Report:
    """Ask a running backfill to stop, wherever it runs. It can be resumed."""
    return Report(document=pause_backfill(call.runtime, given.campaign(call), backfill_id=given.named))


@operation("backfill status")
def status(call: Call, given: OneBackfill) -> Report:
    """Show how far each segment is."""
    return Report(document=backfill_status(call.runtime, given.campaign(call), backfill_id=given.named))


# The core records a drill itself.
@operation("drill recovery", "drill_recovery", duty="replication", size="large", long=True, alone="drill")
def rehearse(call: Call, given: Rebuilt) -> Report:
    """Rebuild the replica into a scratch database and compare it.

    Reports how long a full rebuild would take. Reads the demand table; the real replica, flags, queues and events stay
    unchanged. The scratch database is dropped at the end. Fails if it differs or would take too long.
    """
    # Late, for it brings DuckDB and pyarrow.
    from regworkers_core.replication.recovery_drill import recovery_drill

    most = given.max_entries or call.runtime.settings.reviews.drill_max_entries
    result = recovery_drill(
        call.runtime,
        most=None if given.everything else most,
        stop=call.stop,
        on_progress=partial(call.face.progress, unit="entries"),
        on_phase=call.face.tell,
    )
    return Report(document=result.as_dict(), left="; ".join(result.findings))


def compared(result: ReconcileResult, *, whole: bool = True, pending: bool = False) -> Report:
    """What a comparison found; `whole` if it was one of all entries, `pending` if a repair was only listed."""
    document, repair, acceptance = result.as_dict(), result.repair, result.acceptance
    lines: list[tuple[object, ...]] = [("equal", result.totals["matched"], None, "")]
    for kind, number in result.counts.items():
        left = repair.remaining.get(kind, 0) if repair else None
        lines.append((kind.value, number, left, ", ".join(result.samples.get(kind, ()))))
    said = [f"{kind.value}: {text}" for kind, text in result.explanations.items()]
    said += [acceptance.in_words, acceptance.advice] if acceptance else []
    said += [repair.in_words] if repair else []
    words = _in_words(result)
    return Report(
        document=document,
        facts={
            **document["totals"],
            "differences": sum(result.counts.values()),
            "seconds": document["seconds"],
            "verifiedAsOf": result.verified_as_of,
            "addsUp": result.adds_up,
        },
        tables=[
            Table("classes", ("class", "entries", "left", "for example"), lines),
            *([_ahead(acceptance)] if acceptance else []),
        ],
        said=[*([words] if result.clean else []), *filter(None, said)],
        left="" if result.clean else words,
        pending=pending and not result.clean,
        counts=result.numbers,
        changed=whole,
    )


def _in_words(result: ReconcileResult) -> str:
    found = ", ".join(f"{number} {kind.value}" for kind, number in result.counts.items() if number)
    found = found or f"{result.totals['matched']} entries agree"
    if result.verified_as_of:
        found = f"{found}, verified as of {result.verified_as_of}"
    if result.repair is None:
        return found
    outcome = "repaired" if result.clean else result.repair.advice
    return f"{found}; {outcome}" if outcome and any(result.counts.values()) else found


def _ahead(found: AcceptanceReport) -> Table:
    lines = [(each.key.document_id, _order(each.source), _order(each.replica)) for each in found.entries]
    return Table.first("ahead", ("entry", "source", "replica"), lines, found.found)


def _order(order: Order) -> str:
    return f"v{order.version}, created {order.created_at or '–'}, updated {order.updated_at or '–'}"


def _queued(
    call: Call, given: Continued, *, since: str = "", segments: int | None = None, only_resume: bool = False
) -> Report:
    report = start_backfill(
        call.runtime,
        Backfill(
            campaign_id=given.campaign(call),
            rate=given.rate,
            segments=segments,
            since=since,
            backfill_id=given.named,
            dry_run=not call.apply,
            only_resume=only_resume,
        ),
        stop=call.stop,
        on_progress=partial(call.face.progress, unit="keys"),
    )
    document = report.as_dict()
    return Report(
        document=document,
        facts={name: value for name, value in document.items() if name != "advice"},
        said=[report.advice],
        pending=not report.finished,
        counts={"ended": report.ended, "sent": report.sent_now},
    )
