"""Signatures of ML-DSA-44: the page's own check takes and refuses what Python's does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fairdraw.verifier.node import BUNDLE, Node

pytestmark = pytest.mark.skipif(not BUNDLE.exists(), reason="make verifier builds the curves")

_Q, _ALPHA = 8_380_417, 190_464
_GAMMA1, _OMEGA = 2**17, 80
_MOST_Z = _GAMMA1 - 79
_SEED, _TEXT = b"a seed of an invented key, of 32", b"log.tickets.example\n4\n"
# With nothing but zeros after the seed, anyone can sign: for any z, with any hints.
_KEY = _SEED + bytes(1280)
# Powers of a 512th root of unity.
_ROOTS = [pow(1753, power, _Q) for power in range(512)]


def _shake(data: bytes, length: int) -> bytes:
    return hashlib.shake_256(data).digest(length)


def _row(row: int, z: Sequence[Sequence[int]]) -> list[int]:
    """A row of the key's matrix times z: 256 numbers from 0 to Q - 1, by the definition of the transform."""
    sums = [0] * 256
    places = [2 * int(f"{at:08b}"[::-1], 2) + 1 for at in range(256)]
    for column, polynomial in enumerate(z):
        block = hashlib.shake_128(_SEED + bytes((column, row))).digest(1680)
        drawn = (int.from_bytes(block[at : at + 3], "little") & 0x7FFFFF for at in range(0, 1680, 3))
        entries = [each for each in drawn if each < _Q][:256]
        filled = [(at, each) for at, each in enumerate(polynomial) if each]
        for at, place in enumerate(places):
            sums[at] += entries[at] * sum(each * _ROOTS[place * power % 512] for power, each in filled)
    inverse = pow(256, -1, _Q)
    return [
        sum(each * _ROOTS[-place * at % 512] for each, place in zip(sums, places, strict=True)) * inverse % _Q
        for at in range(256)
    ]


def _high(number: int, hinted: bool) -> int:
    low = number % _ALPHA
    low -= _ALPHA if low > _ALPHA // 2 else 0
    high = (number - low) // _ALPHA
    return (high + (1 if low > 0 else -1) * hinted) % 44


def _packed(numbers: Sequence[int], bits: int) -> bytes:
    whole = sum(each << bits * at for at, each in enumerate(numbers))
    return whole.to_bytes(len(numbers) * bits // 8, "little")


def _signed(z: Sequence[Sequence[int]], hints: Sequence[Sequence[int]] = ((), (), (), ())) -> bytes:
    """A signature of `_TEXT` that anyone can make for `_KEY`: right in all but what z and hints may be."""
    high = b"".join(
        _packed([_high(each, at in hinted) for at, each in enumerate(_row(row, z))], 6)
        for row, hinted in enumerate(hints)
    )
    message = _shake(_shake(_KEY, 64) + b"\0\0" + _TEXT, 64)
    packed = b"".join(_packed([_GAMMA1 - each for each in polynomial], 18) for polynomial in z)
    places = bytes(place for hinted in hints for place in hinted)
    ends = bytes(sum(map(len, hints[: at + 1])) for at in range(4))
    return _shake(message + high, 32) + packed + places.ljust(_OMEGA, b"\0") + ends


def _z(first: int = 0) -> list[list[int]]:
    return [[first, *([0] * 255)], [0] * 256, [0] * 256, [0] * 256]


def _both_take(javascript: Node, value: bytes, text: bytes = _TEXT, key: bytes = _KEY) -> bool:
    """Whether both take it. Fails if they differ."""
    try:
        MLDSA44PublicKey.from_public_bytes(key).verify(value, text)
        python = True
    except InvalidSignature:
        python = False
    asked = {"value": value.hex(), "text": text.hex(), "key": key.hex(), "kind": "mldsa44"}
    assert javascript.ask("signature", **asked) is python
    return python


@pytest.mark.parametrize(
    ("first", "taken"), [(_MOST_Z, True), (-_MOST_Z, True), (_MOST_Z + 1, False), (-_MOST_Z - 1, False)]
)
def test_a_number_of_z_that_is_too_large_is_refused_though_all_else_is_right(
    javascript: Node, first: int, taken: bool
) -> None:
    assert _both_take(javascript, _signed(_z(first))) is taken


def test_hints_are_counted_at_every_number(javascript: Node) -> None:
    rng = Random(1)
    z = [[rng.randint(-_MOST_Z, _MOST_Z) for _ in range(256)] for _ in range(4)]
    for count in (0, 1, 20):
        assert _both_take(javascript, _signed(z, [sorted(rng.sample(range(256), count)) for _ in range(4)]))


_HINTS = _signed(_z(7), ((3, 9), (), (200,), (0, 255)))
_FROM = len(_HINTS) - _OMEGA - 4


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({0: 9, 1: 3}, id="not in order"),
        pytest.param({2: 3, _OMEGA + 1: 2}, id="another number"),
        pytest.param({1: 3}, id="one twice"),
        pytest.param({5: 1}, id="more than the ends say"),
        pytest.param({_OMEGA - 1: 1}, id="something at the end"),
        pytest.param({_OMEGA + 1: 1}, id="an end before the one before"),
        pytest.param({_OMEGA + 3: _OMEGA + 1}, id="an end behind all"),
        pytest.param({_OMEGA + 3: 255}, id="an end far behind all"),
    ],
)
def test_hints_have_one_form(javascript: Node, change: dict[int, int]) -> None:
    assert _both_take(javascript, _HINTS)
    changed = bytearray(_HINTS)
    for at, byte in change.items():
        changed[_FROM + at] = byte
    assert not _both_take(javascript, bytes(changed))


@pytest.mark.parametrize(
    ("hints", "form"),
    [
        pytest.param(
            ((3, 9), (), (3,), (9,)), bytes((3, 9)).ljust(_OMEGA, b"\0") + bytes((2, 0, 1, 2)), id="back"
        ),
        pytest.param(
            (range(40), (), (), range(41)), bytes(range(40)) * 2 + bytes((40, 40, 40, 81)), id="beyond"
        ),
    ],
)
def test_hints_that_only_a_lax_reader_finds_are_refused(
    javascript: Node, hints: Sequence[Sequence[int]], form: bytes
) -> None:
    assert not _both_take(javascript, _signed(_z(), hints)[:_FROM] + form)


@settings(max_examples=40)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300), st.integers(0, 8 * 2420 - 1))
def test_signatures_by_any_key_are_taken_and_changed_ones_refused(
    javascript: Node, secret: bytes, text: bytes, bit: int
) -> None:
    key = MLDSA44PrivateKey.from_seed_bytes(secret)
    signature, public = key.sign(text), key.public_key().public_bytes_raw()
    changed = bytearray(signature)
    changed[bit // 8] ^= 1 << bit % 8
    assert _both_take(javascript, signature, text, public)
    assert not _both_take(javascript, bytes(changed), text, public)
    assert not _both_take(javascript, signature, text + b"x", public)
    assert not _both_take(javascript, signature, text)


@pytest.mark.parametrize("length", [0, 32, 2419, 2421])
def test_a_signature_of_another_length_is_refused(javascript: Node, length: int) -> None:
    assert not _both_take(javascript, _HINTS.ljust(length, b"\0")[:length])
