"""The order of two states of one entry: what decides which of them may overwrite the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

from regworkers_core.domain.timestamps import iso, seconds


class Order(NamedTuple):
    """(createdAt, version, updatedAt), compared in that order; a missing part is the smallest value.

    `createdAt` leads because an entry that was removed and created again starts at version 1.
    """

    created_at: str = ""
    version: int = 0
    updated_at: str = ""

    def as_fields(self) -> dict[str, Any]:
        """The three fields under their contract names."""
        return {"createdAt": self.created_at, "version": self.version, "updatedAt": self.updated_at}


# What the replica and a message can hold: 64 bits, signed.
_LARGEST = 2**63 - 1
_DIGITS = 19
# Characters of a time. An ISO-8601 time has some 30: more is none, and would not fit into a message.
LONGEST_TIME = 64
# Characters of a time in the contract's form.
_TIME = len("2026-01-01T00:00:00.000Z")
# Above every version that a writer gives.
LAST_VERSION = _LARGEST


def whole_number(value: object) -> int | None:
    """A 64-bit integer from an integer or from a string of digits (old writers sent numbers as strings)."""
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS:
        number = int(value)
    return number if number is not None and -_LARGEST <= number <= _LARGEST else None


def is_time(value: object) -> TypeGuard[str]:
    """Whether `value` may stand for a time in an order: up to 64 printable ASCII characters, compared as they are."""
    return isinstance(value, str) and len(value) <= LONGEST_TIME and value.isascii() and value.isprintable()


def lenient_order(fields: Mapping[str, Any]) -> Order:
    """The order in `fields`, reading anything malformed as missing.

    For hints and stored documents; the strict reading, which refuses malformed parts, is `Entry.parse`.
    """
    created, version, updated = fields.get("createdAt"), fields.get("version"), fields.get("updatedAt")
    return Order(
        created if is_time(created) else "",
        whole_number(version) or 0,
        updated if is_time(updated) else "",
    )


def life(created_at: str) -> str:
    """When a life of an entry began, to be compared with an erasure: `createdAt` in the contract's form, whatever form
    or zone its writer chose. Empty, which is before every erasure, for a text that is no time.
    """
    moment = seconds(created_at)
    try:
        text = "" if moment is None else iso(moment)
    except (OverflowError, ValueError):
        return ""
    return text if len(text) == _TIME else ""


def is_erased(created_at: str, erased_at: str | None) -> bool:
    """Whether a state belongs to a life of the entry that was erased: it was created up to the erasure, a time of the
    contract. One whose `createdAt` is missing, or no time, always does: nothing says that it is a later one.
    """
    return erased_at is not None and life(created_at) <= erased_at


def removal_order(fields: Mapping[str, Any]) -> Order | None:
    """The order of the tombstone for a removed state; None when its `createdAt` is malformed, so that nothing says
    which life of the entry ended.

    A state whose version or `updatedAt` is malformed was never saved, but an earlier one of the same life may have
    been: its tombstone is above every version of that life.
    """
    created, version, updated = fields.get("createdAt"), fields.get("version"), fields.get("updatedAt")
    if created is not None and not is_time(created):
        return None
    number = 0 if version is None else whole_number(version)
    is_read = number is not None and number >= 0 and (updated is None or is_time(updated))
    return lenient_order(fields) if is_read else lenient_order({**fields, "version": LAST_VERSION})
