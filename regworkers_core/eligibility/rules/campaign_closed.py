"""Too late."""

from __future__ import annotations

from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    campaign = case.campaign
    asks_now = case.subject.entered_at is None
    if asks_now and CampaignStatus.OPEN.is_before(campaign.status):
        return f"the campaign is {campaign.status}"
    end = campaign.takes_entries_until
    return f"it closed at {end}" if case.moment >= end else None


RULE = Rule(
    position=60,
    code="CAMPAIGN_CLOSED",
    fails_when="the moment lies at or after `closesAt`, or at or after an earlier closing by hand; for somebody who"
    " asks now also when the status is past OPEN",
    needs=("campaign",),
    message="Registration has closed.",
    judge=_judge,
)
