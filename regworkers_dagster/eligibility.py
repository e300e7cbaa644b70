"""Invites: their asset in the graph, and the jobs that upload a list from S3 and remove the invites of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.keys import quoted
from regworkers_core.domain.reasons import UsageError
from regworkers_dagster.by_hand import UPLOAD, CampaignConfig, Launch, LaunchOutcome, launchable, require
from regworkers_dagster.factories import APPLY, ApplyConfig
from regworkers_dagster.resources import CHANGES_CAMPAIGNS
from regworkers_dagster.selection.specs import CAMPAIGN_PARTITIONS, CAMPAIGNS, ELIGIBILITY

if TYPE_CHECKING:
    from regworkers_core.eligibility.invites.lists import Hooks, ListReport

INVITES = ELIGIBILITY.asset(
    "invites",
    "Invites to a campaign by mail address, globalUserId or memberId, with their end: items of the demand table, which "
    "DynamoDB deletes some days after their end. Uploaded by `upload_invites` or `regworkers invites upload`, removed "
    "by `remove_invites`.",
    {"dynamodb"},
    deps=[CAMPAIGNS],
    partitions_def=CAMPAIGN_PARTITIONS,
)


_TYPE = "The list's column: email, globalUserId or memberId."


class UploadConfig(CampaignConfig):
    """Which list, for which campaign, until when."""

    type: str = Field(default="email", description=_TYPE)
    key: str = Field(
        default="",
        description="The list, CSV in UTF-8: the name that the upload form answers with (`uploads/...`), or a key "
        "below `invites.prefix` (`invites/...`) in the bucket of artefacts. Never type an address here.",
    )
    ttl: str = Field(
        default="",
        description="When the invites end: days (30), a date (2026-12-31), a time (2026-12-31T18:00:00Z) or epoch "
        "seconds. Empty: after invites.ttlDays (30) days. An invite that ends before the draw excludes the entry that "
        "used it.",
    )
    until_close: bool = Field(
        default=False,
        description="Without ttl: at least until invites.afterCloseDays (14) days after the campaign closes.",
    )
    dry_run: bool = Field(default=False, description="Check and count only.")
    force: bool = Field(default=False, description="Also for a campaign that does not exist yet.")
    shorten: bool = Field(default=False, description="Also shorten invites that end later than ttl.")


class RemoveConfig(ApplyConfig, CampaignConfig):
    type: str = Field(default="email", description=_TYPE)
    upload: str = Field(
        default="", description="The list, as for `upload_invites`. Never type an address here. " + UPLOAD
    )
    apply: bool = Field(default=False, description=APPLY)


@launchable(
    "upload_invites",
    uses=CHANGES_CAMPAIGNS,
    long=True,
    resumed=True,
    description="Invites the people in a list on S3 to a campaign. The same list may be uploaded again: existing "
    "invites stay, and none is shortened. Rejected lines are listed in `<key>.rejects.csv` beside it (also a link in "
    "the metadata), and fail the run after all others are invited. "
    'Config: {"campaign_id": "...", "type": "email", "key": "invites/spring.csv", "ttl": "30"}; also '
    "`until_close`, `dry_run`, `force`, `shorten`.",
)
def upload_invites(launch: Launch, config: UploadConfig) -> LaunchOutcome:
    """Reads the list as a stream. A terminated run finishes what is in flight and fails; launch it again to
    continue.
    """
    from regworkers_core.eligibility.invites.terms import parse_ttl
    from regworkers_core.eligibility.invites.writing import upload_object

    runtime = launch.runtime
    campaign = require("campaign_id", config.campaign_id)
    report, rejects = upload_object(
        runtime,
        campaign,
        _type(config.type),
        require("key", config.key),
        ttl=parse_ttl(config.ttl, runtime.clock()) if config.ttl else None,
        run_id=launch.run_id,
        dry_run=config.dry_run,
        force=config.force,
        shorten=config.shorten,
        until_close=config.until_close and not config.ttl,
        hooks=_hooks(launch),
    )
    where = f"s3://{runtime.objects.bucket}/{rejects}"
    link = None
    if report.rejected:
        link = launch.hand_out("rejects.csv", runtime.objects.get_bytes(rejects))
    if report.advice is not None:
        launch.context.log.warning(report.advice)
    facts = {
        **_facts(launch, report),
        "rejects": where if report.rejected else None,
        "rejected_lines": link,
    }
    return LaunchOutcome(
        report.campaign_id,
        facts,
        INVITES,
        changed=not report.dry_run,
        failure=_what_is_left(report, f"`rejected_lines` or {where}", "invited"),
    )


@launchable(
    "remove_invites",
    long=True,
    description="Removes invites by an uploaded list. An entry that used one is kept, and the draw judges it again. "
    "Counts only, unless `apply` is true.",
)
def remove_invites(launch: Launch, config: RemoveConfig) -> LaunchOutcome:
    """Can be repeated at any time."""
    from regworkers_core.eligibility.invites.lists import local_file, read_rows
    from regworkers_core.eligibility.invites.writing import remove_invites as remove

    type_, campaign_id = _type(config.type), launch.campaign_id(config.campaign_id)
    with launch.uploaded(config.upload) as path:
        report = remove(
            launch.runtime,
            campaign_id,
            type_,
            read_rows(local_file(path), path.name, type_),
            rejects=path.with_name("rejects.csv"),
            run_id=launch.run_id,
            dry_run=not config.apply,
            hooks=_hooks(launch),
        )
        rejects = launch.hand_out("rejects.csv", report.rejects_file) if report.rejects_file else None
    facts = {**_facts(launch, report), "rejected_lines": rejects}
    failure = _what_is_left(report, "`rejected_lines`", "removed")
    return LaunchOutcome(campaign_id, facts, INVITES, changed=config.apply, failure=failure)


def _hooks(launch: Launch) -> Hooks:
    from regworkers_core.eligibility.invites.lists import Hooks

    show = launch.progress()
    return Hooks(stop=launch.stop, on_progress=lambda report: show(f"{report.lines} lines"))


def _what_is_left(report: ListReport, rejects: str, done: str) -> str:
    if report.clean:
        return ""
    if report.stopped:
        return f"stopped after {report.lines} lines: launch it again to continue"
    others = "would be" if report.dry_run else "are"
    rejected = f"{report.rejected.total()} of {report.lines} lines are rejected, see {rejects}"
    return f"{rejected}; all others {others} {done}"


def _type(text: str) -> InviteType:
    try:
        return InviteType(text)
    except ValueError:
        known = ", ".join(each.value for each in InviteType)
        raise UsageError(f"type should be one of {known}, found {quoted(text)}") from None


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
