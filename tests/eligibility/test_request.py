"""Reading a check: everything is read, nothing raises, and what is malformed is said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.domain.eligibility import FactSource, Known
from regworkers_core.domain.entry import FIELDS, Entry
from regworkers_core.domain.keys import EntryKey
from regworkers_core.eligibility.case import AsOf, Facts
from regworkers_core.eligibility.request import BIDI_CONTROLS, MAX_NAME, Check, read_check, subject_of
from regworkers_core.eligibility.rules import judge
from tests.eligibility.world import campaign, check

AS_OF = AsOf.at(1_782_864_000.0)
TEXTS = st.text(st.characters(exclude_categories=[]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ENTRY_FIELDS = [*FIELDS, "region", "birthDate", "entryId", "other"]
ITEMS = JSON | st.fixed_dictionaries(
    {},
    optional={
        "campaignSlug": JSON,
        "entry": JSON | st.dictionaries(st.sampled_from(ENTRY_FIELDS), JSON),
        "doTransfer": JSON,
        "entryId": JSON,
        "correlationId": JSON,
    },
)


def complaints(raw: object) -> str:
    """All that the rules about fields say of it."""
    known = Facts(Known(campaign(), FactSource.DATABASE), duplicates=Known(frozenset(), FactSource.DATABASE))
    reasons = judge(read_check(raw).subject, known, AS_OF).reasons
    return " | ".join(f"{reason.code} {reason.detail}" for reason in reasons)


@given(ITEMS)
@settings(max_examples=300)
def test_whatever_is_asked_is_read_and_judged(raw: object) -> None:
    asked = read_check(raw)
    assert isinstance(asked, Check) and asked.correlation_id
    reasons = judge(asked.subject, Facts(Known(campaign(), FactSource.CACHE)), AS_OF).reasons
    if not reasons:
        # What passes can be stored: by the table, and by the replica's reading.
        key = EntryKey("summer", "e1")
        attributes({**asked.fields})
        Entry.parse(key, dict(asked.fields))


def test_a_check_without_complaint_becomes_the_fields_to_write() -> None:
    asked = read_check(
        check(
            doTransfer=True,
            entryId="e-1",
            correlationId="corr",
            email=" Fan@Example.com",
            globalUserId=123,
            unit=7,
            markets=["paris"],
            region="de",
            birthDate="1990-12-31",
            attributes={"source": "app", "region": "overruled"},
            segments=["loyal"],
            weight="2",
        )
    )
    assert (asked.do_transfer, asked.is_id_given, asked.correlation_id) == (True, True, "corr")
    assert (asked.subject.mail, asked.subject.region, asked.subject.entry_id) == (
        "fan@example.com",
        "DE",
        "e-1",
    )
    assert asked.fields == {
        "email": " Fan@Example.com",
        "firstName": "Test",
        "lastName": "User",
        "globalUserId": "123",
        "unit": "7",
        "markets": ["paris"],
        "segments": ["loyal"],
        "weight": 2,
        "attributes": {"source": "app", "region": "de", "birthDate": "1990-12-31"},
    }


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, "INVALID_FIELD item should be an object, found NoneType"),
        ([], "INVALID_FIELD item should be an object, found list"),
        ({}, "MISSING_FIELD missing: campaignSlug, email, firstName, lastName"),
        ({"campaignSlug": 5, "entry": "x"}, "campaignSlug should be a text, found int"),
        (check("x" * 129), "INVALID_FIELD campaignSlug is longer than 128 characters"),
        (check("a\x00b"), "campaignSlug holds a control character (U+0000)"),
        (check(doTransfer="true"), "INVALID_FIELD doTransfer should be true or false, found str"),
        (check(entryId="a/b"), "INVALID_FIELD entryId should be 1 to 64 of"),
        (check(firstName="x" * 100_000), f"firstName is longer than {MAX_NAME} characters"),
        (check(firstName=["x"]), "firstName should be a text, found list"),
        (check(firstName="\u200b\u00a0"), "MISSING_FIELD missing: firstName"),
        (check(lastName="a\x07"), "lastName holds a control character (U+0007), which is refused"),
        (check(lastName="a\ud800"), "lastName holds a control character (U+D800), which is refused"),
        (check(email="fan@example.com\x00"), "INVALID_EMAIL email holds a control character (U+0000)"),
        (check(email="fan@exa mple.com"), "INVALID_EMAIL email is not the syntax of a mail address"),
        (check(email="x" * 100_000), "INVALID_EMAIL email is longer than 254 characters"),
        (check(email={}), "INVALID_EMAIL email should be a text, found dict"),
        (check(memberId=True), "memberId should be a text, found bool"),
        (check(memberId="x" * 129), "memberId is longer than 128 characters"),
        (check(unit="the ü family"), "unit should be 1 to 64 of"),
        (check(markets="berlin"), "markets should be a list of texts, found str"),
        (check(markets=["berlin", 5]), "markets[1] should be a text, found int"),
        (check(markets=["berlin"] * 101), "markets holds more than 100 texts"),
        (check(segments=["a b"]), "segments should hold 1 to 64 of"),
        (check(weight=0), "weight should be a whole number from 1 to 64"),
        (check(region=49), "region should be a text, found int"),
        (check(birthDate="31.12.1990"), "birthDate should be a date like 1990-12-31"),
        (check(attributes=[]), "attributes should be an object, found list"),
        (check(attributes={"a": "x" * 40_000}), "attributes holds more than 32768 characters"),
        (check(attributes={"a": list(range(2000))}), "attributes holds more than 1000 values"),
        (
            check(attributes={"a": {"$ref": "x"}}),
            "attributes holds a field name that MongoDB keeps for references",
        ),
        (check(attributes={"a": 2**70}), "attributes holds a number of more than 64 bits"),
        (check(attributes={"a": float("nan")}), "attributes holds a number that no table can hold"),
        (check(attributes={"a": b"x"}), "attributes holds a value that should be JSON, found bytes"),
    ],
)
def test_what_is_malformed_is_said_with_its_field(raw: Any, expected: str) -> None:
    assert expected in complaints(raw)


def test_hostile_depth_is_refused_without_descending() -> None:
    deep: Any = "x"
    for _ in range(10_000):
        deep = [deep]
    assert "attributes is nested deeper than 16 levels" in complaints(check(attributes={"a": deep}))


@pytest.mark.parametrize("character", sorted(BIDI_CONTROLS))
def test_characters_that_steer_the_direction_of_writing_are_refused_by_name(character: str) -> None:
    shown = f"control character of writing direction (U+{ord(character):04X})"
    assert f"INVALID_FIELD firstName holds a {shown}" in complaints(check(firstName=f"Zo{character}ë"))
    assert f"INVALID_EMAIL email holds a {shown}" in complaints(check(email=f"f{character}an@example.com"))


@pytest.mark.parametrize(
    "name", ["Zoë", "O'Brien-Łukasz", "محمد", "עדי", "さくら", "می‌خواهم", "Аnna", "👩‍🚀", "X Æ A-12"]
)
def test_names_of_every_script_are_welcome(name: str) -> None:
    assert complaints(check(firstName=name)) == ""


def test_free_attributes_count_if_they_are_valid_and_are_ignored_if_not() -> None:
    assert complaints(check(attributes={"region": 5, "birthDate": "soon"})) == ""
    subject = subject_of({"attributes": {"region": " fr", "birthDate": "1990-01-02"}})
    assert (subject.region, str(subject.birth_date)) == ("FR", "1990-01-02")


def test_a_correlation_id_that_cannot_travel_is_replaced() -> None:
    for bad in (None, 5, "ä", "x" * 200, ""):
        assert read_check(check(correlationId=bad), new_id=lambda: "new").correlation_id == "new"
