"""An entry as the demand table holds it: which fields it has, which are needed, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from regworkers_core.domain.keys import EntryKey, unstorable
from regworkers_core.domain.order import LONGEST_TIME, Order, is_time, whole_number
from regworkers_core.domain.reasons import PermanentFailure, Reason

Check = Callable[[object], bool]


def _text(value: object) -> bool:
    return isinstance(value, str)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _number(value: object) -> bool:
    return whole_number(value) is not None


def _mapping(value: object) -> bool:
    return isinstance(value, dict)


# The fields of the contract that the replica carries beside the key and the order.
FIELDS: Mapping[str, tuple[Check, str]] = {
    "ref": (_text, "a string"),
    "email": (_text, "a string"),
    "firstName": (_text, "a string"),
    "lastName": (_text, "a string"),
    "globalUserId": (_text, "a string"),
    "memberId": (_text, "a string"),
    "unit": (_text, "a string"),
    "weight": (_number, "a whole number"),
    "segments": (_texts, "a list of strings"),
    "markets": (_texts, "a list of strings"),
    "attributes": (_mapping, "a map"),
    "correlationId": (_text, "a string"),
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
        for name, (accepts, wanted) in FIELDS.items():
            value = item.get(name)
            if value is None:
                continue
            if not accepts(value):
                raise _invalid(name, wanted, value)
            is_usual = value.__class__ is str and value.isascii()
            if not is_usual and (problem := unstorable(value)):
                raise PermanentFailure(Reason.INVALID_ENTRY, f"field {name} {problem}")
            fields[name] = whole_number(value) if accepts is _number else value
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
