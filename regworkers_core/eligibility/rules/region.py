"""Campaigns for some regions."""

from __future__ import annotations

from regworkers_core.domain.terms import comparable_region
from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    admitted = case.campaign.eligibility.regions
    if not admitted:
        return None
    region = case.subject.region
    if region is None:
        user = case.user
        region = comparable_region(user.region) if user is not None and user.region else None
    if region is None:
        return "neither the entry nor a user's record names a region"
    return None if region in admitted else f"admitted are {', '.join(admitted)}"


RULE = Rule(
    position=110,
    code="REGION",
    fails_when="the campaign has `regions` and that of the entry, else of the user's record, is none of them",
    needs=("campaign", "user"),
    message="This campaign is not open to your region.",
    judge=_judge,
)
