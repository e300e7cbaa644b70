"""The erasure of a fan's entry, by ids alone: what else is needed is found in the stores."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import csv
import io

import dagster as dg
from pydantic import Field

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import RequestError
from regworkers_core.operations.erasure.erase import erase
from regworkers_dagster.operations.by_hand import Launch, Outcome, launchable, require, table


class ErasureConfig(dg.Config):
    """Which entry."""

    campaignId: str = Field(default="", description="The campaign, by id.")
    entryId: str = Field(
        default="",
        description="The id of the entry in the campaign. Never a mail address or a name: config is kept with the run.",
    )
    confirm: str = Field(
        default="",
        description="The entry's id once more: erases it, for good. Empty: only show what that would be.",
    )


@launchable(
    "erase_entry",
    previews=True,
    # It looks through all dead letters.
    long=True,
    description="Erases one fan's entry: out of the demand table, the replica with its former versions, invites, "
    "claims and dead letters; its messages are not sent. Shows what that would be, and what stays until when and why, "
    "unless `confirm` is the entry's id. Codes that their issuer has to block are a link in the metadata.",
)
def erase_entry(launch: Launch, config: ErasureConfig) -> Outcome:
    """Fails when something is left to do; launched again, it goes on."""
    key = EntryKey(require("campaignId", config.campaignId), require("entryId", config.entryId))
    if problem := key.problem:
        raise RequestError(f"campaignId and entryId name no entry: {problem}")
    confirm = config.confirm.strip()
    if confirm and confirm != key.entry_id:
        raise RequestError("confirm is not the entry's id: nothing was erased")
    report = erase(launch.runtime, key, dry_run=not confirm, on_phase=launch.tell)
    launch.result.update(report.numbers, finished=report.finished)
    for note in report.notes:
        launch.context.log.warning(note)
    if not report.known:
        return Outcome("", {}, failure="neither store knows this entry: check the ids")
    lines = io.StringIO()
    csv.writer(lines).writerows(
        [("code", "marketId", "position", "status"), *(each.as_dict().values() for each in report.codes)]
    )
    columns = ("where", "what", "until", "why", "number")
    facts = {
        "dryRun": report.dry_run,
        "erasedAt": report.erased_at or None,
        **report.numbers,
        "codesForTheIssuer": len(report.codes),
        "codes": launch.hand_out("codes.csv", lines.getvalue().encode()) if report.codes else None,
        "stays": table(columns, [list(each.as_dict().values()) for each in report.stays]),
    }
    return Outcome(key.campaign_id, facts, failure=report.advice)
