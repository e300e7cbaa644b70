"""The record of a campaign: exactly its keys, what an amendment may change, and how a manifest compares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fairdraw.errors import DrawError
from fairdraw.maths.files import canonical_bytes
from fairdraw.maths.manifest import Manifest, ManifestSeedSource, MarketTerms, ReserveTerms
from fairdraw.maths.opened import (
    Amended,
    IssuerKey,
    Opened,
    changes_since,
    findings_against,
    mismatches,
    opened_name,
    opened_number,
    parse_opened,
    read_opened,
)
from fairdraw.terms import QUICKNET

MANIFEST = Manifest(
    as_of="2026-11-25T08:00:00.000Z",
    campaign_id="summer",
    count=3,
    draw_id="summer",
    markets=(MarketTerms("east", 4), MarketTerms("west", 5)),
    phase=1,
    previous=None,
    registrations=None,
    root="a" * 64,
    seed_source=ManifestSeedSource(QUICKNET.hash, 1_000),
    strikes_hash="b" * 64,
    strikes_root="b" * 64,
    waitlist_size=None,
    wins_per_unit=1,
)
OPENED = Opened(
    campaign_id="summer",
    caseless=False,
    chain=QUICKNET.hash,
    closes_at="2026-11-25T08:00:00.000Z",
    code_key=None,
    eligibility={"regions": ["IE"]},
    event_id="tour-26",
    issuer_keys=(IssuerKey("a", "1" * 64),),
    markets=MANIFEST.markets,
    name="Summer",
    opens_at="2026-11-20T08:00:00.000Z",
    registration=False,
    unit_key_hash="c" * 64,
    waitlist_size=None,
    wins_per_unit=1,
)


def amended(before: Opened, reason: str = "a larger hall", **changes: Any) -> Amended:
    return replace(before.amending(before, reason), **changes)


def record(*files: Opened) -> list[bytes]:
    return [each.to_bytes() for each in files]


def test_the_keys_are_those_of_the_rules_and_the_bytes_are_read_again() -> None:
    keys = "campaignId caseless chain closesAt codeKey eligibility eventId issuerKeys markets name opensAt"
    assert (
        " ".join(sorted(OPENED.as_document())) == f"{keys} registration unitKeyHash waitlistSize winsPerUnit"
    )
    assert Opened.parse(OPENED.to_bytes()) == OPENED
    change = amended(OPENED, code_key="8" * 192)
    assert sorted({*change.as_document()} - {*OPENED.as_document()}) == ["previous", "reason"]
    assert parse_opened(record(OPENED, change)) == (OPENED, change)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("campaignId", "with space"),
        ("caseless", 0),
        ("chain", "quicknet"),
        ("closesAt", OPENED.opens_at),
        ("closesAt", "2026-12-01"),
        ("codeKey", "8" * 191),
        ("codeKey", "A" * 192),
        ("eligibility", []),
        ("eventId", ""),
        ("issuerKeys", [{"id": "a", "key": "1" * 63}]),
        ("issuerKeys", [{"id": "b", "key": "1" * 64}, {"id": "a", "key": "1" * 64}]),
        ("issuerKeys", [{"id": "a", "key": "1" * 64}, {"id": "a", "key": "2" * 64}]),
        ("issuerKeys", [{"id": "a", "key": "1" * 64, "until": None}]),
        ("markets", {}),
        ("name", " "),
        ("registration", None),
        ("unitKeyHash", None),
        ("waitlistSize", -1),
        ("winsPerUnit", 0),
        ("more", 1),
        ("previous", "a" * 64),
    ],
)
def test_a_value_of_another_form_and_a_further_key_are_refused(key: str, value: Any) -> None:
    document = {**OPENED.as_document(), key: value}
    with pytest.raises(DrawError, match=key):
        Opened.parse(canonical_bytes(document))


@pytest.mark.parametrize("key", sorted(OPENED.as_document()))
def test_a_missing_key_is_refused(key: str) -> None:
    document = {name: value for name, value in OPENED.as_document().items() if name != key}
    with pytest.raises(DrawError, match=f"missing {key}"):
        Opened.parse(canonical_bytes(document))


@pytest.mark.parametrize(
    ("before", "changes"),
    [
        (OPENED, {"campaign_id": "winter"}),
        (OPENED, {"chain": "d" * 64}),
        (OPENED, {"event_id": None}),
        (OPENED, {"unit_key_hash": "d" * 64}),
        (OPENED, {"caseless": True}),
        (OPENED, {"markets": OPENED.markets[:1]}),
        (replace(OPENED, code_key="8" * 192), {"code_key": "9" * 192}),
        (replace(OPENED, code_key="8" * 192), {"code_key": None}),
        (replace(OPENED, registration=True), {"registration": False}),
    ],
)
def test_an_amendment_never_changes_what_entries_and_codes_rest_on(
    before: Opened, changes: dict[str, Any]
) -> None:
    with pytest.raises(DrawError, match="never change") as refused:
        parse_opened(record(before, amended(before, **changes)))
    assert refused.value.artefact == "amended-1.json"


def test_an_amendment_may_add_a_code_key_and_begin_to_log_registrations() -> None:
    parse_opened(record(OPENED, amended(OPENED, code_key="8" * 192, registration=True)))


def test_the_files_of_a_record_follow_each_other_without_a_gap(tmp_path: Path) -> None:
    first, second = amended(OPENED), amended(amended(OPENED), name="Summer II")
    for number, each in enumerate((OPENED, first, second)):
        (tmp_path / opened_name(number)).write_bytes(each.to_bytes())
    (tmp_path / "amended-01.json").write_bytes(b"another file")
    assert read_opened(tmp_path) == (OPENED, first, second)
    with pytest.raises(DrawError, match="previous: "):
        parse_opened(record(OPENED, second))
    (tmp_path / "amended-1.json").unlink()
    with pytest.raises(DrawError, match=r"amended-1\.json is missing before it"):
        read_opened(tmp_path)
    assert opened_number("amended-0.json") is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"campaign_id": "winter"}, "campaignId"),
        ({"chain": "d" * 64}, r"seedSource\.chain"),
        ({"markets": OPENED.markets[:1]}, "markets"),
        ({"registration": True}, "registrations"),
    ],
)
def test_a_manifest_of_another_campaign_chain_or_market_does_not_verify(
    changes: dict[str, Any], word: str
) -> None:
    assert not [*mismatches(OPENED, MANIFEST)]
    [error] = mismatches(replace(OPENED, **changes), MANIFEST)
    assert word in error.message.replace(".", r"\.")


def test_lowered_seats_are_a_finding_and_raised_ones_are_not() -> None:
    assert not [*findings_against(OPENED, MANIFEST)]
    east, west = OPENED.markets
    more = replace(OPENED, markets=(replace(east, capacity=5), replace(west, capacity=1)))
    assert [*findings_against(more, MANIFEST)] == ["seats of east: 4, opened with 5"]


def test_other_reserves_and_limits_and_an_early_freeze_are_findings() -> None:
    east, west = OPENED.markets
    other = replace(
        OPENED,
        markets=(
            replace(east, reserves=(ReserveTerms("kids", 2),), later_reserves=(ReserveTerms("kids", 1),)),
            west,
        ),
        waitlist_size=10,
        wins_per_unit=2,
        closes_at="2026-11-25T08:00:00.001Z",
    )
    assert [*findings_against(other, MANIFEST)] == [
        "asOf: the entries were frozen at 2026-11-25T08:00:00.000Z, before closesAt, 2026-11-25T08:00:00.001Z",
        "reserved seats of east: none, opened with kids 2",
        "seats reserved later of east: none, opened with kids 1",
        "waiting list: no limit, opened with 10",
        "wins per household: 1, opened with 2",
    ]


def test_what_changed_since_a_hash_is_said_by_amendment_with_its_reason() -> None:
    fewer = amended(OPENED, "the balcony is closed", markets=(MarketTerms("east", 2), OPENED.markets[1]))
    longer = amended(fewer, "rain", closes_at="2026-11-26T08:00:00.000Z", eligibility={})
    every = changes_since((OPENED, fewer, longer), OPENED.hash)
    assert every is not None
    assert [(each.number, each.reason, each.lines) for each in every] == [
        (1, "the balcony is closed", ("seats of east: 2, before 4",)),
        (
            2,
            "rain",
            (
                "closes: 2026-11-26T08:00:00.000Z, before 2026-11-25T08:00:00.000Z",
                "who may take part: changed",
            ),
        ),
    ]
    assert changes_since((OPENED, fewer, longer), longer.hash) == ()
    assert changes_since((OPENED, fewer, longer), replace(OPENED, campaign_id="winter").hash) is None
