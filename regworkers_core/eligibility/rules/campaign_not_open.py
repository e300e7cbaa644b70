"""Too early."""

from __future__ import annotations

from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    campaign = case.campaign
    if campaign.status is CampaignStatus.DRAFT:
        return "the campaign is DRAFT"
    return f"it opens at {campaign.opens_at}" if case.moment < campaign.opens_at else None


RULE = Rule(
    position=50,
    code="CAMPAIGN_NOT_OPEN",
    fails_when="the campaign is DRAFT, or the moment of asking or entering lies before `opensAt`",
    needs=("campaign",),
    message="Registration has not opened yet.",
    judge=_judge,
)
