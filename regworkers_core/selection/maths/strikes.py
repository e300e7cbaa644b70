"""Who was struck and why: `ref|REASON` a line, in ref order, cumulative over the phases."""

from __future__ import annotations

import re
from collections.abc import Mapping

from regworkers_core.domain.keys import is_selection_id
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.files import STRIKES

REASON = re.compile(r"[A-Z_]+")


def strikes_bytes(strikes: Mapping[str, str]) -> bytes:
    """The bytes of strikes.txt from ref -> reason. DrawError when `parse_strikes` would refuse them."""
    data = "".join(f"{ref}|{reason}\n" for ref, reason in sorted(strikes.items())).encode()
    parse_strikes(data)
    return data


def parse_strikes(data: bytes, artefact: str = STRIKES) -> dict[str, str]:
    """ref -> reason, in ref order. DrawError names the line."""
    if not data:
        return {}
    if not data.isascii() or not data.endswith(b"\n"):
        raise DrawError(artefact, "ASCII with a line feed after every line is needed")
    strikes: dict[str, str] = {}
    before = ""
    for number, line in enumerate(data.decode("ascii")[:-1].split("\n"), 1):
        ref, _, reason = line.partition("|")
        if not is_selection_id(ref) or not REASON.fullmatch(reason):
            raise DrawError(artefact, f"line {number}: ref|REASON is needed, found {line!r}")
        if ref <= before:
            raise DrawError(artefact, f"line {number}: refs must increase strictly, {ref} follows {before}")
        strikes[ref] = reason
        before = ref
    return strikes


def check_cumulative(before: Mapping[str, str], now: Mapping[str, str], artefact: str = STRIKES) -> None:
    """DrawError when a strike of the phase before is missing now or has another reason."""
    for ref, reason in before.items():
        if now.get(ref) != reason:
            found = now.get(ref, "no strike")
            raise DrawError(artefact, f"{ref} was struck ({reason}) in the phase before: found {found}")
