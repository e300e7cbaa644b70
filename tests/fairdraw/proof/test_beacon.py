"""The beacon's signature, checked offline with a recorded round of the real chain and with wrong ones."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from fairdraw.bls import public_key, sign
from fairdraw.errors import DrawError
from fairdraw.maths.manifest import Manifest, ManifestSeedSource
from fairdraw.proof.beacon import DOMAIN, chain_of, check_round, round_message, verify_beacon
from fairdraw.terms import QUICKNET, QUICKNET_HASH, Chain, iso, signed_at
from tests.fairdraw.proof.draws import RANDOMNESS, ROUND, SIGNATURE

P = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab", 16
)


FAR = Manifest(
    as_of="2026-11-25T08:00:00.000Z",
    campaign_id="summer",
    count=0,
    draw_id="summer",
    markets=(),
    phase=1,
    previous=None,
    root="a" * 64,
    seed_source=ManifestSeedSource(QUICKNET_HASH, 2**53 - 1),
    registrations=None,
    strikes_hash="b" * 64,
    strikes_root="c" * 64,
    waitlist_size=None,
    wins_per_unit=1,
)


def refusal(signature: str, round_number: int = ROUND, chain: Chain = QUICKNET) -> DrawError:
    with pytest.raises(DrawError) as refused:
        verify_beacon(chain, round_number, signature)
    return refused.value


def compressed(x: int, *, high: bool = False) -> str:
    return f"{x + (1 << 383) + (high << 381):096x}"


def square(x: int) -> bool:
    return pow((x**3 + 4) % P, (P - 1) // 2, P) == 1


def test_the_recorded_round_of_the_real_chain_is_accepted() -> None:
    assert verify_beacon(QUICKNET, ROUND, SIGNATURE) == RANDOMNESS
    assert hashlib.sha256(bytes.fromhex(SIGNATURE)).hexdigest() == RANDOMNESS


def test_the_signature_of_another_round_is_refused() -> None:
    refused = refusal(SIGNATURE, ROUND + 1)
    assert refused.artefact == "seed.json" and "round 1001" in str(refused)


def test_a_point_of_the_group_that_is_not_the_signature_is_refused() -> None:
    # The same x with the other y: a valid point of the right order, the negated signature.
    negated = f"{int(SIGNATURE, 16) ^ (1 << 381):096x}"
    assert "not the chain's" in str(refusal(negated))


def test_any_flipped_bit_is_refused() -> None:
    for bit in (0, 7, 100, 200, 380, 382, 383):
        assert refusal(f"{int(SIGNATURE, 16) ^ (1 << bit):096x}").artefact == "seed.json"


def test_a_point_off_the_curve_is_refused() -> None:
    off = next(x for x in range(1, 100) if not square(x))
    assert "not a point of the group" in str(refusal(compressed(off)))
    assert "not a point of the group" in str(refusal(compressed(P)))


def test_a_point_of_the_curve_outside_the_group_is_refused() -> None:
    on = next(x for x in range(1, 100) if square(x))
    assert "not a point of the group" in str(refusal(compressed(on)))


def test_the_identity_element_is_refused() -> None:
    assert "not a point of the group" in str(refusal("c0" + "0" * 94))


def test_what_is_not_96_lower_case_hex_digits_is_refused() -> None:
    for text in (
        "",
        SIGNATURE.upper(),
        SIGNATURE[:-1],
        SIGNATURE + "0",
        SIGNATURE[:-1] + "g",
        SIGNATURE + "\n",
    ):
        assert "96 lower-case hex digits" in str(refusal(text))
    assert "count from 1" in str(refusal(SIGNATURE, 0))


def test_the_pinned_key_is_quicknets_and_its_chain_needs_no_file() -> None:
    assert QUICKNET.hash == QUICKNET_HASH and chain_of(QUICKNET_HASH) is QUICKNET
    with pytest.raises(DrawError, match="no such file"):
        chain_of(QUICKNET_HASH, QUICKNET.to_bytes())


def test_the_round_of_a_commit_is_the_first_that_is_signed_ten_minutes_later() -> None:
    for moment in (1_700_000_000.0, 1_700_000_000.001, 1_700_000_001.999, 1_700_000_002.0, 1764043200.123):
        chosen = QUICKNET.round_after(moment, 600)
        assert QUICKNET.due(chosen) >= moment + 600 > QUICKNET.due(chosen - 1)
    assert (
        QUICKNET.round_after(QUICKNET.genesis, 0) == 1 and QUICKNET.round_after(QUICKNET.genesis + 3, 0) == 2
    )
    assert QUICKNET.round_after(0.0, 600) == 1


def test_a_round_after_the_year_9999_has_no_time_and_is_refused() -> None:
    assert signed_at(QUICKNET, 2**53 - 1) is None
    with pytest.raises(DrawError, match="after the year 9999"):
        check_round(FAR, QUICKNET, None)


SECRET = bytes(31) + b"\7"
OTHER = Chain(public_key(SECRET), "ab" * 32, "of-a-test", 1_700_000_000, 1)


def described(**changed: object) -> bytes:
    return json.dumps(json.loads(OTHER.to_bytes()) | changed, separators=(",", ":")).encode()


def test_another_chain_is_read_from_the_file_that_its_hash_names() -> None:
    assert Chain.parse(OTHER.to_bytes()) == OTHER and chain_of(OTHER.hash, OTHER.to_bytes()) == OTHER
    assert QUICKNET.hash == Chain.parse(QUICKNET.to_bytes()).hash
    with pytest.raises(DrawError, match=r"chain\.json is missing"):
        chain_of(OTHER.hash)
    with pytest.raises(DrawError, match="describes the chain"):
        chain_of("ab" * 32, OTHER.to_bytes())


def test_a_round_of_another_chain_is_verified_with_its_key() -> None:
    signature = sign(SECRET, round_message(5), DOMAIN)
    assert verify_beacon(OTHER, 5, signature) == hashlib.sha256(bytes.fromhex(signature)).hexdigest()
    assert "not the chain's" in str(refusal(signature, 6, OTHER))
    assert "not the chain's" in str(refusal(signature, 5, QUICKNET))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        OTHER.to_bytes() + b"\n",
        OTHER.to_bytes().replace(b":", b": "),
        OTHER.to_bytes().replace(b"{", b'{"id":"first",'),
        described(more=1),
        described(genesis=0),
        described(genesis="1"),
        described(genesis=1.5),
        described(genesis=-1),
        described(period=0),
        described(period=1 << 32),
        described(id="default"),
        described(id=""),
        described(id="é"),
        described(groupHash="AB" * 32),
        described(groupHash="ab" * 31),
        described(scheme="pedersen-bls-chained"),
        described(publicKey=OTHER.public_key[:-2]),
        described(publicKey=OTHER.public_key.upper()),
        described(publicKey="c0" + "0" * 190),
        described(publicKey="c0" + "0" * 189 + "1"),
    ],
)
def test_a_description_in_any_other_form_is_no_chain(data: bytes) -> None:
    with pytest.raises(DrawError, match=r"^chain\.json: "):
        Chain.parse(data)


def test_the_round_comes_after_the_lead_to_the_millisecond() -> None:
    number = 1_000_000
    in_time = iso(OTHER.due(number) - 5)
    manifest = replace(FAR, as_of=in_time, seed_source=ManifestSeedSource(OTHER.hash, number))
    check_round(manifest, OTHER, 5)
    late = replace(manifest, as_of=in_time.replace(".000Z", ".001Z"))
    with pytest.raises(DrawError, match="at least 5 s later"):
        check_round(late, OTHER, 5)
    check_round(late, OTHER, None)
