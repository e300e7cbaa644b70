"""There is no such campaign."""

from __future__ import annotations

from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    return None if case.is_campaign_known else "no campaign has this slug or id"


RULE = Rule(
    position=40,
    code="CAMPAIGN_NOT_FOUND",
    fails_when="no campaign has the slug or id",
    needs=("campaign",),
    message="This campaign does not exist.",
    judge=_judge,
)
