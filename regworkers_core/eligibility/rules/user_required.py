"""Campaigns for users of the platform."""

from __future__ import annotations

from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    if not case.campaign.eligibility.require_verified_phone or case.subject.global_user_id is not None:
        return None
    return "no globalUserId: the campaign needs a user's record"


RULE = Rule(
    position=90,
    code="USER_REQUIRED",
    fails_when="the campaign has `requireVerifiedPhone`, so it needs a user's record, and no `globalUserId` is named",
    needs=("campaign",),
    message="Please sign in first.",
    judge=_judge,
)
