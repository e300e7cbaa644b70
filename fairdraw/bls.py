"""BLS12-381 with signatures in G1 and keys in G2: the one place that knows the library.

Points are in ZCash's compressed form, as hex. The library takes any bytes for the identity, and the identity itself:
here a point is in canonical form, in the subgroup of prime order, and not the identity.
"""

from __future__ import annotations

import re
import secrets
from typing import TypeVar

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

SIGNATURE_FORM = re.compile(r"[0-9a-f]{96}")
KEY_FORM = re.compile(r"[0-9a-f]{192}")
# The order of the groups: a secret is a number from 1 to below it, in 32 bytes, big-endian.
_ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
_IDENTITIES = (G1Point.identity(), G2Point.identity())
_MINUS_GENERATOR = -G2Point()
Point = TypeVar("Point", G1Point, G2Point)


def is_signature(text: object) -> bool:
    """Whether the text is a point of G1 that may be a signature."""
    return isinstance(text, str) and _point(G1Point, SIGNATURE_FORM, text) is not None


def is_key(text: object) -> bool:
    """Whether the text is a point of G2 that may be a public key."""
    return isinstance(text, str) and _point(G2Point, KEY_FORM, text) is not None


def verify(key: str, message: bytes, domain: bytes, signature: str) -> bool:
    """Whether this is the signature of the message under the key, hashed to G1 with the domain separation tag. It is
    unique: there is no second one. False for what is no point, too. Takes about 2 ms.
    """
    point, public = _point(G1Point, SIGNATURE_FORM, signature), _point(G2Point, KEY_FORM, key)
    if point is None or public is None:
        return False
    hashed = G1Point.hash_to_curve(message, domain)
    return GT.pairing_check([point, hashed], [_MINUS_GENERATOR, public])


def new_secret() -> bytes:
    """A secret key at random, 32 bytes."""
    return (secrets.randbelow(_ORDER - 1) + 1).to_bytes(32, "big")


def public_key(secret: bytes) -> str:
    """The public key of a secret. Raises ValueError unless it is one."""
    return (G2Point() * _scalar(secret)).to_compressed_bytes().hex()


def sign(secret: bytes, message: bytes, domain: bytes) -> str:
    """The signature of the message. Raises ValueError unless the secret is one."""
    return (G1Point.hash_to_curve(message, domain) * _scalar(secret)).to_compressed_bytes().hex()


def _scalar(secret: bytes) -> Scalar:
    if len(secret) != 32 or not 0 < int.from_bytes(secret, "big") < _ORDER:
        raise ValueError("a secret key is 32 bytes, from 1 to below the order of the group")
    return Scalar.from_be_bytes(secret)


def _point(kind: type[Point], form: re.Pattern[str], text: str) -> Point | None:
    if not form.fullmatch(text):
        return None
    data = bytes.fromhex(text)
    try:
        point = kind.from_compressed_bytes(data)
    except ValueError:
        return None
    return None if point in _IDENTITIES or point.to_compressed_bytes() != data else point
