"""The invites in the demand table: lists are uploaded to it and removed from it, and its invites are counted and looked
up by consistent reads.

An upload reads a batch, then writes the invites that are new or valid longer now; the others are left unchanged, so
that repeating a list costs only reads. BatchWriteItem has no conditions, so the lease ensures that no `ttl` is
shortened. Conditional writes would need no lease, but go one by one, or with PartiQL at half the rate.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fairdraw.documents import as_document
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.files import Reject, masked
from regworkers_core.domain.claim import Invite, InviteType, TableKey, invite_key
from regworkers_core.domain.keys import UPLOAD_NAME, quoted
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.invites.lists import (
    Line,
    Listed,
    ListReport,
    OpenFile,
    Work,
    lease_name,
    one_at_a_time,
    read_rows,
    read_value,
    require_header,
    work_off,
    write_limit,
)
from regworkers_core.eligibility.invites.terms import (
    advice,
    campaign_of_invites,
    campaign_to_invite_to,
    default_ttl,
)
from regworkers_core.engine.leases import Lease, LeaseHolder
from regworkers_core.runtime import Runtime

ADDED, KNOWN, RENEWED, SHORTENED = UPLOAD_OUTCOMES = ("added", "known", "renewed", "shortened")

ExistingInvites = Callable[[Sequence[TableKey]], Mapping[TableKey, int]]


@dataclass(frozen=True, kw_only=True)
class Upload(Listed):
    dry_run: bool = False
    ttl: int | None = None  # in epoch seconds; None: see `default_ttl`
    force: bool = False  # also for a campaign that does not exist
    shorten: bool = False  # also what is valid longer
    until_close: bool = False


def upload_invites(
    runtime: Runtime, upload: Upload, open_it: OpenFile, *, name: str, rejects: Path
) -> ListReport:
    """Invite every value in the list until `ttl`. Lines that cannot be read go to `rejects`, with number and reason.
    `name` is the list's name in errors.

    An invite counts as *added* if there was none, *renewed* if it was valid less long (also if it had expired), and
    *known* if it was valid as long or longer: such an invite is not changed, unless `shorten`.

    Raises UsageError for an unknown campaign without `force`, a list that cannot be read, or another list that runs;
    TransientFailure if a store stays unavailable (upload the list again to continue).
    """
    campaign_id, campaign = campaign_to_invite_to(runtime, upload.campaign, force=upload.force)
    settings, ttl = runtime.settings.invites, upload.ttl
    if ttl is None:
        ttl = default_ttl(campaign, settings, runtime.clock(), until_close=upload.until_close)
    note = advice(campaign, upload.type, ttl, settings)
    report = ListReport(campaign_id, upload.type, upload.dry_run, UPLOAD_OUTCOMES, ttl=ttl, advice=note)
    # Before the wait for a lease.
    require_header(open_it, name, upload.type)
    with one_at_a_time(runtime, report, upload.run_id) as lease:
        existing = _existing_invites(runtime, campaign_id, upload.type, lease)
        limit = write_limit(runtime, upload.rate)
        work = _upload_work(runtime, report, ttl, existing, limit, shorten=upload.shorten)
        lines = read_rows(open_it, name, upload.type)
        work_off(runtime, lines, work, report, upload, rejects=rejects, lease=lease)
    if campaign is not None and not upload.dry_run:
        # The cache may still hold that it does not exist: invites are uploaded right after a campaign is created.
        runtime.campaign_cache.forget(campaign)
    return report


def _existing_invites(
    runtime: Runtime, campaign_id: str, type_: InviteType, lease: Lease | None
) -> ExistingInvites:
    """Return how to look a batch up. Before a campaign's first list there are no invites, or few from an earlier tool:
    if they fit into one page, that page is read instead of every batch.
    """
    if lease is not None:
        is_first = lease.token == 1
    else:
        is_first = runtime.leases.get(LeaseHolder.key_of(lease_name(campaign_id, type_))) is None
    few = runtime.invites.few(campaign_id, type_) if is_first else None
    return runtime.invites.ttls if few is None else lambda _keys: few


def _upload_work(
    runtime: Runtime,
    report: ListReport,
    ttl: int,
    existing: ExistingInvites,
    wait_to_write: Callable[[int], object],
    *,
    shorten: bool,
) -> Work:
    def work(values: Sequence[str]) -> Counter[str]:
        invites = [Invite(report.campaign_id, report.type, value, ttl) for value in values]
        ttls = existing([invite.table_key for invite in invites])
        outcomes = [_outcome(ttls.get(invite.table_key), ttl, shorten=shorten) for invite in invites]
        due = [invite for invite, outcome in zip(invites, outcomes, strict=True) if outcome != KNOWN]
        if due and not report.dry_run:
            wait_to_write(len(due))
            runtime.invites.write(due)
        return Counter(outcomes)

    return work


def _outcome(before: int | None, ttl: int, *, shorten: bool) -> str:
    if before is None:
        return ADDED
    if before < ttl:
        return RENEWED
    return SHORTENED if before > ttl and shorten else KNOWN


REMOVED, ABSENT = REMOVAL_OUTCOMES = ("removed", "absent")


def remove_invites(runtime: Runtime, removal: Listed, lines: Iterator[Line], *, rejects: Path) -> ListReport:
    """Remove the invites of all values in `lines`, expired ones included. Entries that used them remain.

    Raises UsageError for an unknown campaign, a list that cannot be read, or another list that runs; TransientFailure
    if a store stays unavailable (repeat to continue).
    """
    campaign_id = campaign_of_invites(runtime, removal.campaign)
    report = ListReport(campaign_id, removal.type, removal.dry_run, REMOVAL_OUTCOMES)
    with one_at_a_time(runtime, report, removal.run_id) as lease:
        work = _removal_work(runtime, report, write_limit(runtime, removal.rate))
        work_off(runtime, lines, work, report, removal, rejects=rejects, lease=lease)
    return report


def _removal_work(runtime: Runtime, report: ListReport, wait_to_write: Callable[[int], object]) -> Work:
    def work(values: Sequence[str]) -> Counter[str]:
        keys = [Invite(report.campaign_id, report.type, value, 0).table_key for value in values]
        found = runtime.invites.ttls(keys)
        if found and not report.dry_run:
            wait_to_write(len(found))
            runtime.invites.remove(list(found))
        return Counter({REMOVED: len(found), ABSENT: len(keys) - len(found)})

    return work


_REJECTS = ".rejects.csv"
# A key below the configured prefix. No path segment begins with a dot, so that none leads out of the prefix, and no
# key is a mail address.
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


class UploadedObject(NamedTuple):
    report: ListReport
    rejects: str  # the key of the lines that could not be read


def upload_object(runtime: Runtime, upload: Upload, location: str) -> UploadedObject:
    """Upload invites from an object in the bucket of artefacts, read as a stream: an upload, or a key below
    `invites.prefix`. The rejects are always written, to replace those of an earlier upload.

    Raises RequestError for another key, MissingObject, UsageError for an object that was replaced meanwhile, and what
    `upload_invites` raises.
    """
    store, key = runtime.objects, _key(runtime, location)
    with tempfile.TemporaryDirectory() as folder:
        rejects = Path(folder) / "rejects.csv"
        name = f"s3://{store.bucket}/{key}"
        report = upload_invites(runtime, upload, lambda: store.open(key), name=name, rejects=rejects)
        if report.rejects_file is None:
            rejects.touch()
        store.put_file(key + _REJECTS, rejects)
    report.rejects_file = None
    return UploadedObject(report, key + _REJECTS)


def _key(runtime: Runtime, location: str) -> str:
    """The key, if it is one that a list of invites may have: the job reads it, and writes rejects beside it."""
    key, prefix = (
        location.strip().removeprefix(f"s3://{runtime.objects.bucket}/"),
        runtime.settings.invites.prefix,
    )
    if UPLOAD_NAME.fullmatch(key) or (key.startswith(prefix) and _KEY.fullmatch(key.removeprefix(prefix))):
        return key
    raise RequestError(
        f"key {quoted(key)} is no list of invites: give the name that the upload form returned,"
        f" uploads/<32 hex digits>/<file>, or a key below {prefix} (A-Z a-z 0-9 _ - .) of the bucket of artefacts"
    )


@dataclass(slots=True)
class TypeCount:
    """Invites of one type. DynamoDB deletes expired ones within days; until then they are counted here."""

    type: InviteType
    valid: int = 0
    expired: int = 0


class Counted(NamedTuple):
    campaign_id: str
    types: list[TypeCount]


@dataclass(frozen=True, slots=True)
class FoundInvite:
    """The invite of one value."""

    campaign_id: str
    type: InviteType
    value: str  # masked
    ttl: int | None  # epoch seconds, None: there is none
    invited: bool  # whether it is valid now

    def as_dict(self) -> dict[str, Any]:
        # Two names for the end, so that a past one is not mistaken for one to come.
        end = None if self.ttl is None else iso(self.ttl)
        return as_document(self, "campaign_id", "type", "value", "invited") | {
            "validUntil": end if self.invited else None,
            "expiredAt": None if self.invited else end,
        }


def count_invites(
    runtime: Runtime,
    slug_or_id: str,
    types: Sequence[InviteType] = tuple(InviteType),
    on_progress: Progress = no_progress,
) -> Counted:
    """Count the invites of each type that are valid and expired now, page by page. Raises UsageError for an unknown
    campaign.
    """
    campaign_id = campaign_of_invites(runtime, slug_or_id)
    now, seen, counts = runtime.clock(), 0, []
    for type_ in types:
        total = TypeCount(type_)
        for page in runtime.invites.count(campaign_id, type_, now):
            total.valid += page.valid
            total.expired += page.expired
            seen += sum(page)
            on_progress(seen)
        counts.append(total)
    return Counted(campaign_id, counts)


def check_invite(runtime: Runtime, slug_or_id: str, type_: InviteType, text: str) -> FoundInvite:
    """Return whether the value is invited now. Raises UsageError for an invalid value and for an unknown campaign."""
    row = read_value(1, text.strip(), type_)
    if isinstance(row, Reject):
        raise UsageError(f"this is not a valid {type_.value} for an invite: {row.reason}")
    # First under the id as given: if that is right, only the table has to answer.
    ttl = _ttl(runtime, slug_or_id, type_, row.value)
    campaign_id = slug_or_id
    if ttl is None:
        campaign_id = campaign_of_invites(runtime, slug_or_id)
        if campaign_id != slug_or_id:
            ttl = _ttl(runtime, campaign_id, type_, row.value)
    invited = ttl is not None and ttl > runtime.clock()
    return FoundInvite(campaign_id, type_, masked(text.strip()), ttl, invited)


def _ttl(runtime: Runtime, campaign_id: str, type_: InviteType, value: str) -> int | None:
    key = invite_key(campaign_id, type_, value)
    return runtime.invites.ttls([key]).get(key)
