"""Campaigns for some regions."""

from __future__ import annotations

from regworkers_core.domain.terms import comparable_region
from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    admitted = case.campaign.eligibility.regions
    if not admitted:
        return None
    user = case.user
    known = comparable_region(user.region) if user is not None and user.region else None
    region = known or case.subject.region
    if region is None:
        return "neither a user's record nor the entry names a region"
    return None if region in admitted else f"admitted are {', '.join(admitted)}"


RULE = Rule(
    position=120,
    code="REGION",
    fails_when="the campaign has `regions` and that of the user's record, else of the entry, is none of them",
    needs=("campaign", "user"),
    message="This campaign is not open to your region.",
    judge=_judge,
    revision=2,
)
