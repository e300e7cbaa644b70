"""One entry a person."""

from __future__ import annotations

from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule
from regworkers_core.eligibility.subject import Identity


def _judge(case: Case) -> str | None:
    if not case.is_campaign_known or not case.subject.identities:
        return None
    by = case.duplicates
    named = [kind.value for kind in Identity if kind in by]
    return f"an earlier entry has the same {', '.join(named)}" if named else None


RULE = Rule(
    position=140,
    code="ALREADY_ENTERED",
    fails_when="an earlier entry of the campaign has the same mail address (compared), globalUserId or memberId",
    needs=("campaign", "duplicates"),
    message="You have entered already.",
    judge=_judge,
)
