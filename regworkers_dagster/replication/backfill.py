"""The backfill as an op: it queues keys, the save drain does the rest."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import time

import dagster as dg
from pydantic import Field

from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.replication.backfill import BackfillProgress, BackfillReport, start_backfill
from regworkers_dagster.operations.audit import launched_by_hand
from regworkers_dagster.replication.specs import REPLICATION_QUEUE
from regworkers_dagster.resources import Workers, plain_failures

_TELL_SECONDS = 30.0


class BackfillConfig(dg.Config):
    """What to queue, and how fast."""

    campaign_id: str | None = Field(default=None, description="Only this campaign; empty: the whole table.")
    rate: float | None = Field(
        default=None, gt=0, description="Items a second; empty: replication.backfillItemsPerSecond."
    )
    backfill_id: str | None = Field(
        default=None,
        description="Under this id the position is kept; empty: the campaign's, or `all`. A run with the id of "
        "one that did not finish goes on where that one stopped.",
    )
    dry_run: bool = Field(default=False, description="Count what would be queued and queue nothing.")


@dg.op(name="backfill", description="Queues the key of every entry under a rate limit; can be resumed.")
def backfill_op(context: dg.OpExecutionContext, config: BackfillConfig, workers: Workers) -> None:
    """A terminated run keeps its position."""
    bind(runId=context.run_id, worker="backfill")
    told_at = time.monotonic()

    def tell(progress: BackfillProgress) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_SECONDS:
            told_at = time.monotonic()
            expected = "" if progress.estimate is None else f" of about {progress.estimate}"
            context.log.info(f"{progress.sent}{expected} keys queued")

    target = config.backfill_id or config.campaign_id or "all campaigns"
    with plain_failures(), StopSignal().on_signals() as stop:
        runtime = workers.runtime
        with launched_by_hand(
            context.run, runtime, "backfill_entries", target, {"rate": config.rate}, dry_run=config.dry_run
        ) as result:
            report = start_backfill(
                runtime,
                config.campaign_id,
                rate=config.rate,
                backfill_id=config.backfill_id,
                dry_run=config.dry_run,
                stop=stop,
                on_progress=tell,
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
