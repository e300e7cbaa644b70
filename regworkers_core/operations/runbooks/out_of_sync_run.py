"""Replication out of sync: compare, repair, compare again."""

from __future__ import annotations

from regworkers_core.operations.runbooks import out_of_sync
from regworkers_core.operations.runbooks.out_of_sync import Compared
from regworkers_core.operations.runbooks.runbook_report import RunbookReport
from regworkers_core.operations.runbooks.saving import saving
from regworkers_core.operations.runbooks.unread import Tell, silent
from regworkers_core.replication.reconcile import Kind, ReconcileResult, reconcile
from regworkers_core.runtime import Runtime


def mend_out_of_sync(
    runtime: Runtime,
    campaign_id: str | None = None,
    *,
    apply: bool = False,
    yes_remove: int | None = None,
    tell: Tell = silent,
) -> RunbookReport:
    """Compare; with `apply` repair what differs, with a save drain of this process beside those that run, and compare
    again. Raises TransientFailure when a side cannot answer, UsageError for a campaign that nobody knows.
    """
    first = reconcile(runtime, campaign_id, on_phase=tell)
    before = _compared(first)
    if not apply or first.clean:
        return out_of_sync.judged(campaign_id, before)
    with saving(runtime):
        repaired = reconcile(runtime, campaign_id, repair=True, yes_remove=yes_remove, on_phase=tell)
    advice, said = "", ""
    if repaired.repair is not None:
        advice, said = repaired.repair.advice, repaired.repair.in_words
    tell("comparing again")
    after = _compared(reconcile(runtime, campaign_id, on_phase=tell), advice)
    return out_of_sync.judged(campaign_id, before, said, after)


def _compared(result: ReconcileResult, advice: str = "") -> Compared:
    return Compared(
        clean=result.clean,
        source=int(result.totals["source"]),
        replica=int(result.totals["replica"]),
        differences={
            kind.value: number
            for kind, number in result.counts.items()
            if number and kind is not Kind.NOT_YET
        },
        seconds=result.seconds,
        meanings={kind.value: text for kind, text in result.explanations.items()},
        samples={kind.value: tuple(ids) for kind, ids in result.samples.items()},
        advice=advice,
    )
