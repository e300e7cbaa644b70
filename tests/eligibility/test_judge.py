"""What holds for every judgement, for every caller and any known facts."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import date
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from regworkers_core.domain.claim import InviteType, User
from regworkers_core.domain.eligibility import Fact, FactSource, Known, Missing, Status
from regworkers_core.eligibility.case import AsOf, Facts, Identity, Subject
from regworkers_core.eligibility.request import subject_of
from regworkers_core.eligibility.rules import RULES, judge
from tests.domain.test_terms import TERMS
from tests.eligibility.world import campaign

AS_OF = AsOf.at(1_782_864_000.0)
NAMES = [field.name for field in fields(Facts)]
ORDER = [rule.code for rule in RULES]


def known(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Fact[Any]]:
    missing = st.builds(Missing, st.sampled_from(["redis", "mongo", "service-user"]), st.just("no answer"))
    return st.builds(Known, values, st.sampled_from(FactSource), st.booleans()) | missing


CAMPAIGNS = st.builds(
    lambda terms, status, closes: replace(
        campaign(), eligibility=terms, status=campaign(status=status).status, closes_at=closes
    ),
    TERMS,
    st.sampled_from(["DRAFT", "OPEN", "CLOSED"]) | st.just("OPEN"),
    st.sampled_from(["2027-01-01T00:00:00.000Z", "2026-02-01T00:00:00.000Z"]),
)
USERS = st.builds(
    User,
    verified_phone=st.booleans(),
    blocked=st.booleans(),
    region=st.sampled_from([None, "de", "FR"]),
    birth_date=st.sampled_from([None, date(1990, 1, 1), date(2015, 1, 1)]),
)
FACTS = st.builds(
    Facts,
    campaign=known(st.none() | CAMPAIGNS),
    invites=known(st.dictionaries(st.sampled_from(InviteType), st.sampled_from([1, 2_000_000_000]))),
    duplicates=known(st.frozensets(st.sampled_from(Identity))),
    household=known(st.integers(0, 3)),
    user=known(st.none() | USERS),
)
SUBJECTS = st.builds(
    lambda entry, created_at: subject_of(entry, created_at=created_at),
    st.fixed_dictionaries(
        {},
        optional={
            "email": st.sampled_from(["fan@example.com", "fan", None, 5]),
            "firstName": st.sampled_from(["Zoë", "", "x" * 1000]),
            "lastName": st.just("Łukasz"),
            "globalUserId": st.sampled_from(["g1", None]),
            "unit": st.sampled_from(["u1", None]),
            "region": st.sampled_from(["DE", "us"]),
            "birthDate": st.sampled_from(["2015-01-01", "1980-01-01", "x"]),
            "markets": st.lists(st.sampled_from(["berlin", "x"])),
        },
    ),
    st.sampled_from([None, "2026-03-01T00:00:00.000Z", "2025-03-01T00:00:00.000Z", ""]),
)


@given(SUBJECTS, FACTS)
@settings(max_examples=150)
def test_reasons_come_in_the_order_of_the_rules_and_decide_the_status(subject: Subject, facts: Facts) -> None:
    judgement = judge(subject, facts, AS_OF)
    codes = [reason.code for reason in judgement.reasons]
    assert codes == [code for code in ORDER if code in codes]
    assert judgement.primary_reason == (codes[0] if codes else None)
    assert (judgement.status is Status.INELIGIBLE) == bool(codes)
    assert (judgement.status is Status.ELIGIBLE) == (not codes and not judgement.missing)
    answer = judgement.as_answer(facts, AS_OF, "c")
    assert answer["eligible"] is {"ELIGIBLE": True, "INELIGIBLE": False, "UNKNOWN": None}[answer["status"]]


@given(SUBJECTS, FACTS, st.sets(st.sampled_from(NAMES), min_size=1))
@settings(max_examples=200)
def test_a_fact_that_becomes_missing_makes_no_subject_eligible_and_refuses_none(
    subject: Subject, facts: Facts, lost: set[str]
) -> None:
    before = judge(subject, facts, AS_OF)
    after = judge(subject, replace(facts, **dict.fromkeys(lost, Missing("mongo", "away"))), AS_OF)
    assert set(after.reasons) <= set(before.reasons)
    if before.status is not Status.ELIGIBLE:
        assert after.status is not Status.ELIGIBLE
    assert set(after.missing) - set(before.missing) <= lost


@given(SUBJECTS, FACTS)
@settings(max_examples=100)
def test_a_verdict_depends_on_neither_source_nor_freshness(subject: Subject, facts: Facts) -> None:
    stale = Facts(
        **{
            name: Known(fact.value, FactSource.CACHE, False) if isinstance(fact, Known) else fact
            for name in NAMES
            for fact in [getattr(facts, name)]
        }
    )
    assert judge(subject, stale, AS_OF) == judge(subject, facts, AS_OF)


@given(SUBJECTS, FACTS)
@settings(max_examples=100)
def test_no_detail_and_no_message_contains_a_fans_value(subject: Subject, facts: Facts) -> None:
    for reason in judge(subject, facts, AS_OF).reasons:
        for value in ("fan", "Zoë", "Łukasz", "g1", "1980", "2015", "xxx"):
            assert value not in reason.message + reason.detail
