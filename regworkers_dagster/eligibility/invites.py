"""Invites: where they lie in the graph; the upload of a list that lies on S3, and taking invites back by one."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.reasons import UsageError
from regworkers_core.eligibility.invites.lists import Hooks, ListReport, local_file, read_rows
from regworkers_core.eligibility.invites.terms import parse_ttl
from regworkers_core.eligibility.invites.writing import remove_invites as remove
from regworkers_core.eligibility.invites.writing import upload_object
from regworkers_dagster.operations.by_hand import DRY_RUN, UPLOAD, Launch, Outcome, launchable, require
from regworkers_dagster.selection.specs import CAMPAIGN_PARTITIONS, CAMPAIGNS

INVITES = dg.AssetSpec(
    "invites",
    deps=[CAMPAIGNS],
    partitions_def=CAMPAIGN_PARTITIONS,
    description="Who is invited to which campaign by mail address, globalUserId or memberId, and until when: items of "
    "the demand table, which DynamoDB takes away some days after their end. Uploaded by `upload_invites` or "
    "`regworkers invites upload`, taken back by `remove_invites`.",
    kinds={"dynamodb"},
    group_name="eligibility",
    owners=["team:eligibility"],
    tags={"regworkers/flow": "eligibility"},
)


_CAMPAIGN = "The campaign, by id or slug."
_TYPE = "The list's column: email, globalUserId or memberId."


class UploadConfig(dg.Config):
    """Which list, for whom, until when."""

    campaignId: str = Field(default="", description=_CAMPAIGN)
    type: str = Field(default="email", description=_TYPE)
    key: str = Field(
        default="",
        description="The list, CSV in UTF-8: the name that the upload form answers with (`uploads/...`), another key "
        "in the bucket of artefacts, or s3://bucket/key. Never type an address here.",
    )
    ttl: str = Field(
        default="",
        description="Until when: days (30), a date (2026-12-31), a time (2026-12-31T18:00:00Z) or epoch seconds. "
        "Empty: invites.ttlDays (30) days, or until invites.afterCloseDays (14) days after the campaign closes if that "
        "is later. Invites that end before the draw exclude who entered by them.",
    )
    dryRun: bool = Field(default=False, description="Read and count, invite nobody.")
    force: bool = Field(default=False, description="The campaign is yet to be created.")
    shorten: bool = Field(default=False, description="Also where an invite holds longer than ttl.")


class RemoveConfig(dg.Config):
    """Which invites."""

    campaignId: str = Field(default="", description=_CAMPAIGN)
    type: str = Field(default="email", description=_TYPE)
    upload: str = Field(
        default="", description="The list, as for `upload_invites`. Never type an address here. " + UPLOAD
    )
    dryRun: bool = Field(default=True, description=DRY_RUN)


@launchable(
    "upload_invites",
    long=True,
    resumed=True,
    description="Invites everybody in a list on S3 to a campaign. The same list may be given again: what is "
    "done is found done, and no invite is shortened. Rejected lines are listed in `<key>.rejects.csv` beside it (also "
    "a link in the metadata), and fail the run after all others are invited. "
    'Config: {"campaignId": "...", "type": "email", "key": "invites/spring.csv", "ttl": "30"}; also `dryRun`, `force`, '
    "`shorten`.",
)
def upload_invites(launch: Launch, config: UploadConfig) -> Outcome:
    """Reads the list as a stream. Terminated, it ends what is in flight and fails: launched again, it goes on."""
    runtime = launch.runtime
    named = require("campaignId", config.campaignId)
    report, rejects = upload_object(
        runtime,
        named,
        _type(config.type),
        require("key", config.key),
        ttl=parse_ttl(config.ttl, runtime.clock()) if config.ttl else None,
        run_id=launch.run_id,
        dry_run=config.dryRun,
        force=config.force,
        shorten=config.shorten,
        hooks=_hooks(launch),
    )
    ours = f"s3://{runtime.objects.bucket}/"
    link = None
    if report.rejected and rejects.startswith(ours):
        link = launch.hand_out("rejects.csv", runtime.objects.get_bytes(rejects.removeprefix(ours)))
    if report.advice is not None:
        launch.context.log.warning(report.advice)
    facts = {**_facts(launch, report), "rejects": rejects, "rejected_lines": link}
    return Outcome(
        report.campaign_id,
        facts,
        INVITES,
        changed=not report.dry_run,
        failure=_what_is_left(report, f"`rejected_lines` or {rejects}" if link else rejects, "invited"),
    )


@launchable(
    "remove_invites",
    long=True,
    description="Takes invites back by an uploaded list. Who has entered by one keeps the entry; the draw judges "
    "again. Counts only, unless `dryRun` is false.",
)
def remove_invites(launch: Launch, config: RemoveConfig) -> Outcome:
    """A repeat finds done what is done."""
    type_, campaign_id = _type(config.type), launch.campaign_id(config.campaignId)
    with launch.uploaded(config.upload) as path:
        report = remove(
            launch.runtime,
            campaign_id,
            type_,
            read_rows(local_file(path), path.name, type_),
            rejects=path.with_name("rejects.csv"),
            run_id=launch.run_id,
            dry_run=config.dryRun,
            hooks=_hooks(launch),
        )
        rejects = launch.hand_out("rejects.csv", report.rejects_file) if report.rejects_file else None
    facts = {**_facts(launch, report), "rejected_lines": rejects}
    failure = _what_is_left(report, "`rejected_lines`", "removed")
    return Outcome(campaign_id, facts, INVITES, changed=not config.dryRun, failure=failure)


def _hooks(launch: Launch) -> Hooks:
    told = launch.now_and_then()
    return Hooks(stop=launch.stop, on_progress=lambda report: told(f"{report.lines} lines"))


def _what_is_left(report: ListReport, rejects: str, done: str) -> str:
    if report.clean:
        return ""
    if report.stopped:
        return f"stopped after {report.lines} lines: launch it again, it goes on"
    others = "would be" if report.dry_run else "is"
    rejected = f"{report.rejected.total()} of {report.lines} lines are rejected, see {rejects}"
    return f"{rejected}; everybody else {others} {done}"


def _type(text: str) -> InviteType:
    try:
        return InviteType(text)
    except ValueError:
        known = ", ".join(each.value for each in InviteType)
        raise UsageError(f"type {text!r} is none of {known}") from None


def _facts(launch: Launch, report: ListReport) -> dict[str, Any]:
    launch.result.update({"lines": report.lines, **report.outcomes, "rejected": report.rejected.total()})
    document = report.as_dict()
    kept = (
        "campaignId",
        "type",
        "dryRun",
        "lines",
        *report.names,
        "duplicates",
        "blank",
        "invalid",
        "stopped",
    )
    facts = {name: document[name] for name in kept} | {"validUntil": document.get("validUntil")}
    launch.tell(", ".join(f"{name} {value}" for name, value in facts.items()))
    return facts


JOBS = (upload_invites, remove_invites)
