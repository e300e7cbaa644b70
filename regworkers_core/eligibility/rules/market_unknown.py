"""Wishes for events that the campaign does not have. The contract cannot close a market, so no rule is about that."""

from __future__ import annotations

from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    # Whoever asks can mend it. Of an entry that stands a draw drops what is unknown, and goes by the rest.
    if not case.subject.markets or case.subject.entered_at is not None:
        return None
    known = case.campaign.market_ids
    wrong = [f"markets[{index}]" for index, each in enumerate(case.subject.markets) if each not in known]
    return f"{', '.join(wrong)}: the campaign has {', '.join(known)}" if wrong else None


RULE = Rule(
    position=70,
    code="MARKET_UNKNOWN",
    fails_when="one of the `markets` of somebody who asks now is none of the campaign's; without `markets` it passes",
    needs=("campaign",),
    message="One of the events that you chose does not exist.",
    judge=_judge,
)
