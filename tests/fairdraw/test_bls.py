"""Points and signatures of BLS12-381: what is accepted has one form and the right order; a signature is unique."""

from __future__ import annotations

from collections.abc import Mapping

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


def forms(point: str) -> dict[str, str | None]:
    """What is no point of its group, whichever: the identity, and other forms of `point`."""
    digits = len(point)
    return {
        "the identity": f"c{0:0{digits - 1}x}",
        "the identity with another sign": f"e{0:0{digits - 1}x}",
        "the identity with more bits": f"c{1:0{digits - 1}x}",
        "not compressed": f"{int(point, 16) - (1 << digits * 4 - 1):0{digits}x}",
        "capitals": point.upper(),
        "a line feed": point + "\n",
        "too short": point[:-2],
        "no text": None,
    }


@pytest.mark.parametrize(
    ("point", "others"),
    [
        pytest.param(
            SIGNATURE,
            {
                "small order": SMALL,
                "outside the subgroup": compressed(4),
                "off the curve": compressed(1),
                "not below the prime": compressed(P),
                "another form of a point": compressed(P + 4),
                "a point of the other group": KEY,
            },
            id="signature",
        ),
        pytest.param(
            KEY,
            {
                "outside the subgroup": OUTSIDE,
                "another form of a point": KEY[:96] + f"{int(KEY[96:], 16) + P:096x}",
                "a point of the other group": SIGNATURE,
            },
            id="key",
        ),
    ],
)
def test_what_is_no_signature_or_no_key_is_refused(point: str, others: Mapping[str, str]) -> None:
    for name, text in {**forms(point), **others}.items():
        assert not (is_key if point is KEY else is_signature)(text), name
        if text is not None:
            key, signature = (text, sign(SECRET, b"message", DOMAIN)) if point is KEY else (KEY, text)
            assert not verify(key, b"message", DOMAIN, signature), name


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
