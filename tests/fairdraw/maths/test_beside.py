"""The files beside the artefacts: what is written is read again, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdraw.errors import DrawError
from fairdraw.maths.beside import (
    ACCEPTED,
    ANNULLED,
    NOTICE,
    AcceptedFinding,
    Annulled,
    NoticeFile,
    ReplacedManifest,
    accepted_bytes,
    is_beside,
    parse_accepted,
    replaced_name,
    replaced_number,
)
from fairdraw.maths.files import canonical_bytes
from fairdraw.maths.manifest import Manifest, ManifestSeedSource, MarketTerms
from fairdraw.terms import QUICKNET_HASH

AT = "2026-11-25T08:00:00.000Z"
LATER = "2026-11-25T08:00:01.500Z"
MANIFEST = Manifest(
    as_of=AT,
    campaign_id="summer",
    count=3,
    draw_id="summer",
    markets=(MarketTerms("east", 4), MarketTerms("west", 5)),
    phase=1,
    previous=None,
    registrations=None,
    root="a" * 64,
    seed_source=ManifestSeedSource(QUICKNET_HASH, 1_000),
    strikes_hash="b" * 64,
    strikes_root="c" * 64,
    waitlist_size=None,
    wins_per_unit=1,
)
NOTED = NoticeFile.of(MANIFEST, strikes=2, committed_at=AT, published_at=LATER, reason="")
ANNULMENT = Annulled(LATER, "summer", MANIFEST.hash, 1, "a wrong list")


def later_round(number: int) -> Manifest:
    return replace(MANIFEST, seed_source=replace(MANIFEST.seed_source, round=number))


REPLACEMENT = ReplacedManifest(AT, MANIFEST.to_bytes().decode(), None, LATER)


def test_the_bytes_of_each_file_are_fixed() -> None:
    assert NOTED.to_bytes() == (
        b'{"asOf":"2026-11-25T08:00:00.000Z","campaignId":"summer","capacities":{"east":4,"west":5},'
        b'"committedAt":"2026-11-25T08:00:00.000Z","phase":1,"publishedAt":"2026-11-25T08:00:01.500Z",'
        b'"reason":"","strikes":2}'
    )
    accepted = accepted_bytes([AcceptedFinding(AT, "late_commit", "the store was down")])
    assert accepted == (
        b'[{"at":"2026-11-25T08:00:00.000Z","finding":"late_commit","reason":"the store was down"}]'
    )
    assert accepted_bytes([]) == b"[]"
    assert ANNULMENT.to_bytes().startswith(b'{"annulledAt":"2026-11-25T08:00:01.500Z","campaignId":"summer",')
    assert REPLACEMENT.to_bytes().startswith(b'{"committedAt":"2026-11-25T08:00:00.000Z","manifest":"{')


@given(st.text(max_size=60), st.integers(0, 10**6))
def test_what_is_written_is_read_again(text: str, number: int) -> None:
    noted = replace(NOTED, reason=text, strikes=number, phase=2)
    assert NoticeFile.parse(noted.to_bytes()) == noted
    if text.strip():
        annulled = replace(ANNULMENT, reason=text)
        for each in (annulled, replace(annulled, manifest_hash=None)):
            assert Annulled.parse(each.to_bytes()) == each
        accepted = (AcceptedFinding(AT, "recommitted", text), AcceptedFinding(LATER, "bias_audit", text))
        assert parse_accepted(accepted_bytes(accepted)) == accepted
    for published in (None, LATER):
        replaced = replace(REPLACEMENT, published_at=published)
        assert ReplacedManifest.parse(replaced.to_bytes()) == replaced


PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    NOTICE: (NoticeFile.parse, NOTED.to_bytes()),
    ANNULLED: (Annulled.parse, ANNULMENT.to_bytes()),
    "replaced.json": (ReplacedManifest.parse, REPLACEMENT.to_bytes()),
}


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("wrong", [None, 1, -1, [], {}, "", "2026-02-30T00:00:00.000Z", "x y"])
def test_a_wrong_value_is_refused_with_its_key(name: str, wrong: Any) -> None:
    parse, data = PARSERS[name]
    for key, value in json.loads(data).items():
        allowed = (
            key == "reason" and name == NOTICE and isinstance(wrong, str),
            key == "reason" and wrong not in ("", None) and isinstance(wrong, str),
            key == "publishedAt" and wrong is None and name == "replaced.json",
            key == "manifestHash" and wrong is None and name == ANNULLED,
            key in ("strikes", "phase") and wrong == 1,
            key == "capacities" and wrong == {},
            wrong == value,
        )
        changed = canonical_bytes({**json.loads(data), key: wrong})
        if any(allowed):
            parse(changed)
        else:
            with pytest.raises(DrawError, match=name.split(".")[0]) as failure:
                parse(changed)
            assert key in str(failure.value) or "manifest" in str(failure.value)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("at", "x"), ("at", 1), ("finding", "Late Commit"), ("finding", ""), ("reason", " "), ("reason", None)],
)
def test_a_wrong_value_of_an_accepted_finding_is_refused_with_its_key(key: str, wrong: object) -> None:
    finding: dict[str, object] = {"at": AT, "finding": "late_commit", "reason": "the store was down"}
    parse_accepted(canonical_bytes([finding]))
    with pytest.raises(DrawError, match=rf"\[0\]\.{key}"):
        parse_accepted(canonical_bytes([{**finding, key: wrong}]))


def test_nothing_is_written_that_could_not_be_read() -> None:
    for wrong in (
        replace(NOTED, published_at="soon"),
        replace(NOTED, capacities={"east": -1}),
        replace(ANNULMENT, reason=" "),
    ):
        with pytest.raises(DrawError):
            wrong.to_bytes()
    with pytest.raises(DrawError):
        accepted_bytes([AcceptedFinding(AT, "late_commit", "")])


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_with_a_draw_error(data: bytes) -> None:
    for parse, _ in PARSERS.values():
        with pytest.raises(DrawError):
            parse(data)
    if data != b"[]":
        with pytest.raises(DrawError, match=ACCEPTED):
            parse_accepted(data)


def test_a_notice_of_other_terms_than_the_manifests_is_refused() -> None:
    NOTED.check(MANIFEST, 2)
    NOTED.check(MANIFEST)
    for change in (
        {"capacities": {"east": 4}},
        {"capacities": {"east": 4, "west": 6}},
        {"phase": 2},
        {"campaign_id": "winter"},
        {"as_of": LATER},
        {"strikes": 3},
        {"reason": "in phase 1 there is none"},
    ):
        with pytest.raises(DrawError, match="notice"):
            replace(NOTED, **change).check(MANIFEST, 2)


def test_a_replaced_manifest_differs_in_its_round_alone() -> None:
    REPLACEMENT.check(later_round(2_000), replaced_name(1))
    for now in (MANIFEST, replace(later_round(2_000), count=4), replace(later_round(2_000), as_of=LATER)):
        with pytest.raises(DrawError, match="replaced-1"):
            REPLACEMENT.check(now, replaced_name(1))
    with pytest.raises(DrawError, match="manifest"):
        replace(REPLACEMENT, manifest="{}").to_bytes()


def test_an_annulment_of_another_phase_or_manifest_is_refused() -> None:
    ANNULMENT.check(MANIFEST)
    for other in (
        later_round(2),
        replace(MANIFEST, count=4),
        replace(MANIFEST, campaign_id="a", draw_id="a"),
    ):
        with pytest.raises(DrawError, match="annulled"):
            ANNULMENT.check(other)
    for changed in (replace(ANNULMENT, campaign_id="winter"), replace(ANNULMENT, phase=2)):
        with pytest.raises(DrawError, match="annulled"):
            changed.check(MANIFEST)


def test_the_names_of_the_files_are_known() -> None:
    assert [replaced_number(replaced_name(number)) for number in (1, 12)] == [1, 12]
    for name in (NOTICE, ACCEPTED, ANNULLED, "replaced-7.json"):
        assert is_beside(name)
    for name in (
        "replaced-0.json",
        "replaced-01.json",
        "replaced-.json",
        "manifest.json",
        "notice.json.part",
        "replaced-1.json.part",
    ):
        assert not is_beside(name)
