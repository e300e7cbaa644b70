"""Correct campaigns, and delete drafts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from fairdraw.documents import as_document
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.reasons import Failure, RequestError
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.live_entries import entries_over_time
from regworkers_core.operation import (
    CAMPAIGN,
    CHANGES_CAMPAIGNS,
    Call,
    Effect,
    Face,
    OfCampaign,
    Remark,
    Report,
    Table,
    only_named,
    operation,
)
from regworkers_core.selection.campaigns import amending
from regworkers_core.selection.campaigns.amending import Plan
from regworkers_core.selection.campaigns.operations import (
    CreateCampaign,
    changed_by,
    named_as_given,
    require_seats,
    without,
)
from regworkers_core.selection.campaigns.registry import read_definition

# Entries that a preview judges by the rules before and after: some seconds.
_MOST_JUDGED = 10_000


@only_named
class AmendCampaign(CreateCampaign):
    """The fields of a new campaign; what is left out stays as it is."""

    first: ClassVar = (*CreateCampaign.first, "reason")
    campaign_id: str = Field(description=CAMPAIGN)
    unset: list[str] = Field(
        [],
        description="Fields that get their default again, by their names here: min_age, regions, event_id.",
    )
    reason: str = Field(
        "",
        description="Why, in one line: no fan's data. It is published if the campaign is open, and needed then.",
    )


@operation(
    "campaign amend",
    "amend_campaign",
    Effect.CHANGE,
    duty="selection",
    size="report",
    role="manager",
    asset="campaigns",
    uses=CHANGES_CAMPAIGNS,
)
def amend(call: Call, given: AmendCampaign) -> Report:
    """Correct a campaign: a draft in everything, an open one so that no entry is worse off.

    An open campaign may close later, have more seats, another name and looser rules, until two minutes before its
    registration ends. What would harm is refused with the reason, and then nothing is changed. The public log has each
    correction of an open campaign first, with its reason. Seats, names and reserves are changed for the markets that
    are named; a whole definition replaces all.
    """
    runtime, campaign = call.runtime, call.campaign(given.campaign_id)
    require_seats(call.face, given, campaign.market_ids)
    markets = [*dict.fromkeys((*campaign.market_ids, *given.capacities))]

    def definition(now: Campaign) -> Mapping[str, Any]:
        return _definition(call.face, given, now)

    with named_as_given(call.face, given, markets):
        found = amending.plan(runtime, campaign, definition)
    if found.refused:
        text = "; ".join(f"{field}: {why}" for field, why in found.refused.items())
        raise RequestError(f"campaign {campaign.campaign_id} is not changed: {text}")
    if not call.apply:
        return _report(found, *_concerned(call, found), pending=bool(found.changes))
    with named_as_given(call.face, given, markets):
        done = amending.amend(
            runtime, campaign.campaign_id, definition, reason=given.reason, run_id=call.run_id
        )
    remarks = []
    if done.not_logged:
        advice = f"it is logged within a minute, or by {call.face.name_of('campaign log')}"
        remarks.append(Remark("warning", f"not in the public log yet: {done.not_logged}", advice))
    return _report(done.plan, {}, remarks, changed=True)


class DeleteCampaign(OfCampaign):
    """The draft."""


@operation(
    "campaign delete",
    "delete_campaign",
    Effect.DELETE,
    duty="selection",
    role="manager",
    uses=CHANGES_CAMPAIGNS,
)
def delete(call: Call, given: DeleteCampaign) -> Report:
    """Delete a draft that was never opened and of which nothing else exists.

    Refuses any other campaign, and one that has codes, strikes, entries or invites. Its name is free again.
    """
    runtime, campaign = call.runtime, call.campaign(given.campaign_id)
    if why := amending.touched(runtime, campaign):
        raise RequestError(f"campaign {campaign.campaign_id} is not deleted: {why}")
    if call.apply:
        amending.delete(runtime, campaign.campaign_id, run_id=call.run_id)
    shown = {**as_document(campaign, "campaign_id", "name", "slug", "opens_at", "closes_at")}
    shown["deleted"] = call.apply
    return Report(
        document=shown,
        counts={"deleted": int(call.apply)},
        word="" if call.apply else campaign.campaign_id,
        question=f"the draft {campaign.campaign_id} ({campaign.name}) will be deleted",
        changed=call.apply,
    )


def _definition(face: Face, given: AmendCampaign, campaign: Campaign) -> Mapping[str, Any]:
    """The fields of the contract as the correction has them. Raises RequestError for fields that do not go together."""
    whole = {"campaignId": campaign.campaign_id, **campaign.definition}
    if not given.upload:
        return changed_by(given, without(given.unset, whole))
    names = {"campaign_id", "upload", "reason"}
    if given.model_dump(exclude=names, exclude_defaults=True):
        raise RequestError(f"{face.field('upload')} contains the whole campaign: leave all other fields out")
    fields = read_definition(Path(face.open(given.upload)))
    if fields.get("campaignId") != campaign.campaign_id:
        raise RequestError(f"{face.field('upload')} is about another campaign than {campaign.campaign_id}")
    return fields


class _Concerned(NamedTuple):
    """How many entries a correction concerns, and what could not be found out."""

    facts: Mapping[str, Any]
    remarks: list[Remark]


def _concerned(call: Call, plan: Plan) -> _Concerned:
    runtime, campaign = call.runtime, plan.before
    if campaign.status is not CampaignStatus.OPEN or not plan.changes:
        return _Concerned({}, [])
    try:
        facts: dict[str, Any] = {"entries": entries_over_time(runtime, campaign.campaign_id).total}
        if not plan.admits_others:
            return _Concerned(facts, [])
        # Late, for it brings DuckDB and pyarrow.
        from regworkers_core.eligibility.judging import ELIGIBLE, judge_entries

        counts = []
        for each in (plan.before, plan.after):
            tally = judge_entries(
                runtime,
                each,
                as_of=iso(runtime.clock()),
                folder=call.face.folder(),
                tell=call.face.tell,
                most=_MOST_JUDGED,
            )
            counts.append(tally.primary[ELIGIBLE])
    except Failure as failure:
        remark = Remark("warning", f"the entries could not be judged: {failure}", "repeat the preview")
        return _Concerned({}, [remark])
    facts |= {"judged": tally.entries, "eligibleBefore": counts[0], "eligibleNow": counts[1]}
    return _Concerned(facts, [])


def _report(plan: Plan, facts: Mapping[str, Any], remarks: list[Remark], **more: Any) -> Report:
    campaign = plan.after
    changes = [each.in_words for each in plan.changes]
    document = {
        "campaignId": campaign.campaign_id,
        "status": campaign.status.value,
        "changes": [each._asdict() for each in plan.changes],
        **facts,
    }
    lines = [(each.field, each.before or None, each.now or None) for each in changes]
    return Report(
        document=document,
        facts={name: value for name, value in document.items() if name != "changes"},
        tables=[Table("changes", ("field", "before", "now"), lines)],
        said=[] if changes else ["nothing differs: the campaign is as given"],
        remarks=remarks,
        counts={"changed": len(changes)},
        **(more if changes else {}),
    )
