"""Campaigns for fans whose phone number is verified."""

from __future__ import annotations

from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    if not case.campaign.eligibility.require_verified_phone:
        return None
    # Without a user there is no record: USER_REQUIRED says so.
    if case.subject.global_user_id is None:
        return None
    user = case.user
    if user is None:
        return "nobody is known under the globalUserId"
    return None if user.verified_phone else "the user's record says not verified"


RULE = Rule(
    position=110,
    code="PHONE_NOT_VERIFIED",
    fails_when="the campaign has `requireVerifiedPhone` and no user's record under the `globalUserId` says verified",
    needs=("campaign", "user"),
    message="Please verify your phone number first.",
    judge=_judge,
    revision=2,
)
