"""An entry as the demand table holds it: which fields it has, which are needed, what is refused, and the order of two
of its states, which decides which of them may overwrite the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TypeGuard

from fairdraw.terms import is_market_id
from regworkers_core.domain.keys import EntryKey, is_selection_id, unstorable
from regworkers_core.domain.reasons import PermanentFailure, Reason
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


def _text(value: object) -> bool:
    return isinstance(value, str)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _number(value: object) -> bool:
    return whole_number(value) is not None


def _mapping(value: object) -> bool:
    return isinstance(value, dict)


class Voucher(StrEnum):
    """Who said that the address of an entry is its fan's: field `vouchedBy`, absent where checkEligibility did not
    write the entry.
    """

    CALLER = "caller"  # our own backend
    PROVIDER = "provider"  # the identity provider of the fan
    UNVERIFIED = "unverified"


class Field(NamedTuple):
    """A field of the contract."""

    accepts: Callable[[object], bool]
    wanted: str  # what `accepts` takes, in words
    # What of it `entry.replicated` has, None: nothing. Text without a grammar may be a mail address.
    in_event: Callable[[Any], object] | None = None


def _id(value: str | None) -> str | None:
    return value if value and is_selection_id(value) else None


def _those(is_id: Callable[[str], bool]) -> Callable[[Any], object]:
    return lambda values: [each for each in values or () if is_id(each)]


# The fields of the contract that the replica carries beside the key and the order.
FIELDS: Mapping[str, Field] = {
    "ref": Field(_text, "a string", _id),
    "email": Field(_text, "a string"),
    "firstName": Field(_text, "a string"),
    "lastName": Field(_text, "a string"),
    "globalUserId": Field(_text, "a string"),
    "memberId": Field(_text, "a string"),
    "unit": Field(_text, "a string"),
    "weight": Field(_number, "a whole number"),
    "markets": Field(_texts, "a list of strings", _those(is_market_id)),
    "segments": Field(_texts, "a list of strings", _those(is_selection_id)),
    "vouchedBy": Field(_text, "a string"),
    "attributes": Field(_mapping, "a map"),
    "correlationId": Field(_text, "a string"),
}
ORDER_FIELDS = ("createdAt", "version", "updatedAt")
# Every top-level field that an upsert may set and a tombstone must therefore remove.
REPLICA_FIELDS = ("campaignId", "entryId", *FIELDS, *ORDER_FIELDS)


@dataclass(frozen=True, slots=True)
class Entry:
    """A valid entry."""

    key: EntryKey
    order: Order
    fields: Mapping[str, Any]  # what the replica stores, both ids included, absent optional fields left out
    needs_replication: bool
    # The three order fields exactly as the table holds them, absent ones left out: for conditions that must match the
    # stored item.
    order_as_read: Mapping[str, Any]

    @classmethod
    def parse(cls, key: EntryKey, item: Mapping[str, Any]) -> Entry:
        """Read a demand-table item (plain Python values, numbers as int or float).

        Lenient where an honest reading exists (digits in a string, no version yet, no name); raises
        PermanentFailure INVALID_ENTRY where none does (an entry without mail cannot be notified), for a key
        that breaks the grammar and for what MongoDB cannot hold (`domain.grammar`).
        """
        if problem := key.problem:
            raise PermanentFailure(Reason.INVALID_ENTRY, problem)
        kind = item.get("entityType", "ENTRY")
        if kind != "ENTRY":
            raise _invalid("entityType", "ENTRY", kind)
        for name, own in (("campaignId", key.campaign_id), ("entryId", key.entry_id)):
            if item.get(name, own) != own:
                raise PermanentFailure(Reason.INVALID_ENTRY, f"field {name} contradicts the item's key")
        fields: dict[str, Any] = {"campaignId": key.campaign_id, "entryId": key.entry_id}
        for name, field in FIELDS.items():
            value = item.get(name)
            if value is None:
                continue
            if not field.accepts(value):
                raise _invalid(name, field.wanted, value)
            is_usual = value.__class__ is str and value.isascii()
            if not is_usual and (problem := unstorable(value)):
                raise PermanentFailure(Reason.INVALID_ENTRY, f"field {name} {problem}")
            fields[name] = whole_number(value) if field.accepts is _number else value
        if not str(fields.get("email", "")).strip():
            raise PermanentFailure(Reason.INVALID_ENTRY, "field email is missing or empty")
        order = _strict_order(item)
        fields.update(
            (name, value) for name, value in order.as_fields().items() if item.get(name) is not None
        )
        as_read = {name: item[name] for name in ORDER_FIELDS if name in item}
        return cls(key, order, fields, item.get("needsReplication") is True, as_read)


def _strict_order(item: Mapping[str, Any]) -> Order:
    created, version, updated = (item.get(name) for name in ORDER_FIELDS)
    number = 0 if version is None else whole_number(version)
    if number is None or number < 0:
        raise _invalid("version", "a whole number of 64 bits", version)
    for name, value in (("createdAt", created), ("updatedAt", updated)):
        if value is not None and not is_time(value):
            raise _invalid(name, f"an ISO-8601 string of at most {LONGEST_TIME} printable characters", value)
    return Order(created or "", number, updated or "")


def _invalid(field: str, wanted: str, value: object) -> PermanentFailure:
    return PermanentFailure(
        Reason.INVALID_ENTRY, f"field {field} should be {wanted}, found {type(value).__name__}"
    )
