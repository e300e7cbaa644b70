"""Campaigns for grown-ups."""

from __future__ import annotations

from datetime import date

from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    least = case.campaign.eligibility.min_age
    if least is None:
        return None
    user = case.user
    known = user.birth_date if user is not None else None
    born = known or case.subject.birth_date
    if born is None:
        return "neither a user's record nor the entry gives a date of birth"
    return None if _age(born, case.moment) >= least else f"younger than {least}"


def _age(born: date, moment: str) -> int:
    """Whole years on the day of the moment (UTC). Who was born on 29 February turns on 1 March in other years."""
    today = date.fromisoformat(moment[:10])
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))


RULE = Rule(
    position=130,
    code="AGE",
    fails_when="the campaign has `minAge` and the date of birth of the user's record, else of the entry, says younger",
    needs=("campaign", "user"),
    message="You are too young for this campaign.",
    judge=_judge,
    revision=2,
)
