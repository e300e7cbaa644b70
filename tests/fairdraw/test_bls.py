"""Points and signatures of BLS12-381: what is accepted has one form and the right order; a signature is unique."""

from __future__ import annotations

import pytest

from fairdraw.bls import is_key, is_signature, new_secret, public_key, sign, verify
from fairdraw.proof.beacon import DOMAIN, round_message
from fairdraw.terms import QUICKNET
from tests.fairdraw.proof.draws import SIGNATURE

P = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB
ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
SECRET = (12345).to_bytes(32, "big")
KEY = public_key(SECRET)


def compressed(x: int, digits: int = 96, *, flags: int = 0b100) -> str:
    return f"{x + (flags << digits * 4 - 3):0{digits}x}"


# The point (0, 2) has order 3, a small one: it is on the curve and outside the subgroup.
SMALL = compressed(0)
# A point of the curve of keys, y^2 = x^3 + 4 (1 + i), outside the subgroup: x = 2.
OUTSIDE = compressed(2, 192)


def test_a_signature_is_of_its_message_key_and_domain_alone() -> None:
    signature = sign(SECRET, b"message", DOMAIN)
    assert is_key(KEY) and is_signature(signature)
    assert verify(KEY, b"message", DOMAIN, signature)
    assert signature == sign(SECRET, b"message", DOMAIN), "it is unique"
    assert not verify(KEY, b"another", DOMAIN, signature)
    assert not verify(KEY, b"message", b"another", signature)
    assert not verify(public_key(new_secret()), b"message", DOMAIN, signature)


# Rounds of quicknet that drand published.
@pytest.mark.parametrize("number, signature", [(1000, SIGNATURE)])
def test_the_rounds_of_the_real_chain_are_verified(number: int, signature: str) -> None:
    assert verify(QUICKNET.public_key, round_message(number), DOMAIN, signature)
    assert not verify(QUICKNET.public_key, round_message(number + 1), DOMAIN, signature)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("c0" + "0" * 94, id="the identity"),
        pytest.param("e0" + "0" * 94, id="the identity with another sign"),
        pytest.param("c0" + "0" * 93 + "1", id="the identity with more bits"),
        pytest.param(SMALL, id="small order"),
        pytest.param(compressed(4), id="outside the subgroup"),
        pytest.param(compressed(1), id="off the curve"),
        pytest.param(compressed(P), id="not below the prime"),
        pytest.param(compressed(P + 4), id="another form of a point"),
        pytest.param(compressed(int(SIGNATURE, 16) % (1 << 381), flags=0), id="not compressed"),
        pytest.param(SIGNATURE.upper(), id="capitals"),
        pytest.param(SIGNATURE + "\n", id="a line feed"),
        pytest.param(SIGNATURE[:-2], id="too short"),
        pytest.param(None, id="no text"),
    ],
)
def test_what_is_no_signature_is_refused(text: str) -> None:
    assert not is_signature(text)
    if text:
        assert not verify(QUICKNET.public_key, round_message(1000), DOMAIN, text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("c0" + "0" * 190, id="the identity"),
        pytest.param("e0" + "0" * 190, id="the identity with another sign"),
        pytest.param("c0" + "0" * 189 + "1", id="the identity with more bits"),
        pytest.param(OUTSIDE, id="outside the subgroup"),
        pytest.param(KEY[:96] + f"{int(KEY[96:], 16) + P:096x}", id="another form of a point"),
        pytest.param(f"{int(KEY, 16) - (1 << 767):0192x}", id="not compressed"),
        pytest.param(KEY.upper(), id="capitals"),
        pytest.param(KEY[:-2], id="too short"),
        pytest.param(SIGNATURE, id="a point of the other group"),
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    assert not is_key(text)
    assert not verify(text, b"message", DOMAIN, sign(SECRET, b"message", DOMAIN))


def test_a_point_of_small_order_added_to_a_signature_makes_no_second_one() -> None:
    from py_arkworks_bls12381 import G1Point

    signature = sign(SECRET, b"message", DOMAIN)
    small = G1Point.from_compressed_bytes_unchecked(bytes.fromhex(SMALL))
    assert small + small + small == G1Point.identity()
    second = (G1Point.from_compressed_bytes(bytes.fromhex(signature)) + small).to_compressed_bytes().hex()
    assert second != signature and not verify(KEY, b"message", DOMAIN, second)


@pytest.mark.parametrize("number", [0, ORDER, ORDER + 1])
def test_a_secret_is_below_the_order_and_not_zero(number: int) -> None:
    secret = number.to_bytes(32, "big")
    for act in (lambda: public_key(secret), lambda: sign(secret, b"", DOMAIN)):
        with pytest.raises(ValueError, match="32 bytes"):
            act()
    with pytest.raises(ValueError, match="32 bytes"):
        public_key(b"\1")
