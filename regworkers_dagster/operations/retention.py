"""What is deleted by age, with the job `housekeeping`, every week."""

import dagster as dg
from pydantic import Field

from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_dagster.factories import ApplyConfig, one_op_job, schedule
from regworkers_dagster.metadata import facts_as_metadata, table
from regworkers_dagster.runs import OPERATION_TAG, launched_by_hand, long_run


class HousekeepingConfig(ApplyConfig):
    """Whether to delete. The schedule does."""

    apply: bool = Field(default=False, description="Delete it. Without, the run counts only.")


@one_op_job(
    "housekeeping",
    step="apply_retention",
    tags={OPERATION_TAG: "housekeeping", **long_run()},
    description="Deletes data of campaigns whose draw is over, closed alerts and dead letters, old actions, counters "
    "of drains, reviews, databases left by drills and, if the settings say so, days of the archive. Counts only, "
    "unless `apply` is true. `prune_runs` deletes runs of Dagster.",
)
def housekeeping(context: dg.OpExecutionContext, config: HousekeepingConfig, runtime: Runtime) -> None:
    """Deletes what is older than the settings under `housekeeping` say."""
    from regworkers_core.operations.retention import all_parts, apply_retention

    dry_run = not config.apply
    with (
        StopSignal().on_signals() as stop,
        launched_by_hand(
            context.run, runtime, "housekeeping", runtime.settings.environment, dry_run=dry_run
        ) as result,
    ):
        parts = all_parts(runtime)
        done = apply_retention(parts, dry_run=dry_run, stop=stop, on_part=context.log.info)
        result |= {part.name: part.deleted for part in done.parts if part.deleted}
    rows = [
        (
            part.name,
            "forever" if part.older_than_days is None else f"{part.older_than_days:g}",
            f"{part.over:,}",
            f"{part.deleted:,}",
            part.before.number if part.before else "–",
            part.after.number if part.after else "–",
            part.trouble or part.note,
        )
        for part in done.parts
    ]
    facts = {
        "overview": table(("what", "kept, days", "older", "deleted", "before", "after", "note"), rows),
        "deleted": done.deleted,
        "dry_run": done.dry_run,
        "parts": [part.as_dict() for part in done.parts],
    }
    context.add_output_metadata(facts_as_metadata(facts))
    if not done.fine:
        why = "; ".join(f"{part.name}: {part.trouble}" for part in done.parts if part.trouble)
        raise dg.Failure(description=f"not everything was deleted: {why}")


SCHEDULES = (
    schedule(
        "housekeeping_weekly",
        housekeeping,
        "0 4 * * 0",
        "Deletes every Sunday what is older than the settings under `housekeeping` say.",
        {"ops": {"apply_retention": {"config": {"apply": True}}}},
    ),
)
