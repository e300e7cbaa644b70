"""What a change in the demand table's stream means for the replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from regworkers_core.adapters.aws.streams import Image, StreamRecord, stream_record
from regworkers_core.domain import timestamps
from regworkers_core.domain.entry import ORDER_FIELDS
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import Op, ReplicationItem, fit_correlation_id
from regworkers_core.domain.order import Order, lenient_order, removal_order
from regworkers_core.domain.reasons import PermanentFailure, Reason, UsageError

_EVENTS = ("INSERT", "MODIFY", "REMOVE")


@dataclass(frozen=True, slots=True)
class Change:
    """A change that counts. `changed_at` (epoch seconds) is set only when the entry's order changed."""

    item: ReplicationItem
    correlation_id: str
    changed_at: float | None

    def after(self, earlier: Change) -> Change:
        """What both of them ask for, `earlier` being a change of the same entry before this one."""
        removed = [each.item.order for each in (earlier, self) if each.item.op is Op.REMOVE]
        if not removed:
            return self
        return replace(self, item=ReplicationItem(self.item.key, Op.REMOVE, max(removed)))


def change_of(record: StreamRecord) -> Change | None:
    """The change to replicate, or None: an entry's image that asks for replication, or an entry's removal.

    Raises PermanentFailure INVALID_ENTRY where no message can say it: for a key that breaks the grammar, and for a
    removed image whose `createdAt` does. What else is wrong with an image the save finds, which reads it whole.
    """
    key = EntryKey.parse(*table_key(record))
    removed = record.event == "REMOVE"
    image: Image = (record.old_image if removed else record.new_image) or {}
    if key is None or _text(image, "entityType") not in (None, "ENTRY"):
        return None
    if not removed and not _is_true(image, "needsReplication"):
        return None
    if problem := key.problem:
        raise PermanentFailure(Reason.INVALID_ENTRY, problem)
    correlation_id = fit_correlation_id(_text(image, "correlationId"))
    if removed:
        return Change(ReplicationItem(key, Op.REMOVE, _removal_order(image)), correlation_id, None)
    order = lenient_order(_order_fields(image))
    is_new = record.old_image is None or order != lenient_order(_order_fields(record.old_image))
    changed_at = timestamps.seconds(order.updated_at) if is_new else None
    return Change(ReplicationItem(key, Op.UPSERT, order), correlation_id, changed_at)


def table_key(record: StreamRecord) -> tuple[str | None, str | None]:
    """PK and SK of the item that changed, as they are; None for one that is no string."""
    return _text(record.keys, "PK"), _text(record.keys, "SK")


def _removal_order(image: Image) -> Order:
    order = removal_order(_order_fields(image))
    if order is None:
        raise PermanentFailure(
            Reason.INVALID_ENTRY,
            "field createdAt of the removed entry is no time, so that its removal has no order:"
            " `regworkers reconcile --repair` buries what the replica still holds",
        )
    return order


def decode_stream_event(event: Mapping[str, Any]) -> list[StreamRecord]:
    """The records of a Lambda event of a DynamoDB stream. Raises UsageError naming the field at fault."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list):
        raise UsageError("Records should be a list: pass a DynamoDB stream event")
    for index, raw in enumerate(records):
        _check(f"Records[{index}]", raw)
    return [stream_record(raw, str(raw.get("eventSourceARN", ""))) for raw in records]


def _check(where: str, raw: object) -> None:
    change = _mapping(where, raw)
    if change.get("eventName") not in _EVENTS:
        raise UsageError(f"{where}.eventName should be one of {', '.join(_EVENTS)}")
    where += ".dynamodb"
    detail = _mapping(where, change.get("dynamodb"))
    sequence = detail.get("SequenceNumber")
    if not isinstance(sequence, str) or not sequence.isdecimal():
        raise UsageError(f"{where}.SequenceNumber should be a string of digits")
    keys = _mapping(f"{where}.Keys", detail.get("Keys"))
    for name in ("PK", "SK"):
        if _text(keys, name) is None:
            raise UsageError(f'{where}.Keys.{name} should be {{"S": "..."}}')
    for name in ("NewImage", "OldImage"):
        if detail.get(name) is not None:
            _mapping(f"{where}.{name}", detail[name])


def _mapping(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} should be an object, found {type(value).__name__}")
    return value


# A few fields of an image are needed, so that reading it whole would be a waste.


def _text(image: Image, name: str) -> str | None:
    value = image.get(name)
    text = value.get("S") if isinstance(value, Mapping) else None
    return text if isinstance(text, str) else None


def _is_true(image: Image, name: str) -> bool:
    value = image.get(name)
    return isinstance(value, Mapping) and value.get("BOOL") is True


def _order_fields(image: Image) -> dict[str, Any]:
    """Those that the image has. A number is a string of digits either way; what is neither is kept as malformed."""
    fields: dict[str, Any] = {}
    for name in ORDER_FIELDS:
        value = image.get(name)
        if isinstance(value, Mapping) and "NULL" not in value:
            fields[name] = value.get("N", value.get("S", value))
    return fields
