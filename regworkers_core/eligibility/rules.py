"""The rules in their fixed order, and `judge`, which applies them: a pure function of a subject, facts and a moment.

To add a rule, write its function where it belongs in the order, add it to `RULES`, test it, and put the output of
`python -m regworkers_core.eligibility.rules` into docs/eligibility.md. The version of the rule set, the report of a
campaign and the documentation follow from `RULES`.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple

from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.eligibility import Missing, Status, comparable_region
from regworkers_core.eligibility.case import AsOf, Case, FactMissing, Facts, Identity, NoCampaign, Subject


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of eligibility."""

    code: str  # the reason that an entry gets
    # None for a subject that passes, else the detail for the operator: names of fields, numbers and terms of the
    # campaign, never a value that the fan gave.
    judge: Callable[[Case], str | None]
    needs: tuple[str, ...]  # facts, for the documentation
    message: str  # what the fan reads
    # Raise it whenever the rule decides differently, so that the version of the rule set changes.
    revision: int = 1

    @property
    def fails_when(self) -> str:
        """The docstring of `judge`, for the documentation."""
        return (
            (inspect.getdoc(self.judge) or "").replace("\n", " ").removeprefix("Fail if ").removesuffix(".")
        )


def _missing_field(case: Case) -> str | None:
    """Fail if a required field (campaignSlug, email, firstName, lastName) is absent, null or blank."""
    missing = case.subject.missing
    return f"missing: {', '.join(missing)}" if missing else None


def _invalid_field(case: Case) -> str | None:
    """Fail if a field has the wrong type, is too long, or contains characters that are refused."""
    return "; ".join(map(str, case.subject.invalid)) or None


def _invalid_email(case: Case) -> str | None:
    """Fail if the syntax of the mail address is invalid."""
    what = case.subject.invalid_mail
    return None if what is None else f"email {what}"


def _campaign_not_found(case: Case) -> str | None:
    """Fail if no campaign has the slug or id."""
    return None if case.is_campaign_known else "no campaign has this slug or id"


def _campaign_not_open(case: Case) -> str | None:
    """Fail if the campaign is DRAFT, or the moment of asking or entering is before `opensAt`."""
    campaign = case.campaign
    if campaign.status is CampaignStatus.DRAFT:
        return "the campaign is DRAFT"
    return f"it opens at {campaign.opens_at}" if case.moment < campaign.opens_at else None


def _campaign_closed(case: Case) -> str | None:
    """Fail if the moment is at or after `closesAt`, or at or after an earlier manual closing; for a fan who asks now
    also if the status is past OPEN.
    """
    campaign = case.campaign
    asks_now = case.subject.entered_at is None
    if asks_now and CampaignStatus.OPEN.is_before(campaign.status):
        return f"the campaign is {campaign.status}"
    end = campaign.takes_entries_until
    return f"it closed at {end}" if case.moment >= end else None


def _market_unknown(case: Case) -> str | None:
    """Fail if a fan who asks now lists a market in `markets` that the campaign does not have; without `markets` it
    passes.
    """
    # A fan who asks can correct it. Of a saved entry, the draw drops unknown markets and uses the others.
    if not case.subject.markets or case.subject.entered_at is not None:
        return None
    known = case.campaign.market_ids
    wrong = [f"markets[{index}]" for index, each in enumerate(case.subject.markets) if each not in known]
    return f"{', '.join(wrong)}: the campaign has {', '.join(known)}" if wrong else None


def _not_invited(case: Case) -> str | None:
    """Fail if the campaign is `inviteOnly` and no invite of one of its `inviteTypes` has a `ttl` after the moment."""
    terms = case.campaign.eligibility
    if not terms.invite_only:
        return None
    invites, moment = case.invites, case.moment_seconds
    counting = [invites[kind] for kind in terms.invite_types if kind in invites]
    if any(ttl > moment for ttl in counting):
        return None
    kinds = ", ".join(kind.value for kind in terms.invite_types)
    return f"{'only an expired' if counting else 'no'} invite by {kinds}"


def _user_required(case: Case) -> str | None:
    """Fail if the campaign has `requireVerifiedPhone`, so it needs a user's record, and the entry has no
    `globalUserId`.
    """
    if not case.campaign.eligibility.require_verified_phone or case.subject.global_user_id is not None:
        return None
    return "no globalUserId: the campaign needs a user's record"


def _blocked(case: Case) -> str | None:
    """Fail if the user's record says so; without a record it passes, unless the campaign requires one."""
    # If the campaign requires the record, a missing record must not count as "not blocked".
    required = case.campaign.eligibility.require_verified_phone
    user = case.user if required else case.user_if_known
    return "the user's record says blocked" if user is not None and user.blocked else None


def _phone_not_verified(case: Case) -> str | None:
    """Fail if the campaign has `requireVerifiedPhone` and no user's record under the `globalUserId` says verified."""
    # Without a globalUserId there is no record: USER_REQUIRED says so.
    if not case.campaign.eligibility.require_verified_phone or case.subject.global_user_id is None:
        return None
    user = case.user
    if user is None:
        return "the User Service has no record of this globalUserId"
    return None if user.verified_phone else "the user's record says not verified"


def _region(case: Case) -> str | None:
    """Fail if the campaign has `regions`, and the region of the user's record, else of the entry, is not among them."""
    admitted = case.campaign.eligibility.regions
    if not admitted:
        return None
    user = case.user
    recorded = comparable_region(user.region) if user is not None and user.region else None
    region = recorded or case.subject.region
    if region is None:
        return "neither a user's record nor the entry names a region"
    return None if region in admitted else f"admitted are {', '.join(admitted)}"


def _age(case: Case) -> str | None:
    """Fail if the campaign has `minAge`, and the date of birth of the user's record, else of the entry, gives a lower
    age.
    """
    least = case.campaign.eligibility.min_age
    if least is None:
        return None
    user = case.user
    born = (user.birth_date if user is not None else None) or case.subject.birth_date
    if born is None:
        return "neither a user's record nor the entry gives a date of birth"
    # Whole years on the day (UTC); a birthday on 29 February is on 1 March in other years.
    today = date.fromisoformat(case.moment[:10])
    age = today.year - born.year - ((today.month, today.day) < (born.month, born.day))
    return None if age >= least else f"younger than {least}"


def _already_entered(case: Case) -> str | None:
    """Fail if an earlier entry of the campaign has the same mail address (compared), globalUserId or memberId."""
    if not case.is_campaign_known or not case.subject.identities:
        return None
    by = case.duplicates
    named = [kind.value for kind in Identity if kind in by]
    return f"an earlier entry has the same {', '.join(named)}" if named else None


def _household_limit(case: Case) -> str | None:
    """Fail if the campaign has `maxPerUnit`, and that number of earlier entries has the same `unit`; without `unit` it
    passes.
    """
    most = case.campaign.eligibility.max_per_unit
    if most is None or case.subject.unit is None:
        return None
    return f"the limit is {most}" if case.household >= most else None


# The first rule that fails gives the primary reason.
RULES = (
    Rule("MISSING_FIELD", _missing_field, (), "Please fill in all fields that are required."),
    Rule(
        "INVALID_FIELD", _invalid_field, (), "Something that you filled in cannot be read. Please check it."
    ),
    Rule("INVALID_EMAIL", _invalid_email, (), "This is not a mail address. Please check it."),
    Rule("CAMPAIGN_NOT_FOUND", _campaign_not_found, ("campaign",), "This campaign does not exist."),
    Rule("CAMPAIGN_NOT_OPEN", _campaign_not_open, ("campaign",), "Registration has not opened yet."),
    Rule("CAMPAIGN_CLOSED", _campaign_closed, ("campaign",), "Registration has closed."),
    Rule(
        "MARKET_UNKNOWN", _market_unknown, ("campaign",), "One of the events that you chose does not exist."
    ),
    Rule("NOT_INVITED", _not_invited, ("campaign", "invites"), "This registration is by invitation only."),
    Rule("USER_REQUIRED", _user_required, ("campaign",), "Please sign in first."),
    Rule("BLOCKED", _blocked, ("campaign", "user"), "You cannot take part in this campaign."),
    Rule(
        "PHONE_NOT_VERIFIED",
        _phone_not_verified,
        ("campaign", "user"),
        "Please verify your phone number first.",
        revision=2,
    ),
    Rule("REGION", _region, ("campaign", "user"), "This campaign is not open to your region.", revision=2),
    Rule("AGE", _age, ("campaign", "user"), "You are too young for this campaign.", revision=2),
    Rule("ALREADY_ENTERED", _already_entered, ("campaign", "duplicates"), "You have entered already."),
    Rule(
        "HOUSEHOLD_LIMIT",
        _household_limit,
        ("campaign", "household"),
        "Your household has entered as often as it may.",
    ),
)


@lru_cache(maxsize=1)
def rule_set() -> str:
    """Return the version of the rules: equal for equal rules, `<number of rules>-<hash>`."""
    # Each rule's position counts in tens, as it did when published verdicts and draws recorded this version.
    text = "\n".join(f"{n * 10} {rule.code} {rule.revision}" for n, rule in enumerate(RULES, 1))
    return f"{len(RULES)}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


class FailedRule(NamedTuple):
    """`message` is for the fan, `detail` for the operator."""

    code: str
    message: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reasons` are all rules that failed, in order; `missing` the facts, by name, that a rule needed."""

    reasons: tuple[FailedRule, ...]
    missing: Mapping[str, Missing]

    @property
    def status(self) -> Status:
        """A rule that certainly failed outweighs a missing fact."""
        if self.reasons:
            return Status.INELIGIBLE
        return Status.UNKNOWN if self.missing else Status.ELIGIBLE

    @property
    def primary_reason(self) -> str | None:
        return self.reasons[0].code if self.reasons else None

    def as_answer(
        self, facts: Facts, as_of: AsOf, correlation_id: str, *, to_a_fan: bool = False
    ) -> dict[str, Any]:
        """Return the answer document; a fan's has no details, sources or names of dependencies."""
        status = self.status
        document: dict[str, Any] = {
            "status": status.value,
            "eligible": _ELIGIBLE[status],
            "reasons": [each._asdict() for each in self.reasons],
            "primaryReason": self.primary_reason,
            "ruleSet": rule_set(),
            "asOf": as_of.text,
            "openedHash": facts.opened_hash,
            "sources": facts.sources(),
            "missing": [
                {"fact": name, "dependency": missing.dependency} for name, missing in self.missing.items()
            ],
            "correlationId": correlation_id,
        }
        if to_a_fan:
            document["reasons"] = [{"code": each.code, "message": each.message} for each in self.reasons]
            document["missing"] = [{"fact": name} for name in self.missing]
            del document["sources"]
        return document


_ELIGIBLE = {Status.ELIGIBLE: True, Status.INELIGIBLE: False, Status.UNKNOWN: None}


def judge(subject: Subject, facts: Facts, as_of: AsOf) -> Verdict:
    """Apply every rule. Never raises, whatever a subject or its facts contain.

    The same rules judge a fan who asks now (`subject.entered_at` is None: windows, invites and ages are those of
    `as_of`, and every other entry counts as earlier) and a saved entry (they are those of its `createdAt`; see `Facts`
    for which entries count as earlier). To judge a whole campaign, read each entry with `request.subject_of`, supply
    the facts of one sorted pass, and make one `AsOf`. A fact that is not supplied is UNKNOWN where a rule needs it.
    """
    case = Case(subject, facts, as_of)
    reasons: list[FailedRule] = []
    missing: dict[str, Missing] = {}
    for rule in RULES:
        try:
            detail = rule.judge(case)
        except FactMissing as need:
            missing.setdefault(need.fact, need.missing)
            continue
        except NoCampaign:
            continue
        if detail is not None:
            reasons.append(FailedRule(rule.code, rule.message, detail))
    return Verdict(tuple(reasons), missing)
