"""Each rule: when it fails, when it passes, when it cannot tell. Together they have a fixed order and a version."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from regworkers_core.domain.claim import InviteType, User
from regworkers_core.domain.eligibility import NOT_ASKED, FactSource, Known, Missing, Status
from regworkers_core.eligibility import rules
from regworkers_core.eligibility.case import (
    AsOf,
    Case,
    FactMissing,
    Facts,
    Identity,
    Subject,
)
from regworkers_core.eligibility.request import subject_of
from regworkers_core.eligibility.rules import RULES, Verdict, _blocked, judge, rule_set
from tests.eligibility.world import campaign

NOW = 1_782_864_000.0  # 2026-07-01
AS_OF = AsOf.at(NOW)
UNREAD = Missing("mongo", "no answer")
ENTRY = {"email": "fan@example.com", "firstName": "Zoë", "lastName": "Łukasz", "globalUserId": "g1"}


def facts(**changes: Any) -> Facts:
    """All known: no other entry, no invite, and a user's record that passes every rule."""
    terms = changes.pop("terms", {})
    known = {
        "campaign": campaign(eligibility=terms, **changes.pop("campaign", {})),
        "invites": {},
        "duplicates": frozenset(),
        "household": 0,
        "user": User(verified_phone=True, blocked=False, region="DE", birth_date=date(1990, 1, 1)),
        **changes,
    }
    return Facts(
        **{
            name: value if isinstance(value, Missing) else Known(value, FactSource.DATABASE)
            for name, value in known.items()
        }
    )


def fan(**changes: Any) -> Subject:
    entry = {name: value for name, value in {**ENTRY, **changes}.items() if value is not None}
    return subject_of(entry)


def saved(created_at: str, **changes: Any) -> Subject:
    return subject_of({**ENTRY, **changes}, entry_id="e1", created_at=created_at)


def said(judgement: Verdict) -> str:
    """The one failed rule, `UNKNOWN <fact>`, or `ELIGIBLE`."""
    if judgement.status is Status.UNKNOWN:
        return f"UNKNOWN {' '.join(judgement.missing)}"
    return " ".join(reason.code for reason in judgement.reasons) or "ELIGIBLE"


def verdict(subject: Subject, facts: Facts) -> str:
    return said(judge(subject, facts, AS_OF))


def test_a_fan_who_passes_every_rule_is_eligible() -> None:
    assert verdict(fan(), facts()) == "ELIGIBLE"


def test_all_required_fields_that_are_missing_are_named_at_once() -> None:
    (reason,) = judge(fan(email=None, firstName=" ", lastName=None), facts(), AS_OF).reasons
    assert (reason.code, reason.detail) == ("MISSING_FIELD", "missing: email, firstName, lastName")


def test_invalid_fields_are_named_with_their_problems() -> None:
    (reason,) = judge(fan(firstName=5, unit="a b"), facts(), AS_OF).reasons
    assert reason.code == "INVALID_FIELD"
    assert reason.detail == (
        "firstName should be a text, found int; unit should be 1 to 64 of the characters A-Z a-z 0-9 _ -"
    )


@pytest.mark.parametrize("email", ["fan", "fan@", 5, "a" * 300 + "@example.com", "\u202efan@example.com"])
def test_what_is_no_mail_address_is_said_to_be_none(email: Any) -> None:
    assert verdict(fan(email=email), facts()) == "INVALID_EMAIL"


def test_an_unknown_campaign_is_the_only_reason() -> None:
    unknown = Facts(Known(None, FactSource.DATABASE))
    assert verdict(fan(markets=["x"]), unknown) == "CAMPAIGN_NOT_FOUND"


def test_a_campaign_that_could_not_be_read_is_unknown() -> None:
    assert verdict(fan(), Facts(UNREAD)) == "UNKNOWN campaign"


@pytest.mark.parametrize(
    ("status", "opens_at", "closes_at", "expected"),
    [
        ("DRAFT", "2026-01-01", "2027-01-01", "CAMPAIGN_NOT_OPEN"),
        ("OPEN", "2026-07-01T00:00:00.001Z", "2027-01-01", "CAMPAIGN_NOT_OPEN"),
        ("OPEN", "2026-07-01T00:00:00.000Z", "2027-01-01", "ELIGIBLE"),
        ("OPEN", "2026-01-01", "2026-07-01T00:00:00.001Z", "ELIGIBLE"),
        ("OPEN", "2026-01-01", "2026-07-01T00:00:00.000Z", "CAMPAIGN_CLOSED"),
        ("CLOSED", "2026-01-01", "2027-01-01", "CAMPAIGN_CLOSED"),
        ("PROCESSING", "2026-01-01", "2027-01-01", "CAMPAIGN_CLOSED"),
        ("COMPLETED", "2026-01-01", "2026-06-01", "CAMPAIGN_CLOSED"),
    ],
)
def test_a_fan_who_asks_now_is_judged_by_status_and_window(
    status: str, opens_at: str, closes_at: str, expected: str
) -> None:
    window = {"status": status, "opensAt": opens_at, "closesAt": closes_at}
    assert verdict(fan(), facts(campaign=window)) == expected


CLOSED = {
    "status": "PROCESSING",
    "opensAt": "2026-02-01",
    "closesAt": "2026-06-01",
    "transitions": [
        {
            "from": "OPEN",
            "to": "CLOSED",
            "at": "2026-05-01T12:00:00.000Z",
            "reason": "",
            "runId": "",
            "token": 1,
        },
        {"from": "CLOSED", "to": "PROCESSING", "at": "2026-05-02T00:00:00.000Z", "token": 2},
    ],
}


@pytest.mark.parametrize(
    ("created_at", "expected"),
    [
        ("2026-01-31T23:59:59.999Z", "CAMPAIGN_NOT_OPEN"),
        ("2026-02-01T00:00:00.000Z", "ELIGIBLE"),
        ("2026-02-01T01:00:00+01:00", "ELIGIBLE"),
        ("2026-05-01T11:59:59.999Z", "ELIGIBLE"),
        ("2026-05-01T12:00:00.000Z", "CAMPAIGN_CLOSED"),
        ("2026-08-01T12:00:00.000Z", "CAMPAIGN_CLOSED"),
        ("", "UNKNOWN createdAt"),
        ("yesterday", "UNKNOWN createdAt"),
    ],
)
def test_a_saved_entry_is_judged_by_the_window_at_its_own_time(created_at: str, expected: str) -> None:
    assert verdict(saved(created_at), facts(campaign=CLOSED)) == expected


def test_closing_late_leaves_the_announced_end() -> None:
    late = {**CLOSED, "closesAt": "2026-04-01"}
    assert verdict(saved("2026-04-15T00:00:00.000Z"), facts(campaign=late)) == "CAMPAIGN_CLOSED"


def test_an_unknown_market_is_pointed_at_and_none_is_fine() -> None:
    (reason,) = judge(fan(markets=["berlin", "fan@example.com"]), facts(), AS_OF).reasons
    assert (reason.code, reason.detail) == ("MARKET_UNKNOWN", "markets[1]: the campaign has berlin, paris")
    assert verdict(fan(markets=["paris", "berlin"]), facts()) == "ELIGIBLE"
    assert verdict(fan(markets=[]), facts()) == "ELIGIBLE"


def test_unknown_markets_of_a_saved_entry_are_left_to_the_draw() -> None:
    at = "2026-03-01T00:00:00.000Z"
    assert verdict(saved(at, markets=["gone", "berlin"]), facts()) == "ELIGIBLE"
    assert verdict(saved(at, markets=["gone"]), facts()) == "ELIGIBLE"


INVITED = {"inviteOnly": True}


@pytest.mark.parametrize(
    ("terms", "invites", "expected"),
    [
        ({}, {}, "ELIGIBLE"),
        ({}, UNREAD, "ELIGIBLE"),
        ({}, NOT_ASKED, "ELIGIBLE"),
        (INVITED, {}, "NOT_INVITED"),
        (INVITED, UNREAD, "UNKNOWN invites"),
        (INVITED, {InviteType.EMAIL: NOW + 1}, "ELIGIBLE"),
        (INVITED, {InviteType.MEMBER_ID: NOW + 1}, "ELIGIBLE"),
        (INVITED, {InviteType.EMAIL: NOW}, "NOT_INVITED"),
        (INVITED, {InviteType.EMAIL: NOW - 1, InviteType.GLOBAL_USER_ID: NOW + 1}, "ELIGIBLE"),
        ({**INVITED, "inviteTypes": ["memberId"]}, {InviteType.EMAIL: NOW + 1}, "NOT_INVITED"),
    ],
)
def test_invites_count_by_their_type_and_until_they_expire(
    terms: dict[str, Any], invites: Any, expected: str
) -> None:
    assert verdict(fan(), facts(terms=terms, invites=invites)) == expected


def test_an_entry_keeps_the_invite_that_it_had_when_it_entered() -> None:
    invites = {InviteType.EMAIL: NOW - 1}
    assert verdict(saved("2026-06-01T00:00:00.000Z"), facts(terms=INVITED, invites=invites)) == "ELIGIBLE"
    assert verdict(saved("2026-07-01T00:00:00.000Z"), facts(terms=INVITED, invites=invites)) == "NOT_INVITED"


def user(**changes: Any) -> User:
    return User(**{"verified_phone": True, "blocked": False, **changes})


PHONE = {"requireVerifiedPhone": True}


@pytest.mark.parametrize(
    ("terms", "known", "expected"),
    [
        ({}, user(blocked=True), "BLOCKED"),
        ({}, UNREAD, "ELIGIBLE"),
        ({}, None, "ELIGIBLE"),
        (PHONE, user(), "ELIGIBLE"),
        (PHONE, user(verified_phone=False), "PHONE_NOT_VERIFIED"),
        (PHONE, user(verified_phone=False, blocked=True), "BLOCKED PHONE_NOT_VERIFIED"),
        (PHONE, UNREAD, "UNKNOWN user"),
        (PHONE, None, "PHONE_NOT_VERIFIED"),
        ({"regions": ["DE"]}, user(region="de"), "ELIGIBLE"),
        ({"regions": ["DE"]}, user(region="FR"), "REGION"),
        ({"regions": ["DE"]}, user(), "REGION"),
        ({"regions": ["DE"]}, UNREAD, "UNKNOWN user"),
        ({"minAge": 18}, user(birth_date=date(2008, 7, 1)), "ELIGIBLE"),
        ({"minAge": 18}, user(birth_date=date(2008, 7, 2)), "AGE"),
        ({"minAge": 18}, user(), "AGE"),
        ({"minAge": 18}, UNREAD, "UNKNOWN user"),
    ],
)
def test_a_users_record_is_needed_where_the_campaign_asks(
    terms: dict[str, Any], known: Any, expected: str
) -> None:
    assert verdict(fan(), facts(terms=terms, user=known)) == expected


def test_a_required_record_that_is_missing_does_not_count_as_not_blocked() -> None:
    with pytest.raises(FactMissing):
        _blocked(Case(fan(), facts(terms=PHONE, user=UNREAD), AS_OF))
    assert _blocked(Case(fan(), facts(user=UNREAD), AS_OF)) is None


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (PHONE, "USER_REQUIRED"),
        ({"regions": ["DE"]}, "REGION"),
        ({"minAge": 1}, "AGE"),
        ({}, "ELIGIBLE"),
    ],
)
def test_without_an_id_a_required_record_is_certainly_missing(terms: dict[str, Any], expected: str) -> None:
    assert verdict(fan(globalUserId=None), facts(terms=terms, user=UNREAD)) == expected


@pytest.mark.parametrize("where", [{}, {"attributes": {"region": "fr", "birthDate": "2010-01-01"}}])
def test_the_users_record_takes_precedence_over_the_entry(where: dict[str, Any]) -> None:
    top = {} if where else {"region": " Fr ", "birthDate": "2010-01-01"}
    declared = fan(**top, **where)
    german_adult = user(region="DE", birth_date=date(1990, 1, 1))
    assert verdict(declared, facts(terms={"regions": ["FR"]}, user=german_adult)) == "REGION"
    assert verdict(declared, facts(terms={"regions": ["DE"], "minAge": 18}, user=german_adult)) == "ELIGIBLE"
    silent = {"regions": ["FR"], "minAge": 18}
    for nothing in (user(), None):
        assert verdict(declared, facts(terms=silent, user=nothing)) == "AGE", "the record says nothing"
    assert verdict(declared, facts(terms=silent, user=UNREAD)) == "UNKNOWN user", "it may say otherwise"


def test_a_campaign_of_verified_users_needs_one_that_is_named() -> None:
    (reason,) = judge(fan(globalUserId=None), facts(terms=PHONE, user=UNREAD), AS_OF).reasons
    assert (reason.code, reason.message) == ("USER_REQUIRED", "Please sign in first.")
    assert verdict(fan(globalUserId=None), facts()) == "ELIGIBLE"


def test_who_was_born_on_a_leap_day_turns_on_the_first_of_march() -> None:
    terms = {"minAge": 18}
    born = "2008-02-29"
    known = facts(terms=terms, user=None)
    assert verdict(saved("2026-02-28T23:00:00.000Z", birthDate=born), known) == "AGE"
    assert verdict(saved("2026-03-01T00:00:00.000Z", birthDate=born), known) == "ELIGIBLE"


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (frozenset(), "ELIGIBLE"),
        (frozenset({Identity.MEMBER_ID, Identity.EMAIL}), "ALREADY_ENTERED"),
        (UNREAD, "UNKNOWN duplicates"),
    ],
)
def test_an_earlier_entry_of_the_same_person_excludes(by: Any, expected: str) -> None:
    judgement = judge(fan(), facts(duplicates=by), AS_OF)
    assert said(judgement) == expected
    if judgement.reasons:
        assert judgement.reasons[0].detail == "an earlier entry has the same email, memberId"


@pytest.mark.parametrize(
    ("unit", "others", "expected"),
    [
        ("u1", 1, "ELIGIBLE"),
        ("u1", 2, "HOUSEHOLD_LIMIT"),
        ("u1", UNREAD, "UNKNOWN household"),
        (None, UNREAD, "ELIGIBLE"),
    ],
)
def test_a_household_enters_as_often_as_the_campaign_says(
    unit: str | None, others: Any, expected: str
) -> None:
    assert verdict(fan(unit=unit), facts(terms={"maxPerUnit": 2}, household=others)) == expected
    assert verdict(fan(unit=unit), facts(household=UNREAD)) == "ELIGIBLE"


CODES = """MISSING_FIELD INVALID_FIELD INVALID_EMAIL CAMPAIGN_NOT_FOUND CAMPAIGN_NOT_OPEN CAMPAIGN_CLOSED MARKET_UNKNOWN
NOT_INVITED USER_REQUIRED BLOCKED PHONE_NOT_VERIFIED REGION AGE ALREADY_ENTERED HOUSEHOLD_LIMIT"""


def test_the_order_of_the_rules_is_fixed() -> None:
    assert [rule.code for rule in RULES] == CODES.split()


def test_each_function_is_a_rule_of_its_code() -> None:
    assert [rule.judge.__name__ for rule in RULES] == [f"_{rule.code.lower()}" for rule in RULES]


def test_the_version_of_the_rules_is_the_one_that_published_verdicts_name() -> None:
    assert rule_set() == "15-24e9f3aee8d7", "a rule has changed: put its new version here"


def test_the_version_changes_with_a_revision_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    before = rule_set()
    assert rule_set.__wrapped__() == before
    first, *others = RULES
    monkeypatch.setattr(rules, "RULES", (replace(first, revision=2), *others))
    assert rule_set.__wrapped__() != before
