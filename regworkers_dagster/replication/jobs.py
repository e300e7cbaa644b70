"""The jobs of replication: its two drains, the nightly reconcile, and the backfill."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import time

import dagster as dg
from pydantic import Field

from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.backfill import BackfillProgress, BackfillReport, start_backfill
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_dagster.factories import ApplyConfig, asset_job, one_op_job, schedule
from regworkers_dagster.replication.assets import (
    LAG_WITHIN_OBJECTIVE,
    REPLICATION_QUEUE,
    enqueue_entries,
    save_entries,
)
from regworkers_dagster.replication.checks import parity
from regworkers_dagster.resources import Workers
from regworkers_dagster.runs import DRAIN_TAG, OPERATION_TAG, launched_by_hand

_REPORT_SECONDS = 30.0

ENQUEUE_ENTRIES = asset_job(
    "enqueue_entries",
    dg.AssetSelection.assets(enqueue_entries),
    tags={DRAIN_TAG: ENQUEUE.name},
    description="Drain of the demand table's stream into the replication queue. Ends when idle; a terminated run "
    "finishes what is in flight.",
)
SAVE_ENTRIES = asset_job(
    "save_entries",
    # Without `parity`, which takes minutes: as a step of every drain it would hold up the next one.
    dg.AssetSelection.assets(save_entries).without_checks()
    | dg.AssetSelection.checks(LAG_WITHIN_OBJECTIVE.key),
    tags={DRAIN_TAG: SAVE.name},
    description="Drain of the replication queue into the replica. Ends when idle; a terminated run finishes what is in "
    "flight.",
)
RECONCILE_ENTRIES = asset_job(
    "reconcile_entries",
    dg.AssetSelection.checks(parity),
    tags={OPERATION_TAG: "reconcile"},
    description="Compares demand table and replica with all content. Differences fail the check `parity` of `entries` "
    "and then the run, and with it the exit code of `dagster job execute`. Set `apply` to repair what differs.",
)
SCHEDULES = (
    schedule(
        "reconcile_nightly",
        RECONCILE_ENTRIES,
        "10 2 * * *",
        "Compares both sides every night and repairs nothing.",
    ),
)


class BackfillConfig(ApplyConfig):
    """What to queue, and how fast."""

    campaign_id: str | None = Field(default=None, description="Only this campaign; empty: the whole table.")
    rate: float | None = Field(
        default=None, gt=0, description="Items a second; empty: replication.backfillItemsPerSecond."
    )
    backfill_id: str | None = Field(
        default=None,
        description="The position is kept under this id; empty: the campaign's, or `all`. A run with the id of an "
        "unfinished one resumes at its position.",
    )
    apply: bool = Field(
        default=False, description="Queue the keys. Without, the run counts what would be queued."
    )


@one_op_job(
    "backfill_entries",
    step="backfill",
    does="Queues the key of every entry under a rate limit; can be resumed.",
    tags={OPERATION_TAG: "backfill"},
    description="Queues the key of every entry of the table, or of one campaign, under a rate limit; the save drain "
    "does the rest, and cannot overwrite newer changes. Rebuilds an emptied replica. Counts only, unless `apply` is "
    "true.",
)
def backfill_entries(context: dg.OpExecutionContext, config: BackfillConfig, workers: Workers) -> None:
    """A terminated run keeps its position."""
    reported_at = time.monotonic()

    def report_progress(progress: BackfillProgress) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= _REPORT_SECONDS:
            reported_at = time.monotonic()
            expected = "" if progress.estimate is None else f" of about {progress.estimate}"
            context.log.info(f"{progress.sent}{expected} keys queued")

    runtime, dry_run = workers.runtime, not config.apply
    target = config.backfill_id or config.campaign_id or "all campaigns"
    with (
        StopSignal().on_signals() as stop,
        launched_by_hand(
            context.run, runtime, "backfill_entries", target, {"rate": config.rate}, dry_run=dry_run
        ) as result,
    ):
        report = start_backfill(
            runtime,
            config.campaign_id,
            rate=config.rate,
            backfill_id=config.backfill_id,
            dry_run=dry_run,
            stop=stop,
            on_progress=report_progress,
        )
        result |= {"ended": report.ended, "sent": report.sent_now}
    context.log.info(f"{report.ended}: {report.sent} keys; {report.advice}")
    context.add_output_metadata(_metadata(report))
    if report.sent_now:
        context.log_event(dg.AssetObservation(REPLICATION_QUEUE.key, metadata=_metadata(report)))


def _metadata(report: BackfillReport) -> dict[str, str | int | float]:
    return {
        "backfill_id": report.backfill_id,
        "backfill_ended": report.ended,
        "backfill_sent": report.sent,
        "backfill_sent_now": report.sent_now,
        "backfill_segments": report.segments,
        "backfill_segments_finished": report.segments_finished,
        "backfill_seconds": round(report.seconds, 3),
    }
