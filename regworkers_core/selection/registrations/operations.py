"""Show the log of registrations, prove one registration, and open all of them to an auditor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from fairdraw import commands
from fairdraw.errors import DrawError
from fairdraw.log.place import at_place
from fairdraw.proof.check import INCOMPLETE, check_confirmation
from fairdraw.proof.receipt_view import checked_text
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.domain.snapshot import PausedDrain
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import beats
from regworkers_core.drains.runner import fuse_in_force
from regworkers_core.engine.defects import fuse_message, hold_of
from regworkers_core.operation import (
    CAMPAIGN,
    Call,
    Effect,
    Input,
    LocalFile,
    OfCampaign,
    Report,
    Table,
    operation,
)
from regworkers_core.runtime import Runtime
from regworkers_core.selection.registrations.tree import RegistrationFiles

OFF = (
    "it does not log its registrations: no fan can see that their entry was in the list before the draw, and no receipt"
    " shows it; `registration: {log: on}` of a new campaign does"
)
NO_CHECKPOINT = (
    "its tree has entries, and no checkpoint: `regworkers drain register` makes it again from the bundles, without the"
    " sizes that were logged before"
)


class RegistrationsOf(Input):
    campaign_id: str = Field("", description=f"{CAMPAIGN} Empty: all that log their registrations.")


class ProofOf(Input):
    words: ClassVar = ("campaign_id", "entry")
    campaign_id: str = Field("", description=CAMPAIGN)
    entry: str = Field(
        "",
        description="The entry's id, or the reference in the fan's confirmation. No mail address, no name.",
    )
    confirmation: LocalFile = Field(
        "", description="Instead of campaign and entry: the confirmation in this file, as the fan has it."
    )
    source: LocalFile = Field(
        "",
        description="Check against the public files in this folder, or at this address. Empty: the bucket.",
    )
    trust: LocalFile = Field("", description=f"{commands.TRUST.capitalize()}.")


class OpeningOf(OfCampaign):
    opening: LocalFile = Field(
        "", description="Write the lines to this file. Empty: they are among the files of the answer."
    )


@operation(
    "registrations status", "registrations_status", duty="selection", role="manager", asset="campaigns"
)
def status(call: Call, given: RegistrationsOf) -> Report:
    """Show how many registrations are in each campaign's tree, how many wait, and up to where the public log has them.

    Entries wait while the drain `register` is behind, sizes while the log or its witnesses are unavailable: the answer
    says why. Fails if a tree's files are damaged.
    """
    if given.campaign_id:
        campaigns = [call.campaign(given.campaign_id)]
    else:
        campaigns = [each for each in call.runtime.campaigns.list() if each.logs_registrations]
    document = [_state(call.runtime, each) for each in campaigns]
    columns = ("campaign", "status", "tree", "registered", "withdrawn", "erased", "waiting", "logged up to")
    names = ("campaignId", "status", "size", "registered", "withdrawn", "erased", "waiting", "loggedSize")
    rows = [[each.get(name) for name in names] for each in document]
    return Report(
        document=document,
        facts={"campaigns": len(document)},
        tables=[Table("registrations", columns, rows)],
        said=[why for each in document if not each["damaged"] for why in _said(each)],
        left="; ".join(why for each in document if each["damaged"] for why in _said(each)),
    )


def _said(shown: Mapping[str, Any]) -> list[str]:
    return [f"{shown['campaignId']}: {why}" for why in shown["remarks"]]


def _remarks(runtime: Runtime, campaign: Campaign, shown: Mapping[str, Any]) -> Iterator[str]:
    """What a person has to know who reads the numbers of a campaign."""
    campaign_id = campaign.campaign_id
    if shown["damaged"]:
        yield NO_CHECKPOINT
        return
    if not campaign.logs_registrations:
        yield OFF
    if lost := shown["lost"]:
        yield f"{lost} of the withdrawn had no entry any more at the freeze, as after a restore of MongoDB"
    if shown["waiting"] and (why := _why_waiting(runtime, campaign)):
        yield f"{shown['waiting']:,} entries wait: {why}"
    if lacking := shown["notLogged"]:
        since = iso(RegistrationFiles(runtime.objects, campaign_id).made_at(lacking[0]))
        yield (
            f"the public log lacks sizes of the tree since {since}: if that lasts, it or its witnesses do not"
            " answer, and `regworkers doctor` names them; they are logged later"
        )


def _why_waiting(runtime: Runtime, campaign: Campaign) -> str:
    """Why entries of a campaign are not appended now; empty: a drain works, and is behind."""
    # Late, for it brings all drains of selection.
    from regworkers_core.selection.drains import REGISTER
    from regworkers_core.selection.registrations.source import is_frozen

    if campaign.status is CampaignStatus.DRAFT:
        return "they come into the tree when the campaign opens"
    if is_frozen(runtime.draws.light(campaign.campaign_id)):
        return "between judgement and seed only the draw appends, and before its manifest it appends all that is left"
    drain = f"the drain {REGISTER.name}"
    if (paused := hold_of(runtime.leases, PausedDrain, REGISTER.name)) is not None:
        return f"{drain} is {paused.text}; `{paused.remedy}` ends that"
    if (fuse := fuse_in_force(runtime, REGISTER.name)) is not None:
        return fuse_message(REGISTER.name, fuse.reason, fuse.tripped_at)
    if not beats(runtime.heartbeats, REGISTER.name):
        return f"no worker runs {drain}: its sensor or `regworkers drain {REGISTER.name}` starts one"
    return ""


def _state(runtime: Runtime, campaign: Campaign) -> dict[str, Any]:
    named = {
        "campaignId": campaign.campaign_id,
        "status": campaign.status.value,
        "log": campaign.registration.log.value,
    }
    try:
        shown = named | _numbers(runtime, campaign)
        return shown | {"remarks": [*_remarks(runtime, campaign, shown)]}
    except DrawError as error:
        # The others are shown all the same.
        return named | {"damaged": True, "remarks": [str(error)]}


def _numbers(runtime: Runtime, campaign: Campaign) -> dict[str, Any]:
    """What a campaign's tree has, and what waits. Raises DrawError for a damaged one."""
    campaign_id = campaign.campaign_id
    files = RegistrationFiles(runtime.objects, campaign_id)
    state, live = files.state(), runtime.replica.count_campaign(campaign_id).live
    not_logged = files.not_logged(state)
    logged = [size for size in state.sizes if size not in not_logged]
    registered = state.size - state.notices - state.withdrawn - state.erased
    record = runtime.draws.light(campaign_id)
    first = None if record is None else record.phases.get(1)
    return {
        "size": state.size,
        "root": state.root,
        "registered": registered,
        "withdrawn": state.withdrawn,
        "erased": state.erased,
        # It counts withdrawn ones that no entry had any more at the freeze, as after a restore of MongoDB.
        "lost": 0 if first is None else first.lost_registrations,
        "notices": state.notices,
        # A campaign that logs none waits for none.
        "waiting": max(0, live - registered) if campaign.logs_registrations else 0,
        "loggedSize": logged[-1] if logged else 0,
        "notLogged": not_logged,
        # Whether it has entries and no checkpoint.
        "damaged": not state.size and files.has_bundles(),
    }


@operation(
    "registrations proof",
    "prove_registration",
    duty="selection",
    size="report",
    files="the fan's confirmation as JSON",
)
def proof(call: Call, given: ProofOf) -> Report:
    """Prove that an entry is in the list of registrations: since when, and by which witnesses.

    Makes the confirmation that the fan has, with the secret salt, and checks it as a fan does: give it to the entrant
    only. Fails if it does not hold.
    """
    # Late, for it brings pyarrow.
    from regworkers_core.selection.public.source import in_bucket

    named = [bool(given.campaign_id), bool(given.entry)]
    if named != [not given.confirmation] * 2:
        raise RequestError(
            f"give either a campaign and an entry, or a {call.face.field('confirmation')} in a file"
        )
    data = _given(given.confirmation) if given.confirmation else _confirmation(call, given)
    place = at_place(given.source) if given.source else in_bucket(call.runtime.objects)
    trusted = commands.trusted_keys(Path(given.trust) if given.trust else None)
    checked = check_confirmation(data, place, trusted)
    only_incomplete = checked.verdict == INCOMPLETE and not checked.findings
    return Report(
        document=checked.as_dict(),
        # Neither log nor metadata name the entrant.
        facts={"verdict": checked.verdict},
        text=checked_text(checked),
        files={} if given.confirmation else {"confirmation.json": data},
        left=""
        if checked.is_fine or only_incomplete
        else f"it does not hold: {checked.verdict}, findings: {len(checked.findings)}",
        # No run fails because no trusted keys were named.
        pending=only_incomplete,
    )


def _given(file: str) -> bytes:
    """The confirmation in a file. Raises UsageError for another file."""
    data, confirms = commands.given_in(Path(file))
    if not confirms:
        raise UsageError(f"{file} is a receipt: `draw check-receipt` checks it")
    return data


def _confirmation(call: Call, given: ProofOf) -> bytes:
    # Late, for it brings DuckDB and pyarrow.
    from regworkers_core.selection.registrations.opening import confirmation_of

    campaign_id = call.campaign_id(given.campaign_id)
    registrations, key = call.runtime.registrations, EntryKey(campaign_id, given.entry)
    registrant = registrations.get([key]).get(key) or registrations.with_ref(campaign_id, given.entry)
    if registrant is None:
        call.campaign(campaign_id)
        # It may be a mail address, so it is not repeated.
        raise RequestError(f"campaign {campaign_id} has no entry of this id or reference")
    made = confirmation_of(registrant)
    if made is None:
        raise RequestError(
            "this entry has no registration that can be shown: it was removed, or is not in the tree yet (see "
            f"{call.face.name_of('registrations status', campaign_id)})"
        )
    return made.to_bytes()


@operation(
    "registrations open",
    "open_registrations",
    Effect.ADD,
    duty="selection",
    size="large",
    long=True,
    files="the opening, one line for each registration",
)
def open_(call: Call, given: OpeningOf) -> Report:
    """Write what each leaf of the tree of registrations means, for an auditor: ref, unit, time, salt and class.

    With it `fairdraw audit-registrations` checks every entry, or a sample that the beacon chooses. It leads from each
    leaf to its entry's reference: hand it to the auditor only, and delete it after that.
    """
    # Late, for they bring DuckDB and pyarrow.
    from regworkers_core.selection.registrations.opening import write_opening

    campaign_id = call.campaign_id(given.campaign_id)
    record = call.runtime.draws.get(campaign_id)
    if record is None:
        call.campaign(campaign_id)
        raise RequestError(f"{campaign_id} has no draw yet: its registrations are opened after the commit")
    path = Path(given.opening) if given.opening else call.face.folder() / f"opening-{campaign_id}.jsonl"
    counts = dict(write_opening(call.runtime, record, path))
    said = f"{sum(counts.values()):,} registrations are in {path}: hand it to the auditor only, and delete it then"
    return Report(
        document={"campaignId": campaign_id, "file": given.opening, "classes": counts},
        facts=counts,
        said=[said] if given.opening else [],
        files={} if given.opening else {path.name: path},
        counts=counts,
    )
