"""The judgement: a pure function of a subject, its facts, and a moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from regworkers_core.domain.eligibility import Missing, Status
from regworkers_core.eligibility.case import AsOf, Case, FactMissing, NoCampaign
from regworkers_core.eligibility.facts import Facts
from regworkers_core.eligibility.rule import all_rules, rule_set
from regworkers_core.eligibility.subject import Subject


class FailedRule(NamedTuple):
    """`message` is for the fan, `detail` for the operator."""

    code: str
    message: str
    detail: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """`reasons` are all rules that failed, in their fixed order; `missing` the facts that a rule could not do
    without, by name.
    """

    reasons: tuple[FailedRule, ...]
    missing: Mapping[str, Missing]

    @property
    def status(self) -> Status:
        """A rule that failed for certain outweighs what is not known."""
        if self.reasons:
            return Status.INELIGIBLE
        return Status.UNKNOWN if self.missing else Status.ELIGIBLE

    @property
    def primary_reason(self) -> str | None:
        return self.reasons[0].code if self.reasons else None

    def as_answer(
        self, facts: Facts, as_of: AsOf, correlation_id: str, *, to_a_fan: bool = False
    ) -> dict[str, Any]:
        """The answer document, as it leaves the house; to a fan without what is the operator's."""
        status = self.status
        if to_a_fan:
            return {
                "status": status.value,
                "eligible": _ELIGIBLE[status],
                "reasons": [{"code": each.code, "message": each.message} for each in self.reasons],
                "primaryReason": self.primary_reason,
                "ruleSet": rule_set(),
                "asOf": as_of.text,
                "missing": [{"fact": name} for name in self.missing],
                "correlationId": correlation_id,
            }
        return {
            "status": status.value,
            "eligible": _ELIGIBLE[status],
            "reasons": [each._asdict() for each in self.reasons],
            "primaryReason": self.primary_reason,
            "ruleSet": rule_set(),
            "asOf": as_of.text,
            "sources": facts.sources(),
            "missing": [
                {"fact": name, "dependency": missing.dependency} for name, missing in self.missing.items()
            ],
            "correlationId": correlation_id,
        }


_ELIGIBLE = {Status.ELIGIBLE: True, Status.INELIGIBLE: False, Status.UNKNOWN: None}


def judge(subject: Subject, facts: Facts, as_of: AsOf) -> Judgement:
    """Ask every rule. Never raises for anything that a subject or its facts hold.

    The same rules judge somebody who asks now (`subject.entered_at` None: windows, invites and ages are those of
    `as_of`, everybody who entered stands before) and an entry that stands (those of its `createdAt`; see `Facts`
    for who stands before it). A run over a whole campaign reads each entry with `request.subject_of`, supplies the
    facts of one sorted pass, and makes one `AsOf`; a fact that it does not supply is UNKNOWN where a rule needs it.
    """
    case = Case(subject, facts, as_of)
    reasons: list[FailedRule] = []
    missing: dict[str, Missing] = {}
    for rule in all_rules():
        try:
            detail = rule.judge(case)
        except FactMissing as need:
            missing.setdefault(need.fact, need.missing)
            continue
        except NoCampaign:
            continue
        if detail is not None:
            reasons.append(FailedRule(rule.code, rule.message, detail))
    return Judgement(tuple(reasons), missing)
