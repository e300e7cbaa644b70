"""Who is kept out by the platform."""

from __future__ import annotations

from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    # Where the record is required, that it is missing must not pass for "not blocked".
    required = case.campaign.eligibility.require_verified_phone
    user = case.user if required else case.user_if_known
    return "the user's record says blocked" if user is not None and user.blocked else None


RULE = Rule(
    position=100,
    code="BLOCKED",
    fails_when="the user's record says so; without a record it passes, unless the campaign requires one",
    needs=("campaign", "user"),
    message="You cannot take part in this campaign.",
    judge=_judge,
)
