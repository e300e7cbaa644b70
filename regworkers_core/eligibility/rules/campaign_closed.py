"""Too late."""

from __future__ import annotations

from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    campaign = case.campaign
    asks_now = case.subject.entered_at is None
    if asks_now and CampaignStatus.OPEN.is_before(campaign.status):
        return f"the campaign is {campaign.status}"
    end = _end(campaign)
    return f"it closed at {end}" if case.moment >= end else None


def _end(campaign: Campaign) -> str:
    """`closesAt`, or when somebody closed it before that."""
    closed = [each.at for each in campaign.transitions if each.to is CampaignStatus.CLOSED]
    return min([campaign.closes_at, *closed])


RULE = Rule(
    position=60,
    code="CAMPAIGN_CLOSED",
    fails_when="the moment lies at or after `closesAt`, or at or after an earlier closing by hand; for somebody who"
    " asks now also when the status is past OPEN",
    needs=("campaign",),
    message="Registration has closed.",
    judge=_judge,
)
