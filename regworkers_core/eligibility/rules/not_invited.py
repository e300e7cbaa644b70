"""Campaigns for invited fans."""

from __future__ import annotations

from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    terms = case.campaign.eligibility
    if not terms.invite_only:
        return None
    invites, moment = case.invites, case.moment_seconds
    counting = [invites[kind] for kind in terms.invite_types if kind in invites]
    if any(ttl > moment for ttl in counting):
        return None
    kinds = ", ".join(kind.value for kind in terms.invite_types)
    return f"{'only an expired' if counting else 'no'} invite by {kinds}"


RULE = Rule(
    position=80,
    code="NOT_INVITED",
    fails_when="the campaign is `inviteOnly` and no invite of one of its `inviteTypes` has a `ttl` after the moment",
    needs=("campaign", "invites"),
    message="This registration is by invitation only.",
    judge=_judge,
)
