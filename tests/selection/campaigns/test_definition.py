"""What may stand in a campaign's definition, and what a mistake in it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regworkers_core.domain.campaign import MAX_SEATS, CampaignStatus, Market, Reserve
from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.eligibility import EligibilityTerms
from regworkers_core.domain.reasons import UsageError
from regworkers_core.selection.campaigns.registry import draft, read_definition
from tests.support.campaigns import definition


def market(**changes: Any) -> dict[str, Any]:
    return {"marketId": "berlin", "capacity": 10, **changes}


def reserve(segment: Any = "loyal", seats: Any = 1) -> dict[str, Any]:
    return {"segment": segment, "seats": seats}


def test_a_definition_becomes_a_draft_and_its_document_gives_the_same_campaign_back() -> None:
    campaign = draft(
        definition(
            slug="summer-2026",
            markets=[market(reserves=[reserve("loyal", 4), reserve("local", 6)]), market(marketId="x-1_Y")],
            autoDraw=True,
            eligibility={"inviteOnly": True, "inviteTypes": ["email", "memberId"], "minAge": 18},
            draw={"winsPerUnit": 2, "waitlistSize": 0},
        )
    )
    assert campaign.status is CampaignStatus.DRAFT and campaign.slug == "summer-2026"
    assert campaign.markets[0] == Market("berlin", "berlin", 10, (Reserve("loyal", 4), Reserve("local", 6)))
    assert (campaign.draw.wins_per_unit, campaign.draw.waitlist_size) == (2, 0)
    assert read_campaign(campaign.as_document()) == campaign


def test_what_is_absent_or_null_means_none() -> None:
    bare = {
        "_id": "c",
        "slug": "c",
        "name": "C",
        "status": "OPEN",
        "opensAt": "2026-01-01T00:00:00.000Z",
        "closesAt": "2026-02-01T00:00:00.000Z",
        "markets": [{"marketId": "berlin", "name": "Berlin", "capacity": 0, "reserves": None}],
        "draw": None,
        "ownedBy": "another service",
    }
    campaign = read_campaign(bare)
    assert (campaign.auto_draw, campaign.eligibility, campaign.markets[0].reserves) == (
        False,
        EligibilityTerms(),
        (),
    )
    assert (campaign.draw.wins_per_unit, campaign.draw.waitlist_size) == (1, None)
    assert campaign.transitions == () and campaign.fence == 0 and campaign.opened is None
    assert campaign.event_id is None and campaign.issuer_keys == () and not campaign.codes.caseless
    assert not campaign.logs_registrations


@pytest.mark.parametrize(
    ("changes", "field", "found"),
    [
        ({"campaignId": "no spaces"}, "campaignId must be", "1 to 64"),
        ({"campaignId": "x" * 65}, "campaignId must be", "1 to 64"),
        ({"campaignId": 7}, "campaignId must be", "1 to 64"),
        ({"slug": " "}, "slug", "' '"),
        ({"opensAt": "soon"}, "opensAt", "'soon'"),
        ({"closesAt": None}, "closesAt", "nothing"),
        ({"closesAt": "2026-01-01T00:00:00Z"}, "closesAt must be after opensAt", "2026-01-01T00:00:00.000Z"),
        ({"eventId": "no spaces"}, "eventId must be", "1 to 64"),
        ({"codes": {"caseless": "yes"}}, "codes.caseless", "'yes'"),
        ({"codes": {"expireAfterHours": 0}}, "codes.expireAfterHours", "0"),
        ({"codes": {"caseles": True}}, "codes.caseles is not a field", "caseless"),
        ({"registration": {"log": "yes"}}, "registration.log must be on or off", "'yes'"),
        ({"registration": {"lag": "on"}}, "registration.lag is not a field", "log"),
        ({"issuerKeys": [{"id": "k"}]}, "issuerKeys[0].key must be 64 lowercase hex digits", "nothing"),
        ({"issuerKeys": [{"id": "k", "key": "ab" * 32}] * 2}, "issuerKeys[1].id is there twice", "'k'"),
        ({"markets": None}, "markets", "nothing"),
        ({"markets": []}, "markets must hold at least one", "[]"),
        ({"markets": "berlin"}, "markets must be a list", "'berlin'"),
        ({"markets": ["berlin"]}, "markets[0] must hold named fields", "'berlin'"),
        ({"markets": [market(marketId="a|b")]}, "markets[0].marketId", "'a|b'"),
        ({"markets": [market(marketId="-")]}, "markets[0].marketId must not be a dash alone", "'-'"),
        ({"markets": [market(), market()]}, "markets[1].marketId is there twice", "'berlin'"),
        ({"markets": [market(capacity=-1)]}, "markets[0].capacity", "-1"),
        ({"markets": [market(capacity=True)]}, "markets[0].capacity", "True"),
        ({"markets": [market(capacity=1.5)]}, "markets[0].capacity", "1.5"),
        ({"markets": [market(capacity=MAX_SEATS + 1)]}, "markets[0].capacity", str(MAX_SEATS + 1)),
        ({"markets": [market(reserves=[reserve(seats=0)])]}, "markets[0].reserves[0].seats", "0"),
        ({"markets": [market(reserves=[reserve("a b")])]}, "markets[0].reserves[0].segment", "'a b'"),
        (
            {"markets": [market(reserves=[reserve(), reserve()])]},
            "markets[0].reserves[1].segment has a reserve already",
            "'loyal'",
        ),
        ({"markets": [market(reserves=[reserve("a", 6), reserve("b", 5)])]}, "capacity of 10 seats", "11"),
        ({"autoDraw": "yes"}, "autoDraw", "'yes'"),
        ({"draw": {"winsPerUnit": 0}}, "draw.winsPerUnit", "0"),
        ({"draw": {"waitlistSize": -1}}, "draw.waitlistSize", "-1"),
        ({"draw": {"waitlist": 1}}, "draw.waitlist is not a field", "waitlistSize"),
        ({"eligibility": {"minAge": "18"}}, "eligibility.minAge", "'18'"),
        ({"eligibility": {"inviteTypes": ["phone"]}}, "eligibility.inviteTypes", "['phone']"),
        ({"eligibility": {"age": 1}}, "eligibility.age is not a field", "minAge"),
        ({"capacity": 3}, "capacity is not a field", "markets"),
        ({"markets": [market(seats=3)]}, "markets[0].seats is not a field", "capacity"),
        ({"campaignId": None}, "campaignId is missing", ""),
    ],
)
def test_a_mistake_names_the_field_and_what_was_found(
    changes: dict[str, Any], field: str, found: str
) -> None:
    with pytest.raises(UsageError) as error:
        draft(definition(**changes))
    assert field in str(error.value) and found in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("written", "field"),
    [
        ("registration: {log: }", "registration.log must be on or off, found None"),
        ("registration: {log: ''}", "registration.log must be on or off, found ''"),
        ("registration:", "registration must be {log: on} or {log: off}, found None"),
        ("eligibility: {inviteOnly: }", "eligibility.inviteOnly must be true or false, found None"),
        (
            "eligibility: {inviteTypes: []}",
            "eligibility.inviteTypes must be a list of email, .*, found \\[\\]",
        ),
        ("codes: {caseless: }", "codes.caseless must be true or false, found None"),
        ("autoDraw:", "autoDraw must be true or false, found None"),
    ],
)
def test_a_choice_that_is_left_empty_is_refused_with_the_way_out(
    tmp_path: Path, written: str, field: str
) -> None:
    file = tmp_path / "campaign.yml"
    file.write_text(f"{json.dumps(definition())[:-1]}, {written}}}")
    with pytest.raises(UsageError, match=f"{field}: give a value, or leave the field out"):
        draft(read_definition(file))


@pytest.mark.parametrize(
    ("field", "value"),
    [("unitKeyHash", "abc"), ("codeKey", "A" * 192), ("opened", {"hash": 7, "index": 0}), ("opened", {})],
)
def test_public_halves_of_keys_and_the_mark_of_the_log_are_read_strictly(field: str, value: Any) -> None:
    document = draft(definition()).as_document()
    with pytest.raises(UsageError, match=rf"{field}.* must"):
        read_campaign({**document, field: value})


def test_a_manager_may_write_yaml_with_times_as_yaml_has_them(tmp_path: Path) -> None:
    file = tmp_path / "campaign.yml"
    file.write_text(
        "campaignId: summer\nopensAt: 2026-01-01 00:00:00\ncloses: 1\n".replace("closes: 1", "")
        + "closesAt: 2026-02-01T10:00:00+02:00\nmarkets:\n  - {marketId: berlin, capacity: 3}\n"
        + "registration: {log: on}\n",
        encoding="utf-8-sig",
    )
    campaign = draft(read_definition(file))
    assert (campaign.opens_at, campaign.closes_at) == ("2026-01-01T00:00:00.000Z", "2026-02-01T08:00:00.000Z")
    assert campaign.name == campaign.slug == "summer"
    assert campaign.logs_registrations and campaign.as_document()["registration"] == {"log": "on"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a: [", "line 1"), ("- summer", "should hold the fields"), ("", "should hold the fields")],
)
def test_a_file_that_is_no_definition_says_where(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "campaign.yml"
    file.write_text(text)
    with pytest.raises(UsageError, match=expected):
        read_definition(file)
    with pytest.raises(UsageError, match="No such file"):
        read_definition(tmp_path / "none.yml")


@pytest.mark.parametrize("field", ["opensAt", "closesAt"])
@pytest.mark.parametrize(
    ("written", "expected"),
    [
        # A day that there is not, and one without a time, which could mean its beginning or its end.
        (
            "2027-02-30",
            "{field} must have a time, as 2027-02-30T18:00:00.01:00: found the date 2027-02-30 alone",
        ),
        (
            "2027-02-14",
            "{field} must have a time, as 2027-02-14T18:00:00.01:00: found the date 2027-02-14 alone",
        ),
        ("20270214", "{field} must have a time"),
        ("2027-02-30T18:00:00Z", "{field} must be a time like .*, found '2027-02-30T18:00:00Z'"),
        ("2027-2-1 9:00:00", "{field} must be a time like"),
        ("soon", "{field} must be a time like"),
    ],
)
def test_a_time_that_is_none_is_one_line_that_names_its_field(
    tmp_path: Path, field: str, written: str, expected: str
) -> None:
    path = tmp_path / "campaign.yml"
    times = {"opensAt": "2027-02-01T09:00:00Z", "closesAt": "2027-03-01T09:00:00Z", field: written}
    lines = [f"{name}: {value}" for name, value in times.items()]
    path.write_text("campaignId: c\nmarkets: [{marketId: berlin, capacity: 1}]\n" + "\n".join(lines))
    with pytest.raises(UsageError, match=expected.format(field=field)) as mistake:
        draft(read_definition(path))
    assert "\n" not in str(mistake.value)


ALIASES = "slug:\n - &a0 [x, x]\n" + "".join(
    f" - &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]\n" for number in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALIASES, "without aliases in line 3"),
        ("name: " + "[" * 5_000, "nested too deeply"),
        ("name: " + "9" * 6_000, "in line 1"),
        ("campaignId: " + "[" * 50 + "]" * 50, "campaignId must be"),
        ("campaignId: c\nslug: " + "9" * 60, "slug must be a text, found 999"),
    ],
    ids=["aliases", "deep", "huge number", "nested list", "long number"],
)
def test_a_definition_that_is_made_to_take_memory_is_refused_in_one_short_line(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "c.yml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as refused:
        draft(read_definition(path))
    assert len(str(refused.value)) < 300 + len(str(path)) and "\n" not in str(refused.value)


def test_a_value_is_cut_before_its_text_is_made() -> None:
    wide: list[Any] = []
    for _ in range(30):
        # Two thousand million leaves, if its text were made.
        wide = [wide, wide]
    with pytest.raises(UsageError, match="slug must be a text"):
        draft(definition(slug=wide))
