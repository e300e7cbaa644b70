"""Upload, count, check and remove invites. Addresses and ids of fans come in files, or are typed at a terminal: no
config, log or metadata has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from regworkers_core.domain.claim import InviteType
from regworkers_core.domain.keys import quoted
from regworkers_core.domain.reasons import RequestError
from regworkers_core.eligibility.invites.lists import (
    InviteRow,
    Listed,
    ListReport,
    local_file,
    read_rows,
    read_values,
)
from regworkers_core.eligibility.invites.stored import (
    Upload,
    check_invite,
    count_invites,
    remove_invites,
    upload_invites,
    upload_object,
)
from regworkers_core.eligibility.invites.terms import parse_ttl
from regworkers_core.operation import (
    CHANGES_CAMPAIGNS,
    AtTerminal,
    Call,
    Default,
    Effect,
    GivenFile,
    LocalFile,
    OfCampaign,
    Report,
    StoredFile,
    Table,
    TypedIn,
    operation,
)

# Where the operations manual has the list, relative to the working directory.
DEFAULT_FILE = Path("tools/uploadInvites/invites.csv")
_TYPES = ", ".join(InviteType)
_RATE = "At most this many writes a second. Empty: invites.itemsPerSecond."


class _OfType(OfCampaign):
    words: ClassVar[tuple[str, ...]] = ("campaign_id", "type")
    type: str = Field(InviteType.EMAIL.value, description=f"What names the fans: {_TYPES}.")

    @field_validator("type")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in set(InviteType):
            raise ValueError(f"should be one of {_TYPES}, found {quoted(value)}")
        return value


class UploadInvites(_OfType):
    words: ClassVar[tuple[str, ...]] = ("campaign_id", "type", "file", "ttl")
    first: ClassVar[tuple[str, ...]] = ("key",)
    file: LocalFile = Field(
        "",
        description="CSV, UTF-8, with a header that has TYPE as a column. "
        f"Empty: {DEFAULT_FILE} where it exists, after a confirmation.",
    )
    key: StoredFile = Field(
        "",
        description="The list, CSV in UTF-8, with a header that has TYPE as a column. Where no file can be chosen: "
        "the name that the upload form answers with (`uploads/...`), or a key below `invites.prefix` "
        "(`invites/...`) in the bucket of artefacts. Never type an address here.",
    )
    ttl: str = Field(
        "",
        description="When the invites end: days (30), a date (2026-12-31), a time (2026-12-31T18:00:00Z) or epoch "
        "seconds. Empty: after invites.ttlDays (30) days. An invite that ends before the draw excludes the entry that "
        "used it.",
    )
    until_close: bool = Field(
        False,
        description="Without ttl: at least until invites.afterCloseDays (14) days after the campaign closes.",
    )
    dry_run: bool = Field(False, description="Check and count only. Rejected lines are written.")
    force: bool = Field(False, description="Also for a campaign that does not exist yet.")
    shorten: bool = Field(False, description="Also shorten invites that end later than ttl.")
    rate: float | None = Field(None, ge=1, description=_RATE)
    yes: AtTerminal[bool] = Field(False, description="Without a file: take the default without a prompt.")

    def default(self) -> Default | None:
        """A forgotten file must not invite the fans of an older list."""
        if self.file or self.key:
            return None
        if not DEFAULT_FILE.exists():
            raise RequestError(f"name the list of invites: the default {DEFAULT_FILE} does not exist here")
        lines = read_rows(local_file(DEFAULT_FILE), str(DEFAULT_FILE), InviteType(self.type))
        return Default(
            self.model_copy(update={"file": str(DEFAULT_FILE)}),
            f"{DEFAULT_FILE.resolve()} with {sum(isinstance(line, InviteRow) for line in lines)} rows",
            "" if self.yes or self.dry_run else self.campaign_id,
        )


class CountInvites(_OfType):
    type: str = Field("", description=f"Only this one: {_TYPES}.")


class CheckInvite(_OfType):
    words: ClassVar[tuple[str, ...]] = ("campaign_id", "type", "value")
    value: TypedIn = Field(description="The address or id, or - to read it from stdin.")


class RemoveInvites(_OfType):
    words: ClassVar[tuple[str, ...]] = ("campaign_id", "type", "values")
    values: TypedIn = Field([], description="The addresses or ids, or - to read them from stdin.")
    upload: GivenFile = Field("", description="The list, as for an upload. Never type an address here.")
    rate: float | None = Field(None, ge=1, description=_RATE)


@operation(
    "invites upload",
    "upload_invites",
    Effect.ADD,
    size="report",
    role="manager",
    asset="invites",
    uses=CHANGES_CAMPAIGNS,
    long=True,
    resumed=True,
)
def upload(call: Call, given: UploadInvites) -> Report:
    """Invite the fans in a list. Invites are effective at once.

    The same list may be uploaded again at any time, e.g. after an interruption. Invites that are valid longer are left
    unchanged. Rejected lines are listed in `<list>.rejects.csv` beside it. Fails if lines were rejected, after all
    others are invited, and if it was stopped.
    """
    if given.ttl and given.until_close:
        raise RequestError("give a ttl or until-close, not both")
    if given.file and given.key:
        raise RequestError("give a file or a key, not both")
    if not given.file and not given.key:
        raise RequestError("key is missing: its description says what to enter")
    runtime, rejects = call.runtime, _rejects_of(given.file)
    wanted = Upload(
        **_listed(call, given),
        **given.model_dump(include={"dry_run", "force", "shorten", "until_close"}),
        ttl=parse_ttl(given.ttl, runtime.clock()) if given.ttl else None,
    )
    if given.file:
        opened = local_file(Path(given.file))
        report = upload_invites(runtime, wanted, opened, name=given.file, rejects=rejects)
        return _report(call, report, given.file, str(rejects), {})
    report, key = upload_object(runtime, wanted, given.key)
    files = {"rejects.csv": runtime.objects.get_bytes(key)} if report.rejected else {}
    return _report(call, report, None, f"s3://{runtime.objects.bucket}/{key}", files)


@operation("invites count", asset="invites", role="manager")
def count(call: Call, given: CountInvites) -> Report:
    """Count valid invites, and expired ones that DynamoDB still has."""
    types = (InviteType(given.type),) if given.type else tuple(InviteType)
    campaign_id, counts = count_invites(
        call.runtime, given.campaign_id, types, partial(call.face.progress, unit="invites")
    )
    lines = [(each.type, each.valid, each.expired) for each in counts]
    return Report(
        document={
            "campaignId": campaign_id,
            "types": {each.type.value: {"valid": each.valid, "expired": each.expired} for each in counts},
        },
        facts={},
        tables=[Table(f"invites of {campaign_id}", ("type", "valid", "expired"), lines)],
    )


@operation("invites check", role="manager")
def check(call: Call, given: CheckInvite) -> Report:
    """Check whether a fan is invited, and until when.

    Fails if not.
    """
    if len(given.value) != 1:
        raise RequestError(f"expected one {given.type} as a word or on stdin, found {len(given.value)}")
    found = check_invite(call.runtime, given.campaign_id, InviteType(given.type), given.value[0])
    return Report(document=found.as_dict(), left="" if found.invited else "this fan is not invited")


@operation("invites remove", "remove_invites", Effect.DELETE, role="manager", asset="invites", long=True)
def remove(call: Call, given: RemoveInvites) -> Report:
    """Remove invites, by a list. An entry that used one remains, and the draw judges it again.

    It can be repeated at any time. Fails if lines were rejected.
    """
    if bool(given.values) == bool(given.upload):
        raise RequestError("name the invites to remove, or a list of them with --file (`upload` of the job)")
    type_ = InviteType(given.type)
    path = call.face.open(given.upload) if given.upload else Path("removed-invites.csv")
    report = remove_invites(
        call.runtime,
        Listed(**_listed(call, given), dry_run=not call.apply),
        read_rows(local_file(path), path.name, type_) if given.upload else read_values(given.values, type_),
        rejects=_rejects_of(path),
    )
    number = report.outcomes["removed"]
    if report.dry_run:
        report.advice = f"nothing was removed: {number} invites would be"
    files = {report.rejects_file.name: report.rejects_file} if report.rejects_file else {}
    return _report(call, report, given.upload or None, _rejects_of(path).name, files, removable=number)


def _listed(call: Call, given: UploadInvites | RemoveInvites) -> dict[str, Any]:
    return {
        "campaign": given.campaign_id,
        "type": InviteType(given.type),
        "run_id": call.run_id,
        "rate": given.rate,
        "stop": call.stop,
        "on_progress": call.face.progress,
    }


def _rejects_of(file: Path | str) -> Path:
    return Path(f"{file}.rejects.csv")


def _report(
    call: Call,
    report: ListReport,
    file: str | None,
    rejects: str,
    files: Mapping[str, Path | bytes],
    removable: int = 0,
) -> Report:
    """`rejects` is where the rejected lines are."""
    call.face.found(report.campaign_id)
    document = {"file": file, **report.as_dict()}
    shown = {name: value for name, value in document.items() if value not in (None, {})}
    if report.dry_run and "removed" in shown:
        shown = {"would remove" if name == "removed" else name: shown[name] for name in shown}
    left, rejected = "", report.rejected.total()
    if report.stopped:
        left = f"stopped after {report.lines} lines: repeat it to continue"
    elif rejected:
        done = "removed" if "removed" in document else "invited"
        others = "would be" if report.dry_run else "are"
        left = (
            f"{rejected:,} of {report.lines:,} lines are rejected, see {rejects}; all others {others} {done}"
        )
    return Report(
        document=document,
        facts={name: value for name, value in shown.items() if name not in ("advice", "file", "rejectsFile")},
        said=[report.advice] if report.advice else [],
        files=files,
        left=left,
        counts={"lines": report.lines, **report.outcomes, "rejected": rejected},
        word=report.campaign_id if removable else "",
        question=f"{removable} invites of {report.campaign_id} will be removed",
        changed=not report.dry_run,
    )
