"""Wishes for events that the campaign does not have. The contract cannot close a market, so no rule is about that."""

from __future__ import annotations

from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    # A draw drops what is unknown among the preferences of an entry, and goes by the rest.
    if not case.subject.markets or case.subject.entered_at is not None:
        return None
    known = case.campaign.market_ids
    wrong = [f"markets[{index}]" for index, each in enumerate(case.subject.markets) if each not in known]
    # Whoever asks can mend it. An entry keeps the wishes that can still come true.
    keeps_some = case.subject.entered_at is not None and len(wrong) < len(case.subject.markets)
    return f"{', '.join(wrong)}: the campaign has {', '.join(known)}" if wrong and not keeps_some else None


RULE = Rule(
    position=70,
    code="MARKET_UNKNOWN",
    fails_when="one of `markets` is none of the campaign's (of an entry that stands: all of them are); without"
    " `markets` it passes",
    needs=("campaign",),
    message="One of the events that you chose does not exist.",
    judge=_judge,
)
