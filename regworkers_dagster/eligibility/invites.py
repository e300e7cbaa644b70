"""Invites: where they lie in the graph, and the upload of a list that lies on S3."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import time
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.reasons import UsageError
from regworkers_core.eligibility.invites.object_list import upload_object
from regworkers_core.eligibility.invites.ttl import parse_ttl
from regworkers_core.eligibility.invites.working import Hooks, ListReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.runtime import Runtime
from regworkers_dagster.operations.audit import launched_by_hand
from regworkers_dagster.resources import Workers, plain_failures
from regworkers_dagster.selection.specs import CAMPAIGNS
from regworkers_dagster.tags import long_run

_TELL_SECONDS = 30.0
# A worker that dies is followed by another, which finds done what is done. A list that is wrong stays wrong.
_RESUMED = {"dagster/max_retries": "3", "dagster/retry_on_asset_or_op_failure": "false"}

INVITES = dg.AssetSpec(
    "invites",
    deps=[CAMPAIGNS],
    description="Who is invited to which campaign by mail address, globalUserId or memberId, and until when: items of "
    "the demand table, which DynamoDB takes away some days after their end. Uploaded by `upload_invites` or "
    "`regworkers invites upload`.",
    kinds={"dynamodb"},
    group_name="eligibility",
    owners=["team:eligibility"],
    tags={"regworkers/flow": "eligibility"},
)


class UploadConfig(dg.Config):
    """Which list, for whom, until when."""

    campaignId: str = Field(default="", description="The campaign, by id or slug.")
    type: str = Field(default="email", description="The list's column: email, globalUserId or memberId.")
    key: str = Field(
        default="",
        description="The list: a key in the bucket of artefacts, or s3://bucket/key. CSV in UTF-8.",
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


@dg.op(
    name="invite",
    out=dg.Out(dg.Nothing),
    description="Reads the list as a stream and invites everybody in it.",
)
def upload_op(
    context: dg.OpExecutionContext, config: UploadConfig, workers: Workers
) -> Iterator[dg.AssetMaterialization | dg.Output[None]]:
    """Fails when lines were rejected, after everybody else was invited, and when it was terminated, after what was
    in flight is done: the exit code tells.
    """
    bind(runId=context.run_id, worker="upload_invites", campaignId=config.campaignId)
    told_at = time.monotonic()

    def tell(report: ListReport) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_SECONDS:
            told_at = time.monotonic()
            context.log.info(f"{report.lines} lines")

    with plain_failures(), StopSignal().on_signals() as stop:
        runtime = workers.runtime
        for name in ("campaignId", "key"):
            if not getattr(config, name).strip():
                raise UsageError(f"{name} is missing in the config: the job's description shows one")
        arguments = {"type": config.type, "key": config.key, "ttl": config.ttl, "shorten": config.shorten}
        with launched_by_hand(
            context.run, runtime, "upload_invites", config.campaignId, arguments, dry_run=config.dryRun
        ) as result:
            report, rejects = upload_object(
                runtime,
                config.campaignId,
                _type(config.type),
                config.key,
                ttl=_until(runtime, config.ttl),
                run_id=context.run_id,
                dry_run=config.dryRun,
                force=config.force,
                shorten=config.shorten,
                hooks=Hooks(stop=stop, on_progress=tell),
            )
            result |= {"lines": report.lines, **report.outcomes, "rejected": report.rejected.total()}
    metadata = _metadata(report, rejects)
    context.log.info(", ".join(f"{name} {value}" for name, value in metadata.items()))
    if report.advice is not None:
        context.log.warning(report.advice)
    if not report.dry_run:
        # Yielded, for what an op only logs is lost when it fails.
        yield dg.AssetMaterialization(INVITES.key, metadata=metadata)
    if not report.clean:
        raise dg.Failure(description=_what_is_left(report, rejects), metadata=metadata, allow_retries=False)
    yield dg.Output(None, metadata=metadata)


def _what_is_left(report: ListReport, rejects: str) -> str:
    if report.stopped:
        return f"stopped after {report.lines} lines: launch it again, it goes on"
    others = "would be" if report.dry_run else "is"
    rejected = report.rejected.total()
    return f"{rejected} of {report.lines} lines are rejected, see {rejects}; everybody else {others} invited"


def _type(text: str) -> InviteType:
    try:
        return InviteType(text)
    except ValueError:
        known = ", ".join(each.value for each in InviteType)
        raise UsageError(f"type {text!r} is none of {known}") from None


def _until(runtime: Runtime, ttl: str) -> int | None:
    return parse_ttl(ttl, runtime.clock()) if ttl else None


def _metadata(report: ListReport, rejects: str) -> dict[str, str | int | bool]:
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
    return {**{name: document[name] for name in (*kept, "validUntil")}, "rejects": rejects}


@dg.config_mapping
def upload_mapping(val: UploadConfig) -> dg.RunConfig:
    """The op's config is the job's: nothing around it."""
    return dg.RunConfig(ops={"invite": val})


@dg.job(
    config=upload_mapping,
    tags={**_RESUMED, **long_run()},
    executor_def=dg.in_process_executor,
    description="Invites everybody in a list on S3 to a campaign. The same list may be given again: what is "
    "done is found done, and no invite is shortened. Rejected lines are listed in `<key>.rejects.csv` beside it, and "
    "fail the run after all others are invited. "
    'Config: {"campaignId": "...", "type": "email", "key": "invites/spring.csv", "ttl": "30"}; also `dryRun`, `force`, '
    "`shorten`.",
)
def upload_invites() -> None:
    """One op."""
    upload_op()
