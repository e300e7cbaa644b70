"""`prune_runs`: by hand from the launchpad, and every night."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from regworkers_dagster.operations.audit import launched_by_hand
from regworkers_dagster.operations.pruning import prune
from regworkers_dagster.operations.storage import give_back, storage_size
from regworkers_dagster.resources import Workers, plain_failures
from regworkers_dagster.tags import OPERATION_TAG, short_run


class PruneConfig(dg.Config):
    """The launchpad's defaults only count; the schedule deletes."""

    older_than_days: int | None = Field(
        default=None,
        ge=1,
        description="Age of the runs to delete, in days. Empty: observability.runRetentionDays.",
    )
    dry_run: bool = Field(default=True, description="Only count, delete nothing.")
    batch_runs: int = Field(default=100, ge=1, description="Runs read at a time.")
    max_runs: int = Field(default=5000, ge=1, description="Runs deleted at most; the next night goes on.")


@dg.op(name="prune", description="Deletes old runs with their events and logs, oldest first.")
def prune_op(context: dg.OpExecutionContext, config: PruneConfig, workers: Workers) -> None:
    """Active runs and the latest run of each job stay."""
    with plain_failures():
        runtime = workers.runtime
        days = config.older_than_days or runtime.settings.observability.run_retention_days
        with launched_by_hand(
            context.run, runtime, "prune_runs", f"runs older than {days} days", dry_run=config.dry_run
        ) as result:
            before = storage_size(context.instance)
            pruned = prune(
                context.instance,
                before=datetime.now(UTC) - timedelta(days=days),
                batch_runs=config.batch_runs,
                max_runs=config.max_runs,
                dry_run=config.dry_run,
            )
            result["runs"] = pruned.runs
            refused = give_back(context.instance) if pruned.runs and not pruned.dry_run else []
    after = storage_size(context.instance)
    for line in refused:
        context.log.warning(line)
    done = "would be deleted" if pruned.dry_run else "deleted"
    more = "; more are left for the next time" if pruned.more else ""
    context.log.info(f"{pruned.runs} runs older than {days} days {done}{more}")
    context.add_output_metadata(
        {
            "runs": pruned.runs,
            "dry_run": pruned.dry_run,
            "more": pruned.more,
            "bytes_before": before.total,
            "bytes_after": after.total,
            "bytes_by_database": dg.MetadataValue.json(dict(after.bytes)),
        }
    )


@dg.job(
    tags={OPERATION_TAG: "prune", **short_run()},
    executor_def=dg.in_process_executor,
    description="Deletes ended runs, their events and logs after observability.runRetentionDays, which Dagster "
    "would keep for ever. Never an active run, never the latest run of a job. SQLite then gives back the space. "
    "Defaults only count: set dry_run to false to delete.",
)
def prune_runs() -> None:
    """One op."""
    prune_op()


def build_schedules(*, on: bool) -> list[dg.ScheduleDefinition]:
    """`on` makes them run without being switched on in the UI."""
    return [
        dg.ScheduleDefinition(
            name="prune_runs_nightly",
            job=prune_runs,
            cron_schedule="40 3 * * *",
            execution_timezone="UTC",
            run_config={"ops": {"prune": {"config": {"dry_run": False}}}},
            default_status=dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED,
            description="Deletes what is older than observability.runRetentionDays.",
        )
    ]
