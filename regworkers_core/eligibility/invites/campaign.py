"""Whose invites are meant: a campaign id with a typing error must not look like a campaign that invites nobody."""

from __future__ import annotations

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.invites.ttl import needed_until
from regworkers_core.runtime import Runtime
from regworkers_core.settings import InvitesSettings


def campaign_to_invite_to(runtime: Runtime, slug_or_id: str, *, force: bool) -> tuple[str, Campaign | None]:
    """The id to write invites under, and the campaign. `force` takes the text for the id of a campaign that is yet
    to be created. Raises UsageError for one that nobody knows, without `force`.
    """
    if not force:
        hint = "; to invite before it is created, give its campaignId and --force"
        campaign = runtime.campaigns.require(slug_or_id, hint)
        return campaign.campaign_id, campaign
    found = runtime.campaigns.find(slug_or_id)
    if found is not None:
        return found.campaign_id, found
    if not is_selection_id(slug_or_id):
        raise UsageError(f"{slug_or_id!r} cannot be a campaignId: 1 to 64 letters, digits, - and _")
    return slug_or_id, None


def campaign_of_invites(runtime: Runtime, slug_or_id: str) -> str:
    """The id under which invites are looked for. Raises UsageError for a campaign that nobody knows and that has
    no invite either.
    """
    campaign = runtime.campaigns.find(slug_or_id)
    if campaign is not None:
        return campaign.campaign_id
    if runtime.invites.are_there(slug_or_id):
        return slug_or_id
    raise UsageError(
        f"there is no campaign {slug_or_id!r}, and no invite with this campaignId: see `regworkers campaign list`"
    )


def advice(campaign: Campaign | None, type_: InviteType, ttl: int, settings: InvitesSettings) -> str | None:
    """What keeps the invites from counting, in words; `ttl` is until when they hold."""
    if campaign is None:
        return "the campaign does not exist yet: nothing asks for these invites before it does"
    terms = campaign.eligibility
    if not terms.invite_only:
        return f"campaign {campaign.campaign_id} is not `inviteOnly`: everybody may enter, invited or not"
    if type_ not in terms.invite_types:
        wanted = ", ".join(each.value for each in terms.invite_types)
        return (
            f"campaign {campaign.campaign_id} goes by {wanted} alone: invites by {type_.value} do not count"
        )
    if ttl < (needed := needed_until(campaign, settings)):
        return (
            f"these invites end at {iso(ttl)} and campaign {campaign.campaign_id} closes at {campaign.closes_at}: what"
            " has ended is taken away, and a draw after that excludes who entered by it as NOT_INVITED; let them hold"
            f" until {iso(needed)}, or give no ttl"
        )
    return None
