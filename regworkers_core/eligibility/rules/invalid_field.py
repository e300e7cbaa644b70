"""What cannot be read."""

from __future__ import annotations

from regworkers_core.eligibility.case import Case
from regworkers_core.eligibility.rule import Rule


def _judge(case: Case) -> str | None:
    return "; ".join(map(str, case.subject.invalid)) or None


RULE = Rule(
    position=20,
    code="INVALID_FIELD",
    fails_when="a field has the wrong type, is too long, or holds characters that are refused",
    needs=(),
    message="Something that you filled in cannot be read. Please check it.",
    judge=_judge,
)
