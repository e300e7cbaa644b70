"""So many entries a household."""

from __future__ import annotations

from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    most = case.campaign.eligibility.max_per_unit
    if most is None or case.subject.unit is None:
        return None
    return f"the limit is {most}" if case.household >= most else None


RULE = Rule(
    position=150,
    code="HOUSEHOLD_LIMIT",
    fails_when="the campaign has `maxPerUnit` and that number of entries of the same `unit` stand before; without"
    " `unit` it passes",
    needs=("campaign", "household"),
    message="Your household has entered as often as it may.",
    judge=_judge,
)
