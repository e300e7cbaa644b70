"""Mail addresses that mail cannot be sent to."""

from __future__ import annotations

from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    what = case.subject.invalid_mail
    return None if what is None else f"email {what}"


RULE = Rule(
    position=30,
    code="INVALID_EMAIL",
    fails_when="the mail address is not one that mail can be sent to, by its syntax",
    needs=(),
    message="This is not a mail address. Please check it.",
    judge=_judge,
)
