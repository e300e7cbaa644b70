"""A fan does not choose their own odds: the caller decides which fields are accepted and what the answer says."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regworkers_core.domain.claim import Invite, InviteType, User
from regworkers_core.eligibility.case import Identity
from regworkers_core.eligibility.identity import FAN, TRUSTED, Caller, appsync_caller, direct_caller
from regworkers_core.eligibility.request import read_check
from regworkers_core.settings.flows import EligibilitySettings
from tests.eligibility.fakes import NOW
from tests.eligibility.test_transfer import Desk
from tests.eligibility.world import check, codes
from tests.support.entries import item, key

BACKEND = "arn:aws:iam::123456789012:role/backends/registration"
SESSION = "arn:aws:sts::123456789012:assumed-role/registration/i-0abc"
SETTINGS = EligibilitySettings(
    trusted_callers=(BACKEND,), member_id_claim="custom:memberId", email_claim="email"
)
PLAIN = EligibilitySettings()
ODDS = {"weight": 64, "segments": ["loyal", "vip"], "unit": "mine"}
SIGNED_IN = {
    "claims": {"sub": "g1", "custom:memberId": "m1", "email": "Fan@example.com", "email_verified": True}
}


def caller(identity: Any, chosen: EligibilitySettings = SETTINGS) -> Caller:
    return appsync_caller({"arguments": {}, "identity": identity, "info": {}}, chosen)


# Who is believed.


def test_a_session_of_a_trusted_role_is_trusted_under_any_session_name() -> None:
    assert caller({"userArn": SESSION, "accountId": "123456789012", "cognitoIdentityId": None}) == TRUSTED
    assert caller({"userArn": SESSION.replace("i-0abc", "another")}) == TRUSTED


@pytest.mark.parametrize(
    "identity",
    [
        None,
        {},
        [],
        "arn:aws:sts::123456789012:assumed-role/registration/i-0abc",
        {"userArn": None},
        {"userArn": [SESSION]},
        {"userArn": BACKEND},
        {"userArn": "arn:aws:sts::123456789012:assumed-role/other/registration"},
        {"userArn": "arn:aws:sts::210987654321:assumed-role/registration/i-0abc"},
        {"userArn": "arn:aws:sts::123456789012:assumed-role/registration"},
        {"userArn": "arn:aws:iam::123456789012:user/registration"},
        {"userArn": SESSION + "\n"},
        {"userArn": SESSION, "cognitoIdentityId": "eu-west-1:0000"},
        {"userArn": SESSION, "cognitoIdentityPoolId": "eu-west-1:0000"},
        {"claims": {"userArn": SESSION, "sub": "g1"}},
        {"resolverContext": {"userArn": SESSION}},
        {"username": SESSION, "sub": SESSION},
    ],
)
def test_everybody_else_is_a_fan(identity: Any) -> None:
    assert not caller(identity).is_trusted


def test_an_appsync_caller_is_trusted_only_if_the_settings_name_them() -> None:
    assert not caller({"userArn": SESSION}, PLAIN).is_trusted


def test_what_arguments_and_headers_say_of_the_caller_counts_for_nothing() -> None:
    forged = {"identity": {"userArn": SESSION}, "userArn": SESSION, "claims": SIGNED_IN["claims"]}
    event = {
        "arguments": forged,
        "identity": None,
        "info": forged,
        "request": {"headers": forged},
        **SIGNED_IN,
    }
    assert appsync_caller(event, SETTINGS).vouched == {} and not appsync_caller(event, SETTINGS).is_trusted


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.dictionaries(
            st.sampled_from(["userArn", "claims", "resolverContext", "sub", "email", "email_verified"]),
            inner,
            max_size=4,
        ),
    )
)
@settings(max_examples=100)
def test_no_identity_raises_or_is_trusted(identity: Any) -> None:
    assert not caller(identity).is_trusted


def test_a_direct_call_is_trusted_unless_the_settings_say_fan() -> None:
    assert direct_caller(PLAIN) == TRUSTED
    assert direct_caller(EligibilitySettings(direct_callers="fan")) == FAN


@pytest.mark.parametrize("place", ["claims", "resolverContext"])
def test_claims_that_the_settings_name_vouch_for_identities(place: str) -> None:
    found = caller({place: {"sub": " g1 ", "custom:memberId": 77, "other": "x"}}).vouched
    assert found == {Identity.GLOBAL_USER_ID: "g1", Identity.MEMBER_ID: "77"}


@pytest.mark.parametrize("value", [None, "", " ", True, [], {"a": 1}, "x" * 300, 1.5])
def test_a_claim_that_is_no_id_vouches_for_nothing(value: Any) -> None:
    assert caller({"claims": {"sub": value}}).vouched == {}


@pytest.mark.parametrize(
    ("verified", "counts"),
    [(True, True), ("true", True), (False, False), ("false", False), (None, False), (2, False)],
)
def test_an_address_counts_once_the_provider_has_verified_it(verified: Any, counts: bool) -> None:
    found = caller({"claims": {"email": "fan@example.com", "email_verified": verified}}).vouched
    assert (Identity.EMAIL in found) is counts


# What is taken from them.


def test_a_fan_has_no_weight_segments_or_unit_whatever_they_say() -> None:
    asked = read_check(check(**ODDS, markets=["paris"]), FAN)
    assert not {"weight", "segments", "unit"} & asked.fields.keys() and asked.subject.unit is None
    assert asked.not_taken == ("weight", "segments", "unit") and asked.fields["markets"] == ["paris"]
    trusted = read_check(check(**ODDS), TRUSTED)
    assert {name: trusted.fields[name] for name in ODDS} == ODDS and trusted.not_taken == ()


def test_what_is_not_taken_is_not_complained_about_either() -> None:
    assert read_check(check(weight="heavy", segments=5, unit=["x"]), FAN).subject.invalid == ()


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ({"globalUserId": "g2"}, ["globalUserId"]),
        ({"memberId": "m2"}, ["memberId"]),
        ({"email": "else@example.com"}, ["email"]),
        (
            {"globalUserId": "g2", "memberId": 1, "email": "else@example.com"},
            ["email", "globalUserId", "memberId"],
        ),
        ({"globalUserId": " g1 ", "memberId": "m1", "email": "fan@EXAMPLE.com"}, []),
        ({}, []),
    ],
)
def test_a_signed_in_fan_has_their_own_identities_and_no_others(
    entry: dict[str, Any], wrong: list[str]
) -> None:
    subject = read_check(check(**entry), caller(SIGNED_IN)).subject
    assert [each.field for each in subject.invalid] == wrong
    own = {Identity.EMAIL: "fan@example.com", Identity.GLOBAL_USER_ID: "g1", Identity.MEMBER_ID: "m1"}
    assert subject.identities == {kind: value for kind, value in own.items() if kind.value not in wrong}


def test_a_vouched_identity_is_written_to_the_entry_even_if_the_fan_omits_it() -> None:
    fields = read_check(check(email=None, doTransfer=True), caller(SIGNED_IN)).fields
    assert (fields["email"], fields["globalUserId"], fields["memberId"]) == ("Fan@example.com", "g1", "m1")


@pytest.mark.parametrize("identity", [None, {}, {"claims": {}}, {"claims": {"name": "g1"}}])
def test_an_identity_without_a_vouching_claim_is_refused(identity: Any) -> None:
    asked = read_check(check(globalUserId="g1", memberId="m1"), caller(identity, PLAIN))
    assert [each.field for each in asked.subject.invalid] == ["globalUserId", "memberId"]
    assert not {"globalUserId", "memberId"} & asked.fields.keys()


# What the answer says, and what is looked up for it.

STRICT = {"requireVerifiedPhone": True, "minAge": 18, "regions": ["DE"]}
ADULT = User(verified_phone=True, blocked=False, region="DE", birth_date=date(1990, 1, 1))
CHILD = User(verified_phone=True, blocked=True, region="US", birth_date=date(2015, 1, 1))


def ask(desk: Desk, who: Caller, **entry: Any) -> dict[str, Any]:
    (answer,) = desk.checker.check([check(**entry)], lambda _: None, callers=[who])
    return answer


def test_another_persons_id_admits_no_fan_and_reveals_nothing_of_its_owner() -> None:
    desk = Desk(eligibility=STRICT)
    desk.world.users.records |= {"g1": ADULT, "g2": CHILD}
    forged = {"birthDate": "1990-01-01", "region": "DE", "doTransfer": True}
    for owner in ("g1", "g2", "g3"):
        answer = ask(desk, caller(None, PLAIN), globalUserId=owner, **forged)
        assert (
            codes(answer) == ["INVALID_FIELD", "USER_REQUIRED"] and answer["transfer"]["state"] == "refused"
        )
    assert desk.world.users.asked == [] and desk.entries == []
    child = caller({"claims": {"sub": "g2"}}, PLAIN)
    assert codes(ask(desk, child, **forged)) == ["BLOCKED", "REGION", "AGE"]
    assert ask(desk, caller({"claims": {"sub": "g1"}}, PLAIN), **forged)["transfer"]["state"] == "created"
    assert desk.entries[0]["globalUserId"] == "g1"


def test_a_blocked_fan_cannot_omit_their_identity() -> None:
    desk = Desk()
    desk.world.users.records["g2"] = CHILD
    assert codes(ask(desk, caller({"claims": {"sub": "g2"}}, PLAIN))) == ["BLOCKED"]


def test_an_answer_to_a_fan_has_nothing_of_the_operators() -> None:
    desk = Desk(eligibility={"minAge": 18})
    answer = ask(desk, FAN, markets=["nowhere"])
    assert answer["reasons"] == [
        {"code": "MARKET_UNKNOWN", "message": "One of the events that you chose does not exist."},
        {"code": "AGE", "message": "You are too young for this campaign."},
    ]
    assert answer.keys() == {
        *("status", "eligible", "reasons", "primaryReason", "ruleSet", "asOf", "openedHash", "missing"),
        "correlationId",
    }
    desk.world.users.trouble = desk.world.table.trouble = _fail
    unknown = ask(desk, caller({"claims": {"sub": "g1"}}, PLAIN), birthDate="1990-01-01")
    assert unknown["status"] == "UNKNOWN" and unknown["missing"] == [{"fact": "user"}, {"fact": "duplicates"}]
    trusted = ask(desk, TRUSTED, markets=["nowhere"])
    assert "detail" in trusted["reasons"][0] and "sources" in trusted


def _fail() -> None:
    raise OSError("mongodb://internal.example")


def test_a_fan_who_asks_learns_nothing_about_an_address_without_a_vouching_claim() -> None:
    desk = Desk()
    desk.world.table.put(item(key("e1"), email="else@example.com", globalUserId="g9"))
    assert ask(desk, TRUSTED, email="else@example.com", doTransfer=True)["primaryReason"] is None
    free, entered = (ask(desk, FAN, email=mail) for mail in ("free@example.com", "else@example.com"))
    assert {**free, "correlationId": ""} == {**entered, "correlationId": ""} and free["status"] == "ELIGIBLE"
    own = caller({"claims": {"email": "else@example.com", "email_verified": True}})
    assert codes(ask(desk, own)) == ["INVALID_FIELD"], "another address than the verified one"
    assert codes(ask(desk, own, email="else@example.com")) == ["ALREADY_ENTERED"]


def test_only_its_owner_learns_whether_an_address_is_invited() -> None:
    desk = Desk(eligibility={"inviteOnly": True})
    desk.world.table.put(Invite("summer", InviteType.EMAIL, "fan@example.com", int(NOW) + 60).as_item())
    desk.world.table.put(Invite("summer", InviteType.GLOBAL_USER_ID, "g1", int(NOW) + 60).as_item())
    for mail in ("fan@example.com", "else@example.com"):
        answer = ask(desk, FAN, email=mail)
        assert answer["status"] == "UNKNOWN" and answer["missing"] == [{"fact": "invites"}]
    assert ask(desk, caller({"claims": {"sub": "g1"}}, PLAIN), email="x@example.com")["status"] == "ELIGIBLE"
    assert ask(desk, caller(SIGNED_IN))["status"] == "ELIGIBLE"
    assert codes(ask(desk, FAN, email="else@example.com", doTransfer=True)) == ["NOT_INVITED"]


def test_an_entry_says_who_vouched_for_its_address() -> None:
    desk = Desk()
    provider = caller({"claims": {"email": "own@example.com", "email_verified": True}})
    for who, mail in ((TRUSTED, "a@example.com"), (FAN, "b@example.com"), (provider, "own@example.com")):
        ask(desk, who, email=mail, doTransfer=True)
    assert [each["vouchedBy"] for each in desk.entries] == ["caller", "unverified", "provider"]


def test_a_fan_gets_one_entry_per_address() -> None:
    desk = Desk()
    assert ask(desk, FAN, doTransfer=True, **ODDS)["transfer"]["state"] == "created"
    assert not ODDS.keys() & desk.entries[0].keys()
    assert ask(desk, FAN, doTransfer=True)["transfer"]["state"] == "existing"
    other = ask(desk, FAN, doTransfer=True, entryId="mine")
    assert len(desk.entries) == 1 and other["transfer"]["state"] == "existing"


def test_a_fan_chooses_no_entry_id_and_a_personal_one_is_refused() -> None:
    desk = Desk()
    answer = ask(desk, FAN, doTransfer=True, entryId="jane-doe-1985-491701234567")
    assert answer["transfer"]["state"] == "created"
    assert (
        desk.entries[0]["entryId"] != "jane-doe-1985-491701234567" and len(desk.entries[0]["entryId"]) == 24
    )
    for named in ("jane.doe@mail.example", "+491701234567", " jane@mail.example "):
        refused = ask(desk, FAN, email="b@example.com", doTransfer=True, entryId=named)
        assert codes(refused) == ["INVALID_FIELD"] and named not in repr(refused)
    assert len(desk.entries) == 1
    trusted = ask(desk, TRUSTED, email="c@example.com", doTransfer=True, entryId="mine")
    assert trusted["transfer"]["entryId"] == "mine"


def test_an_address_without_a_voucher_gets_neither_id_nor_version_of_its_entry() -> None:
    desk = Desk()
    own = caller({"claims": {"email": "own@example.com", "email_verified": True}})
    created = ask(desk, own, email="own@example.com", doTransfer=True)["transfer"]
    assert created["entryId"] and created["version"] == 1
    stranger = ask(desk, FAN, email="own@example.com", doTransfer=True)
    assert stranger["transfer"] == {"entryId": None, "state": "existing", "version": None}
    assert created["entryId"] not in repr(stranger)
    assert (
        ask(desk, own, email="own@example.com", doTransfer=True)["transfer"]["entryId"] == created["entryId"]
    )
