"""Planned codes: the salt of a code, which only the campaign's code key makes and everybody verifies, and its digest.

The salt is a BLS signature, and a code has only one: so a second one cannot be invented, and a code that is planned
twice has one digest. A code here is the text as it was imported, in the form of `normal`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import NamedTuple

from fairdraw import bls
from fairdraw.maths.files import sha256_hex

_DOMAIN = b"REGWORKERS_VFCODE2_BLS12381G1_XMD:SHA-256_SSWU_RO_"
_LABEL = "vfcode2"
# Characters that URLs, QR codes and spreadsheets keep unchanged; the length of an id.
_CODE = re.compile(r"[A-Za-z0-9._~-]{1,64}", re.ASCII)
_LINE = re.compile(r"[A-Za-z0-9_-]{1,64}\|[1-9][0-9]{0,15}\|[0-9a-f]{64}", re.ASCII)
NO_CODE_KEY = "code key not in the log"
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


class PlannedLine(NamedTuple):
    """A line of `codes-<k>.txt`; they are in order of market and position."""

    market: str
    position: int
    digest: str

    @property
    def place(self) -> str:
        return f"{self.market}|{self.position}"

    def __str__(self) -> str:
        return f"{self.place}|{self.digest}"


def lines_in(data: bytes) -> list[PlannedLine]:
    """The lines of `codes-<k>.txt`. Raises ValueError unless they have their form and order, with the first that has
    not.
    """
    *lines, rest = data.decode("ascii", "replace").split("\n")
    if rest:
        raise ValueError("a line feed after every line is needed")
    found = []
    for number, line in enumerate(lines, 1):
        if not _LINE.fullmatch(line):
            raise ValueError(f"line {number} is not market|position|digest")
        market, position, digest = line.split("|")
        found.append(PlannedLine(market, int(position), digest))
    for number, (before, now) in enumerate(pairwise(found), 2):
        if now[:2] <= before[:2]:
            raise ValueError(f"line {number} does not follow the one before, by market and then by number")
    return found


def has_lines(data: bytes) -> bool:
    """Whether any line has the form of those in `codes-<k>.txt`: else it is another file."""
    return any(map(_LINE.fullmatch, data.decode("ascii", "replace").split("\n")))


class _Planned(NamedTuple):
    digest: str
    phase: int


class PlannedCodes:
    """The planned codes of a campaign, from all of its lists: each code has one place and each place one code."""

    def __init__(self) -> None:
        self._codes: dict[str, _Planned] = {}
        self._places: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._places)

    def problems(self, phase: int, data: bytes, markets: Collection[str] | None) -> Iterator[str]:
        """What is wrong with a list of this phase, by itself and beside those before it. `markets` are those of the
        draw, None if they are not known.
        """
        try:
            lines = lines_in(data)
        except ValueError as error:
            yield str(error)
            return
        for line in lines:
            place = line.place
            if markets is not None and line.market not in markets:
                yield f"market {line.market} is not in the manifest"
            first = self._codes.setdefault(place, _Planned(line.digest, phase))
            if first.digest != line.digest:
                yield f"the code of {place} was changed after it was published"
            elif first.phase != phase:
                yield f"the code of {place} was planned in phase {first.phase} already, for another winner"
            if (other := self._places.setdefault(line.digest, place)) != place:
                yield f"{place} and {other} have the same code"


def _message(campaign_id: str, code: str) -> bytes:
    return f"{_LABEL}|{campaign_id}|{code}".encode()
