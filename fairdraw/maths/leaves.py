"""The lines of leaves.txt, one for each eligible entry in the order of refs, and of result.txt."""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass
from itertools import pairwise

from fairdraw.errors import DrawError
from fairdraw.maths.files import LEAVES, RESULT, short
from fairdraw.maths.rules import MAX_WEIGHT
from fairdraw.terms import SELECTION_ID, Outcome

_ID = SELECTION_ID.pattern
_WEIGHT = "[1-9]|[1-5][0-9]|6[0-4]"
# 32 bytes in base64url without padding: the last digit has four bits, then zeros.
_UNIT = "u-[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"
UNIT = re.compile(_UNIT, re.ASCII)
# No ref may look like a unit.
UNIT_LIKE = re.compile("u-[A-Za-z0-9_-]{43}", re.ASCII)
_LINE = re.compile(rf"({_ID})\|({_ID})\|({_WEIGHT})\|((?:{_ID}(?:,{_ID})*)?)\|({_ID}(?:,{_ID})*)", re.ASCII)
# The same without groups, for other engines of expressions.
SHAPE = rf"{_ID}\|{_ID}\|(?:{_WEIGHT})\|(?:{_ID}(?:,{_ID})*)?\|{_ID}(?:,{_ID})*"
LEAF_COLUMNS = ("ref", "unit", "weight", "segments", "preferences")
RESULT_COLUMNS = ("ref", "market", "rank", "outcome")
# `a|a|1||m` and its line feed.
LEAST_LEAF_BYTES = 9
# Numbers in artefacts have at most this many digits.
_RANK = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry of the draw."""

    # The name of the entry in all artefacts.
    ref: str
    # Its own ref, or `unit_of` what the operator stores.
    unit: str
    # That of its unit.
    weight: int
    # They are sorted.
    segments: tuple[str, ...]
    # Markets in the fan's order.
    preferences: tuple[str, ...]

    @property
    def line(self) -> str:
        """The line without its line feed, which is not part of the leaf."""
        lists = f"{','.join(self.segments)}|{','.join(self.preferences)}"
        return f"{self.ref}|{self.unit}|{self.weight}|{lists}"


def unit_of(key: bytes, campaign_id: str, unit: str) -> str:
    """Return what a leaf has for `unit` as stored: `u-` and the HMAC-SHA256 under the campaign's unit key of
    `"vfunit2|" + campaignId + "|" + unit` in base64url.
    """
    made = hmac.digest(key, f"vfunit2|{campaign_id}|{unit}".encode(), "sha256")
    return "u-" + base64.urlsafe_b64encode(made).decode("ascii").rstrip("=")


def parse_leaf(line: str) -> Leaf:
    """Parse a line without its line feed. Raises DrawError with what is wrong with it."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise DrawError(
            LEAVES, f"ref|unit|weight|segments|preferences is needed, found {short(line)}{_why(line)}"
        )
    ref, unit, weight, segments, preferences = found.groups()
    leaf = Leaf(
        ref,
        unit,
        int(weight),
        tuple(segments.split(",")) if segments else (),
        tuple(preferences.split(",")),
    )
    if UNIT_LIKE.fullmatch(ref):
        raise DrawError(LEAVES, f"{ref}: a ref may not look like a unit")
    require_unit(ref, unit)
    if any(before >= after for before, after in pairwise(leaf.segments)):
        raise DrawError(LEAVES, f"{ref}: segments must be sorted, each once, found {segments}")
    if len(set(leaf.preferences)) < len(leaf.preferences):
        raise DrawError(LEAVES, f"{ref}: duplicate preference in {preferences}")
    return leaf


def require_unit(ref: str, unit: str) -> None:
    """Raise DrawError unless the unit is the ref, or 32 bytes in the form of `unit_of`."""
    if unit != ref and not UNIT.fullmatch(unit):
        raise DrawError(
            LEAVES, f"{ref}: a unit is the ref, or u- and 32 bytes in base64url, found {short(unit)}"
        )


def _why(line: str) -> str:
    fields = line.split("|")
    if len(fields) == 5 and not re.fullmatch(_WEIGHT, fields[2]):
        return f": a weight is 1 to {MAX_WEIGHT} without leading zero, found {short(fields[2])}"
    if len(fields) == 5 and not fields[4]:
        return ": at least one preference is needed"
    return f": {len(fields)} fields" if len(fields) != 5 else ": ids are 1 to 64 of A-Z a-z 0-9 _ -"


@dataclass(frozen=True, slots=True)
class Position:
    """A line of result.txt. `rank` and `market` may be empty text, as there."""

    market: str
    rank: str
    outcome: str

    @classmethod
    def parse(cls, line: str, ref: str) -> Position:
        """Parse `ref|market|rank|outcome`. Raises DrawError for result.txt."""
        parts = line.split("|")
        if len(parts) != 4 or parts[0] != ref:
            raise DrawError(RESULT, f"{short(line)} is not a line `{ref}|market|rank|outcome`")
        _, market, rank, outcome = parts
        if outcome not in Outcome.__members__:
            raise DrawError(RESULT, f"outcome {short(outcome)} is not one of {', '.join(Outcome)}")
        if rank and not _RANK.fullmatch(rank):
            raise DrawError(RESULT, f"rank {short(rank)} is not a positive whole number")
        return cls(market, rank, outcome)
