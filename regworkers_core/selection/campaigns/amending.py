"""Corrects campaigns: a DRAFT in everything, an OPEN one only so that no entry is worse off.

What a correction changes is a list of fields, each with its value before and now. A rule for each field says why it may
not change so; a field without a rule may not change once fans have entered. A correction of an OPEN campaign is logged
first, as an amendment, and then written exactly over what was judged. It holds the lease under which the campaign is
closed, so one that comes too late finds another status and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from fairdraw.documents import camel
from fairdraw.maths.opened import unchangeable
from regworkers_core.domain.campaign import Amendment, Campaign, CampaignStatus, Correction, Market
from regworkers_core.domain.eligibility import TERMS, EligibilityTerms
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.opening import (
    Proposal,
    decide,
    is_logged,
    publish,
    recorded,
    require_unchanged,
    terms_of,
)
from regworkers_core.selection.campaigns.registry import campaign_lease, draft, published_reason

# An amendment has its time in the log by the cosignatures of witnesses, and must have it before the registration ends.
_LAST_SECONDS = 120.0
# The fields of a definition, in the form of a file, for the campaign as it is now.
Definition = Callable[[Campaign], Mapping[str, Any]]


class Change(NamedTuple):
    """A field of the definition and its values as in the document, None where it has none."""

    field: str  # such as `closesAt`, `eligibility.minAge` or `markets.berlin.capacity`
    before: Any
    now: Any

    @property
    def in_words(self) -> Correction:
        return Correction(self.field, _in_words(self.before), _in_words(self.now))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a correction would change."""

    before: Campaign  # as it is
    after: Campaign  # as it would be
    changes: tuple[Change, ...]  # the fields that differ
    # Why a field may not change so, by the field.
    refused: Mapping[str, str]

    @property
    def admits_others(self) -> bool:
        """Whether entries may count that do not count now."""
        return any(each.field == "closesAt" or each.field.startswith("eligibility.") for each in self.changes)


@dataclass(frozen=True, slots=True)
class Amended:
    """What a correction changed."""

    plan: Plan
    # Why the published log does not have it yet; empty if it has, or has nothing of the campaign.
    not_logged: str = ""


def plan(runtime: Runtime, campaign: Campaign, definition: Definition) -> Plan:
    """What the campaign would be by this definition. Raises UsageError for a wrong field, as `draft`."""
    after = campaign.defined_as(draft(definition(campaign)))
    before, now = (dict(_flat(each)) for each in (campaign, after))
    changes = tuple(
        Change(name, before.get(name), now.get(name))
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    )
    return Plan(campaign, after, changes, dict(_refused(runtime, campaign, after, changes)))


def amend(
    runtime: Runtime,
    campaign_id: str,
    definition: Definition,
    *,
    reason: str,
    run_id: str,
    on_step: OnStep = no_step,
) -> Amended:
    """Correct the campaign, unless nothing changes or something is refused. The reason of a correction that the public
    log has is published.

    Raises UsageError as `plan`, for a campaign that was changed or closed meanwhile, and without a reason where it is
    published; TransientFailure while another run changes the campaign, and while the log cannot be written. Then
    nothing was changed.
    """
    with campaign_lease(runtime, campaign_id, run_id):
        found = plan(runtime, runtime.campaigns.require_id(campaign_id), definition)
        if found.refused or not found.changes:
            return Amended(found)
        logged, record = None, recorded(runtime.objects, campaign_id)
        if found.before.status is CampaignStatus.OPEN or record:
            proposal = Proposal(found.before, found.after, published_reason(reason, "a correction"))
            # A run that died may have logged this correction, and not written it.
            is_repeated = bool(record) and record[-1].terms == terms_of(runtime, found.after).terms
            if not is_repeated and not is_logged(runtime, found.before):
                # Fans were promised that.
                decide(runtime, campaign_id)
            logged = decide(runtime, campaign_id, proposal=proposal)
        on_step("campaigns.after_amendment")
        now = runtime.campaigns.require_id(campaign_id)
        require_unchanged(now, found.before)
        if why := _over(runtime, now):
            raise UsageError(f"{why}: nothing was changed")
        changes = tuple(each.in_words for each in found.changes)
        amendment = Amendment(iso(runtime.clock()), reason.strip(), run_id, changes)
        after = replace(now.defined_as(found.after), amendments=(*now.amendments, amendment))
        if not runtime.campaigns.amend(now, after):
            require_unchanged(runtime.campaigns.require_id(campaign_id), now)
            raise UsageError(
                f"another writer changed campaign {campaign_id} at the same time: repeat the correction"
            )
        for each in (now, after):
            runtime.campaign_cache.forget(each)
    return Amended(replace(found, after=after), publish(runtime, {campaign_id: logged}) if logged else "")


def _over(runtime: Runtime, campaign: Campaign) -> str:
    """Why an OPEN campaign takes no correction any more; empty if it does."""
    left = (seconds(campaign.closes_at) or 0.0) - runtime.clock()
    if campaign.status is not CampaignStatus.OPEN or left > _LAST_SECONDS:
        return ""
    return (
        f"the registration ends at {campaign.closes_at}, and a correction must be in the public log"
        f" {_LAST_SECONDS / 60:g} minutes before"
    )


def _flat(campaign: Campaign) -> Iterator[tuple[str, Any]]:
    """Each field of the definition by its whole name."""
    for name, value in campaign.definition.items():
        if name == "markets":
            for market in value:
                rest = {key: each for key, each in market.items() if key != "marketId"}
                yield from ((f"markets.{market['marketId']}.{key}", each) for key, each in rest.items())
        elif isinstance(value, Mapping):
            yield from ((f"{name}.{key}", each) for key, each in value.items())
        else:
            yield name, value


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(map(str, value.values()))
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    return "" if value is None else str(value)


def _refused(
    runtime: Runtime, before: Campaign, after: Campaign, changes: tuple[Change, ...]
) -> Iterator[tuple[str, str]]:
    if before.status is CampaignStatus.OPEN:
        over = _over(runtime, before)
        for each in changes:
            if why := over or harm(each.field, before, after):
                yield each.field, why
    elif before.status is CampaignStatus.DRAFT:
        yield from _of_a_draft(runtime, before, after, changes)
    else:
        why = f"the campaign is {before.status}: its entries are judged by what it is"
        yield from ((each.field, why) for each in changes)


def _of_a_draft(
    runtime: Runtime, before: Campaign, after: Campaign, changes: tuple[Change, ...]
) -> Iterator[tuple[str, str]]:
    """A draft may change in everything but what its codes, or a log that has it already, rest on."""
    stock = {market for market, counts in runtime.codes.count(before.campaign_id).items() if counts}
    for each in changes:
        if each.field == "codes.caseless" and stock:
            yield each.field, "codes are imported, and their digests rest on it"
        market = _market_of(each.field)
        if market and after.market(market) is None and market in stock:
            yield each.field, "the market has codes"
    record = recorded(runtime.objects, before.campaign_id)
    for one in unchangeable(record[-1], terms_of(runtime, after)) if record else ():
        yield one.field, f"the public log has {one.before}, and that never changes"


def _market_of(field: str) -> str:
    """The id in the name of a market's field; empty for another field."""
    section, _, rest = field.partition(".")
    return rest.partition(".")[0] if section == "markets" else ""


# What concerns no entry.
_FREE = frozenset({"name", "autoDraw", "issuerKeys"})
_WHY = {
    "slug": "links that fans have would lead nowhere",
    "opensAt": "entries are judged by it",
    "eventId": "the public log has it, and that never changes",
    "codes.caseless": "the public log has it, and that never changes",
    "draw.winsPerUnit": "households count on how many of them may win",
    "registration.log": "who entered before has no confirmation of a place in that log",
}


def harm(field: str, before: Campaign, after: Campaign) -> str:
    """Why the field of an OPEN campaign may not change so; empty if no entry is worse off."""
    section, _, rest = field.partition(".")
    if field in _FREE:
        return ""
    if field == "closesAt":
        return "" if after.closes_at > before.closes_at else "fans count on entering until then"
    if field == "draw.waitlistSize":
        old, new = before.draw.waitlist_size, after.draw.waitlist_size
        return "" if new is None or (old is not None and new > old) else "fewer entries would wait"
    if field == "codes.expireAfterHours":
        hours = before.codes.expire_after_hours, after.codes.expire_after_hours
        is_longer = hours[1] is None or (hours[0] is not None and hours[1] > hours[0])
        return "" if is_longer else "winners would have less time"
    if section == "eligibility":
        why = "it would exclude fans who may take part now"
        return "" if is_looser(rest, before.eligibility, after.eligibility) else why
    if market_id := _market_of(field):
        return _harm_of_market(rest.partition(".")[2], before.market(market_id), after.market(market_id))
    return _WHY.get(field, "it may not change once fans have entered")


def _harm_of_market(name: str, before: Market | None, after: Market | None) -> str:
    if before is None or after is None:
        return "fans choose among the markets, and the public log has them"
    if name == "name":
        return ""
    if name == "capacity":
        return "" if after.capacity > before.capacity else "fewer seats would be drawn"
    if name == "reserves":
        return (
            "" if _keeps_seats(before, after) else "entries of a segment, or of none, would have fewer seats"
        )
    return "who waits for a later phase counts on it"


def _keeps_seats(before: Market, after: Market) -> bool:
    """Whether each segment has at least its seats, in its place, and at least as many seats are open to all."""
    reserves = zip(before.reserves, after.reserves, strict=False)
    kept = len(after.reserves) >= len(before.reserves) and all(
        old.segment == new.segment and new.seats >= old.seats for old, new in reserves
    )
    free = [each.capacity - sum(one.seats for one in each.reserves) for each in (before, after)]
    return kept and free[1] >= free[0]


def is_looser(name: str, before: EligibilityTerms, after: EligibilityTerms) -> bool:
    """Whether the term `name` (as in the document) admits every fan whom it admits now."""
    field = next((each for each in TERMS if camel(each) == name), "")
    old, new = getattr(before, field, None), getattr(after, field, None)
    match field:
        case "invite_only" | "require_verified_phone":
            return bool(old) or not new
        case "invite_types":
            return set(after.invite_types) >= set(before.invite_types)
        case "regions":
            return not after.regions or (bool(before.regions) and set(after.regions) >= set(before.regions))
        case "min_age":
            return new is None or (old is not None and new <= old)
        case "max_per_unit":
            return new is None or (old is not None and new >= old)
    return False


def touched(runtime: Runtime, campaign: Campaign) -> str:
    """Why the campaign cannot be deleted: it is no draft, or something of it exists; empty if it can. Raises
    TransientFailure.
    """
    campaign_id = campaign.campaign_id
    if campaign.status is not CampaignStatus.DRAFT or campaign.transitions:
        return f"it is {campaign.status}: only a draft that was never opened can be deleted"
    if any(runtime.codes.count(campaign_id).values()):
        return "it has codes"
    if runtime.draws.get(campaign_id) is not None:
        return "it has strikes or a draw"
    if runtime.replica.has_campaign(campaign_id):
        return "it has entries"
    if runtime.demand_table.has_campaign(campaign_id):
        return "the demand table has entries or invites of it: remove the invites first"
    if recorded(runtime.objects, campaign_id):
        return "the public log has it"
    return ""


def delete(runtime: Runtime, campaign_id: str, *, run_id: str) -> Campaign:
    """Delete a draft of which nothing else exists. Raises RequestError for any other campaign, TransientFailure while
    another run changes it.
    """
    with campaign_lease(runtime, campaign_id, run_id):
        campaign = runtime.campaigns.require_id(campaign_id)
        if why := touched(runtime, campaign):
            raise RequestError(f"campaign {campaign_id} is not deleted: {why}")
        if not runtime.campaigns.delete(campaign):
            raise UsageError(f"campaign {campaign_id} was changed meanwhile: see what it is now")
        runtime.campaign_cache.forget(campaign)
        runtime.entry_counts.forget(campaign_id)
    return campaign
