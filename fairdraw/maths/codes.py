"""Planned codes: the salt of a code, which only the campaign's code key makes and everybody verifies, and its digest.

The salt is a BLS signature, and a code has only one: so a second one cannot be invented, and a code that is planned
twice has one digest. A code here is the text as it was imported, in the form of `normal`.
"""

from __future__ import annotations

import re

from fairdraw import bls
from fairdraw.maths.files import sha256_hex

_DOMAIN = b"REGWORKERS_VFCODE2_BLS12381G1_XMD:SHA-256_SSWU_RO_"
_LABEL = "vfcode2"
# Characters that URLs, QR codes and spreadsheets keep unchanged; the length of an id.
_CODE = re.compile(r"[A-Za-z0-9._~-]{1,64}", re.ASCII)
_LINE = re.compile(r"[A-Za-z0-9_-]{1,64}\|[1-9][0-9]{0,15}\|[0-9a-f]{64}")
_CAPITALS = {ord(each): each.lower() for each in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def is_code(text: str) -> bool:
    return _CODE.fullmatch(text) is not None


def normal(code: str, *, caseless: bool) -> str:
    """The code as it is signed and compared: where case does not count, with A-Z as a-z."""
    return code.translate(_CAPITALS) if caseless else code


def salt_of(secret: bytes, campaign_id: str, code: str) -> str:
    """Sign a code with the secret half of the code key, in 0.5 ms. Raises ValueError unless it is a secret key."""
    return bls.sign(secret, _message(campaign_id, code), _DOMAIN)


def is_salt(key: str, campaign_id: str, code: str, salt: str) -> bool:
    """Whether this is the salt of the code under the code key, as 192 hex digits."""
    return bls.verify(key, _message(campaign_id, code), _DOMAIN, salt)


def digest_of(salt: str, code: str) -> str:
    return sha256_hex(f"{_LABEL}|{salt}|{code}".encode())


def line_of(market_id: str, position: int, digest: str) -> str:
    """The line of a planned code in `codes-<k>.txt`, without its line feed."""
    return f"{market_id}|{position}|{digest}"


def lines_in(data: bytes) -> list[str] | None:
    """The lines of `codes-<k>.txt`; None if one is not `market|position|digest`."""
    text = data.decode("ascii", "replace")
    lines = text.removesuffix("\n").split("\n") if text else []
    return lines if all(map(_LINE.fullmatch, lines)) else None


def _message(campaign_id: str, code: str) -> bytes:
    return f"{_LABEL}|{campaign_id}|{code}".encode()
