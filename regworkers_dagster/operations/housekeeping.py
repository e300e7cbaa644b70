"""`housekeeping`: what the core keeps and when each of it goes; by hand from the launchpad, and every week."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import dagster as dg
from pydantic import Field

from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.retention.apply import keep_house
from regworkers_dagster.operations.audit import launched_by_hand
from regworkers_dagster.resources import Workers, plain_failures
from regworkers_dagster.tags import OPERATION_TAG, long_run


class HousekeepingConfig(dg.Config):
    """The launchpad's defaults only count; the schedule deletes."""

    dry_run: bool = Field(default=True, description="Only count, delete nothing.")


@dg.op(name="tidy", description="Deletes what is older than the settings under `housekeeping` say.")
def tidy_op(context: dg.OpExecutionContext, config: HousekeepingConfig, workers: Workers) -> None:
    """Fails when somebody did not answer; what could be tidied is tidied then, too."""
    with plain_failures(), StopSignal().on_signals() as stop:
        runtime = workers.runtime
        with launched_by_hand(
            context.run, runtime, "housekeeping", runtime.settings.environment, dry_run=config.dry_run
        ) as result:
            done = keep_house(runtime, dry_run=config.dry_run, stop=stop, tell=context.log.info)
            result |= {part.name: part.deleted for part in done.parts if part.deleted}
    lines = [
        "| what | kept, days | older | deleted | before | after | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for part in done.parts:
        numbers = (part.before.number if part.before else "–", part.after.number if part.after else "–")
        days = "for ever" if part.older_than_days is None else f"{part.older_than_days:g}"
        said = part.trouble or part.note
        lines.append(
            f"| {part.name} | {days} | {part.over:,} | {part.deleted:,} | {numbers[0]} | {numbers[1]} | {said} |"
        )
    context.add_output_metadata(
        {
            "overview": dg.MetadataValue.md("\n".join(lines)),
            "deleted": done.deleted,
            "dry_run": done.dry_run,
            "parts": dg.MetadataValue.json([part.as_dict() for part in done.parts]),
        }
    )
    if not done.fine:
        why = "; ".join(f"{part.name}: {part.trouble}" for part in done.parts if part.trouble)
        raise dg.Failure(description=f"not everything was tidied: {why}")


@dg.job(
    tags={OPERATION_TAG: "housekeeping", **long_run()},
    executor_def=dg.in_process_executor,
    description="Deletes what is left of campaigns whose draw is over, closed alerts and dead letters, old actions, "
    "minutes of drains, reviews, databases of drills "
    "that died and, where the settings say so, days of the archive. Defaults only count: set dry_run to false to "
    "delete. Runs of Dagster are pruned by prune_runs.",
)
def housekeeping() -> None:
    """One op."""
    tidy_op()


def build_schedules(*, on: bool) -> list[dg.ScheduleDefinition]:
    """`on` makes them run without being switched on in the UI."""
    return [
        dg.ScheduleDefinition(
            name="housekeeping_weekly",
            job=housekeeping,
            cron_schedule="0 4 * * 0",
            execution_timezone="UTC",
            run_config={"ops": {"tidy": {"config": {"dry_run": False}}}},
            default_status=dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED,
            description="Deletes every Sunday what is older than the settings under `housekeeping` say.",
        )
    ]
