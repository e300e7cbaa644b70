"""Manifest, strikes and seed: exactly one way to write each, and a message for every other."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fairdraw.errors import DrawError
from fairdraw.maths.files import canonical_bytes, parse_any_layout, parse_canonical
from fairdraw.maths.manifest import (
    FormerRules,
    Manifest,
    ManifestSeedSource,
    SeedFile,
    derive_seed,
    newly_unclaimed,
    parse_strikes,
    strikes_bytes,
)
from fairdraw.maths.phase import MarketCounts, Summary
from fairdraw.maths.rules import Cutoff, MarketCutoffs, cutoffs_document, meets_cutoff, parse_cutoffs
from fairdraw.terms import Outcome
from tests.fairdraw.maths import oracle

A, B, C = (oracle.sha(name) for name in "abc")


def document() -> dict[str, Any]:
    return {
        "algorithm": "vf2",
        "asOf": "2026-11-25T08:00:00.000Z",
        "campaignId": "camp-1",
        "count": 3,
        "drawId": "camp-1",
        "markets": [
            {
                "capacity": 5,
                "laterReserves": [{"seats": 9, "segment": "crew"}, {"seats": 2, "segment": "vip"}],
                "marketId": "east",
                "reserves": [{"seats": 2, "segment": "vip"}],
            },
            {"capacity": 0, "laterReserves": [], "marketId": "west", "reserves": []},
        ],
        "phase": 2,
        "previous": {"manifestHash": A, "resultHash": B},
        "registrations": {"erased": 1, "excluded": 2, "notices": 3, "root": A, "size": 13, "withdrawn": 4},
        "root": C,
        "seedSource": {"chain": A, "kind": "drand", "round": 7},
        "strikesHash": oracle.sha(""),
        "strikesRoot": oracle.sha(""),
        "waitlistSize": None,
        "winsPerUnit": 1,
    }


def test_a_manifest_is_read_and_written_as_the_same_bytes() -> None:
    data = oracle.canonical(document())
    manifest = Manifest.parse(data)
    assert manifest.to_bytes() == data
    assert manifest.hash == hashlib.sha256(data).hexdigest()
    assert manifest.markets[0].reserves[0].seats == 2


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(made: dict[str, Any]) -> None:
        place: Any = made
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda made: made.pop("root"), "missing root"),
        (lambda made: made.update(extra=1), "unknown extra"),
        (lambda made: made["markets"].reverse(), "ids must increase strictly"),
        (lambda made: made["markets"][0].pop("capacity"), r"markets\[0\]: missing capacity"),
        (
            lambda made: made["markets"][0]["reserves"].append({"seats": 1, "segment": "vip"}),
            "duplicate segment vip",
        ),
        (_set("markets", 0, "reserves", 0, "seats", to=6), "6 reserved seats in market east"),
        (_set("markets", 0, "capacity", to=-1), "capacity: an integer of at least 0"),
        (_set("markets", 0, "marketId", to="e|st"), "marketId: an id"),
        (_set("markets", to={}), "markets: a list"),
        (
            lambda made: made["markets"][0]["laterReserves"].append({"seats": 1, "segment": "vip"}),
            "duplicate segment vip",
        ),
        (_set("markets", 0, "laterReserves", to=[]), "segment vip is not next in laterReserves"),
        (_set("markets", 0, "laterReserves", 1, "seats", to=1), "2 seats for vip since phase 2"),
        (lambda made: made["markets"][0].pop("laterReserves"), r"markets\[0\]: missing laterReserves"),
        (_set("algorithm", to="vf3"), "algorithm"),
        (_set("registrations", "size", to=12), "registrations.size: 12 entries"),
        (_set("registrations", "root", to=""), "registrations.root"),
        (_set("registrations", "late", to=1), "registrations: unknown late"),
        (_set("registrations", to=[]), "registrations: a JSON object"),
        (_set("strikesRoot", to=None), "strikesRoot: 64 lower-case hex digits"),
        (_set("asOf", to="2026-11-25T08:00:00Z"), "asOf: a time like"),
        (_set("campaignId", to="x y"), "campaignId: an id"),
        (_set("drawId", to="other"), "drawId: the campaign's id"),
        (_set("count", to=True), "count: an integer"),
        (_set("count", to="3"), "count: an integer"),
        (_set("phase", to=0), "phase: an integer of at least 1"),
        (_set("phase", to=1), "previous: null in phase 1"),
        (_set("previous", to=None), "previous: null in phase 1"),
        (_set("previous", "resultHash", to=B.upper()), "previous.resultHash: 64 lower-case hex digits"),
        (_set("root", to=C[1:]), "root: 64 lower-case hex digits"),
        (_set("seedSource", "kind", to="dice"), "seedSource.kind"),
        (_set("seedSource", "round", to=0), "seedSource.round"),
        (
            _set("seedSource", to={"commitment": A, "kind": "commit-reveal"}),
            "seedSource: missing chain, round",
        ),
        (_set("waitlistSize", to=-1), "waitlistSize"),
        (_set("winsPerUnit", to=0), "winsPerUnit"),
    ],
)
def test_a_manifest_is_refused_for_each_flaw(
    change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    made = document()
    change(made)
    with pytest.raises(DrawError, match=complaint) as caught:
        Manifest.parse(oracle.canonical(made))
    assert caught.value.artefact == "manifest.json"


@pytest.mark.parametrize(
    "data",
    [b'{"a":1}\n', b'{"a": 1}', b'{"b":1,"a":1}', b'{"a":1.0}', b'{"a":1e3}', b'{"a":NaN}', b'{"a":1,"a":1}',
     b'{"a":9007199254740993}', b"[]", b"", b"{", b"\xff", b'{"a":"\\u0041"}'],
)  # fmt: skip
def test_only_canonical_json_with_integers_is_read(data: bytes) -> None:
    with pytest.raises(DrawError):
        parse_canonical(data, "any.json")


def test_many_reserves_are_read_in_a_time_that_grows_with_their_number() -> None:
    reserves = [{"seats": 0, "segment": f"s{number}"} for number in range(40_000)]
    data = canonical_bytes(
        {
            **document(),
            "markets": [{"capacity": 1, "laterReserves": reserves, "marketId": "east", "reserves": reserves}],
        }
    )
    begun = time.process_time()
    assert len(Manifest.parse(data).markets[0].reserves) == 40_000
    assert time.process_time() - begun < 10, "comparing each with all before takes 40 s"


def test_a_fraction_is_not_written() -> None:
    with pytest.raises(ValueError, match="no integer"):
        canonical_bytes({"a": [{"b": 0.5}]})


def test_strikes_are_in_ref_order_and_read_back() -> None:
    strikes = {"b": "FRAUD", "B": "BY_REQUEST", "a": "FRAUD"}
    data = strikes_bytes(strikes)
    assert data == b"B|BY_REQUEST\na|FRAUD\nb|FRAUD\n"
    assert parse_strikes(data) == strikes
    assert strikes_bytes({}) == b"" and parse_strikes(b"") == {}


@pytest.mark.parametrize(
    "data", [b"a|FRAUD", b"a|fraud\n", b"a\n", b"a|\n", b"a|FRAUD\n\n", b"a|FRAUD\r\n", b"b|X\na|X\n", b"a|X\na|X\n",
             b"|X\n", b"a|X|Y\n", "é|X\n".encode()],
)  # fmt: skip
def test_malformed_strikes_are_refused(data: bytes) -> None:
    with pytest.raises(DrawError) as caught:
        parse_strikes(data)
    assert caught.value.artefact == "strikes.txt"


def test_a_strike_is_never_taken_back_nor_given_another_reason() -> None:
    assert newly_unclaimed({"a": "FRAUD"}, {"a": "FRAUD", "b": "FRAUD", "c": "UNCLAIMED"}) == {"c"}
    assert (
        newly_unclaimed({"c": "UNCLAIMED"}, {"c": "UNCLAIMED"}) == newly_unclaimed(None, {"a": "X"}) == set()
    )
    for now in ({}, {"a": "BY_REQUEST"}):
        with pytest.raises(DrawError, match="a was struck"):
            newly_unclaimed({"a": "FRAUD"}, now)
    with pytest.raises(DrawError, match="c is UNCLAIMED in phase 1"):
        newly_unclaimed(None, {"c": "UNCLAIMED"})


def test_the_seed_follows_from_manifest_chain_round_and_randomness() -> None:
    assert derive_seed(A, ManifestSeedSource(C, 1000), B) == oracle.sha(f"vfseed2|{A}|{C}|1000|{B}")


@pytest.mark.parametrize("randomness", ["", B[:-1], B + "0", B.upper(), "g" + B[1:], B[:-1] + "\n"])
def test_randomness_is_exactly_64_lower_case_hex_digits(randomness: str) -> None:
    with pytest.raises(DrawError, match="randomness") as caught:
        derive_seed(A, SOURCE, randomness)
    assert caught.value.artefact == "seed.json"


SOURCE, SIGNATURE = ManifestSeedSource(C, 7), "ab" * 48


def test_a_seed_file_is_checked_against_what_was_committed_to() -> None:
    made = SeedFile.of(A, SOURCE, SIGNATURE)
    assert made.randomness == hashlib.sha256(bytes.fromhex(SIGNATURE)).hexdigest()
    assert SeedFile.parse(made.to_bytes()) == made
    made.check(A, SOURCE)
    with pytest.raises(DrawError, match="does not follow"):
        made.check(C, SOURCE)
    with pytest.raises(DrawError, match="does not follow"):
        made.check(A, replace(SOURCE, chain=B))
    with pytest.raises(DrawError, match="not the SHA-256 of the signature"):
        replace(made, signature="ac" * 48).check(A, SOURCE)
    with pytest.raises(DrawError, match="round 8 was committed to, found 7"):
        made.check(A, replace(SOURCE, round=8))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"kind": "dice"}, "kind"),
        ({"kind": "commit-reveal", "round": 0, "signature": None}, "kind"),
        ({"round": 0}, "round"),
        ({"signature": None}, "signature"),
        ({"signature": "ab" * 47}, "signature"),
        ({"signature": "AB" * 48}, "signature"),
        ({"seed": "x"}, "seed"),
        ({"randomness": B.upper()}, "randomness"),
    ],
)
def test_a_malformed_seed_file_is_refused(changes: dict[str, Any], complaint: str) -> None:
    fields = SeedFile.of(A, SOURCE, SIGNATURE).as_document() | changes
    with pytest.raises(DrawError, match=complaint):
        SeedFile.parse(oracle.canonical(fields))


def test_a_manifest_of_the_former_rules_is_refused_by_one_sentence_with_the_way_out() -> None:
    with pytest.raises(FormerRules, match="rules vf1, which are gone, so it can only be annulled"):
        Manifest.parse(oracle.canonical({**document(), "algorithm": "vf1"}))
    with pytest.raises(FormerRules):
        Manifest.parse(b'{"algorithm":"vf1"}')


def test_cutoffs_and_summary_are_read_back() -> None:
    cutoffs = {
        "east": MarketCutoffs(None, (("vip", Cutoff(3, A, B)),)),
        "west": MarketCutoffs(Cutoff(1, B, C)),
    }
    assert (
        parse_cutoffs(parse_canonical(canonical_bytes(cutoffs_document(cutoffs)), "cutoffs.json")) == cutoffs
    )
    outcomes = dict.fromkeys(Outcome, 0) | {"WINNER": 1}
    summary = Summary(A, B, A, C, outcomes, {"east": MarketCounts(0, 1)})
    assert Summary.parse(summary.to_bytes()) == summary


def test_a_cutoff_is_met_up_to_the_worst_admitted_itself() -> None:
    low, high = sorted((A, B))
    cutoff = Cutoff(9, low, low)
    assert meets_cutoff(None, high, high)
    assert meets_cutoff(cutoff, low, low)
    assert not meets_cutoff(cutoff, low, high)
    assert not meets_cutoff(cutoff, high, low)
    assert not meets_cutoff(Cutoff(0, "0" * 64, "0" * 64), low, low)


def test_a_key_that_is_there_twice_is_refused_whatever_its_values() -> None:
    assert parse_any_layout(b'{"a": 1, "b": [{"a": 2}]}') == {"a": 1, "b": [{"a": 2}]}
    deep = b"[" * 70 + b"]" * 70
    for value in (b"1", b"1.5", b"3.0", b"9007199254740992", b"9" * 5_000, b'"x"', b"null", b"{}", deep):
        for twice in (b'{"a": %b, "a": 1}', b'{"a": 1, "a": %b}', b'[{"b": {"\\u0061": %b, "a": 1}}]'):
            with pytest.raises(ValueError):
                parse_any_layout(twice % value)
            with pytest.raises(DrawError):
                parse_canonical(twice % value, "manifest.json")
