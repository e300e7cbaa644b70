"""What a fan must fill in."""

from __future__ import annotations

from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    missing = case.subject.missing
    return f"missing: {', '.join(missing)}" if missing else None


RULE = Rule(
    position=10,
    code="MISSING_FIELD",
    fails_when="a required field (campaignSlug, email, firstName, lastName) is absent, null or blank",
    needs=(),
    message="Please fill in all fields that are required.",
    judge=_judge,
)
