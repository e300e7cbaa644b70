"""What a campaign may ask for, and what a mistake in it says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.claim import InviteType
from regworkers_core.domain.eligibility import EligibilityTerms
from regworkers_core.domain.reasons import UsageError
from tests.support.campaigns import definition

TERMS = st.builds(
    EligibilityTerms,
    invite_only=st.booleans(),
    invite_types=st.sets(st.sampled_from(InviteType), min_size=1).map(
        lambda some: tuple(each for each in InviteType if each in some)
    ),
    regions=st.sets(st.sampled_from(["DE", "FR", "US"])).map(lambda some: tuple(sorted(some))),
    min_age=st.none() | st.integers(0, 99),
    require_verified_phone=st.booleans(),
    max_per_unit=st.none() | st.integers(1, 10),
)


@given(TERMS)
@settings(max_examples=50)
def test_a_document_gives_the_same_terms_back(terms: EligibilityTerms) -> None:
    assert EligibilityTerms.parse(terms.as_document()) == terms


def test_absent_null_and_unknown_fields_ask_for_nothing() -> None:
    nulls = dict.fromkeys(["inviteOnly", "inviteTypes", "regions", "minAge", "maxPerUnit"])
    assert (
        EligibilityTerms.parse({})
        == EligibilityTerms.parse(nulls)
        == EligibilityTerms.parse({"of": "another service"})
        == EligibilityTerms()
    )
    assert EligibilityTerms().as_document() == {}


def test_empty_lists_restrict_nothing() -> None:
    assert EligibilityTerms.parse({"inviteTypes": [], "regions": []}) == EligibilityTerms()


def test_regions_are_compared_in_capitals_and_flags_may_come_as_numbers() -> None:
    terms = EligibilityTerms.parse(
        {"regions": [" de ", "DE", "fr"], "inviteOnly": 1, "requireVerifiedPhone": 0}
    )
    assert (terms.regions, terms.invite_only, terms.require_verified_phone) == (("DE", "FR"), True, False)


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("inviteOnly", "yes"),
        ("requireVerifiedPhone", 2),
        ("inviteTypes", "email"),
        ("inviteTypes", ["phone"]),
        ("inviteTypes", [["email"]]),
        ("regions", "DE"),
        ("regions", [""]),
        ("regions", [1]),
        ("minAge", "18"),
        ("minAge", True),
        ("minAge", -1),
        ("minAge", 1800),
        ("maxPerUnit", 0),
        ("maxPerUnit", 1.5),
    ],
)
def test_a_wrong_term_names_campaign_field_and_what_was_found(field: str, found: Any) -> None:
    fields = definition(eligibility={field: found}, status="OPEN")
    with pytest.raises(UsageError, match=rf"campaign summer: eligibility\.{field} must .*, found "):
        read_campaign({**fields, "_id": "summer"})
