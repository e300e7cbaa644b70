"""What is deleted: by age with the job `housekeeping`, every week; one fan's entry with the job `erase_entry`."""

import csv
import io

import dagster as dg
from pydantic import Field

from fairdraw.documents import as_document
from regworkers_core.domain.reasons import RequestError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operation import CAMPAIGN
from regworkers_core.runtime import Runtime
from regworkers_dagster.by_hand import Launch, LaunchOutcome, launchable
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


class ErasureConfig(ApplyConfig):
    campaign_id: str = Field(default="", description=CAMPAIGN)
    entry_id: str = Field(
        default="",
        description="The id of the entry in the campaign. Never a mail address or a name: config is kept with the run.",
    )
    apply: bool = Field(
        default=False, description="Erase it, for good. Without, the run shows what that would be."
    )
    confirm: str = Field(default="", description="With `apply`: the entry's id once more.")


@launchable(
    "erase_entry",
    # It reads all dead letters.
    long=True,
    description="Erases one fan's entry: from the demand table, the replica with its former versions, invites, claims "
    "and dead letters; its messages are not sent. Shows what that would be, and what is kept until when and why, "
    "unless `apply` is true and `confirm` is the entry's id. Codes that their issuer has to block are a link in the "
    "metadata.",
)
def erase_entry(launch: Launch, config: ErasureConfig) -> LaunchOutcome:
    """Fails when something is left to do; launch it again to continue."""
    from regworkers_core.operations.erasure.erase import erase

    key = launch.entry_key(config.campaign_id, config.entry_id)
    confirm = config.confirm.strip()
    if confirm and not config.apply:
        raise RequestError("nothing was erased: confirm goes with apply: true")
    if config.apply and confirm != key.entry_id:
        raise RequestError("nothing was erased: confirm is not the entry's id")
    report = erase(launch.runtime, key, dry_run=not config.apply, on_phase=launch.tell)
    launch.result.update(report.numbers, finished=report.finished)
    for note in report.notes:
        launch.context.log.warning(note)
    if not report.known:
        return LaunchOutcome("", {}, failure="neither store knows this entry: check the ids")
    lines = io.StringIO()
    csv.writer(lines).writerows(
        [("code", "marketId", "position", "status"), *(as_document(each).values() for each in report.codes)]
    )
    columns = ("where", "what", "until", "why", "number")
    facts = {
        "dryRun": report.dry_run,
        "erasedAt": report.erased_at or None,
        **report.numbers,
        "codesForTheIssuer": len(report.codes),
        "codes": launch.hand_out("codes.csv", lines.getvalue().encode()) if report.codes else None,
        "stays": table(columns, [list(as_document(each).values()) for each in report.stays]),
    }
    return LaunchOutcome(key.campaign_id, facts, failure=report.advice)
