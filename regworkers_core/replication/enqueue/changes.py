"""What a stream record means for replication: the change of an entry, or nothing; and one change for each entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from regworkers_core.adapters.aws.streams import Image, StreamRecord
from regworkers_core.domain import timestamps
from regworkers_core.domain.entry import ORDER_FIELDS, Order, lenient_order, removal_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import Op, ReplicationItem, fit_correlation_id
from regworkers_core.domain.reasons import PermanentFailure, Reason
from regworkers_core.engine.drain import Settlement


@dataclass(frozen=True, slots=True)
class EntryChange:
    """A change to replicate. `changed_at` (epoch seconds) is set only when the entry's order changed."""

    item: ReplicationItem
    correlation_id: str
    changed_at: float | None

    def after(self, earlier: EntryChange) -> EntryChange:
        """This change merged with an `earlier` one of the same entry."""
        removed = [each.item.order for each in (earlier, self) if each.item.op is Op.REMOVE]
        if not removed:
            return self
        return replace(self, item=ReplicationItem(self.item.key, Op.REMOVE, max(removed)))


def change_of(record: StreamRecord) -> EntryChange | None:
    """The change to replicate: an entry's image with `needsReplication`, or an entry's removal; None for any other.

    Raises PermanentFailure INVALID_ENTRY if no message can express it: for a key that breaks the grammar, and for a
    removed image whose `createdAt` does. Other problems of an image are found by the save drain, which reads it whole.
    """
    key = EntryKey.parse(*table_key(record))
    removed = record.event == "REMOVE"
    image: Image = (record.old_image if removed else record.new_image) or {}
    if key is None or text_of(image, "entityType") not in (None, "ENTRY"):
        return None
    if not removed and not _is_true(image, "needsReplication"):
        return None
    if problem := key.problem:
        raise PermanentFailure(Reason.INVALID_ENTRY, problem)
    correlation_id = fit_correlation_id(text_of(image, "correlationId"))
    if removed:
        return EntryChange(ReplicationItem(key, Op.REMOVE, _removal_order(image)), correlation_id, None)
    order = lenient_order(_order_fields(image))
    is_new = record.old_image is None or order != lenient_order(_order_fields(record.old_image))
    changed_at = timestamps.seconds(order.updated_at) if is_new else None
    return EntryChange(ReplicationItem(key, Op.UPSERT, order), correlation_id, changed_at)


def flag_cleared_after(record: StreamRecord) -> float | None:
    """Seconds from an entry's `updatedAt` until its flag was cleared, if this record shows that; as the service rounds
    the time of a record, to the second.
    """
    old, new = record.old_image or {}, record.new_image or {}
    if not _is_true(old, "needsReplication") or _is_true(new, "needsReplication") or not record.new_image:
        return None
    order = lenient_order(_order_fields(new))
    changed_at = timestamps.seconds(order.updated_at)
    if record.created_at is None or changed_at is None or order != lenient_order(_order_fields(old)):
        return None
    return max(0.0, record.created_at - changed_at)


# PK and SK as a record has them; None for one that is not a string.
UncheckedKey = tuple[str | None, str | None]


def table_key(record: StreamRecord) -> UncheckedKey:
    """The key of the changed item."""
    return text_of(record.keys, "PK"), text_of(record.keys, "SK")


def _removal_order(image: Image) -> Order:
    order = removal_order(_order_fields(image))
    if order is None:
        raise PermanentFailure(
            Reason.INVALID_ENTRY,
            "field createdAt of the removed entry is not a time, so its removal has no order:"
            " `regworkers reconcile --repair --apply` removes what the replica still holds",
        )
    return order


def text_of(image: Image, name: str) -> str | None:
    """A string attribute; None if it is absent or of another type."""
    value = image.get(name)
    text = value.get("S") if isinstance(value, Mapping) else None
    return text if isinstance(text, str) else None


def _is_true(image: Image, name: str) -> bool:
    value = image.get(name)
    return isinstance(value, Mapping) and value.get("BOOL") is True


def _order_fields(image: Image) -> dict[str, Any]:
    """The order fields that the image has. Numbers are strings of digits; any other type is kept as malformed."""
    fields: dict[str, Any] = {}
    for name in ORDER_FIELDS:
        value = image.get(name)
        if isinstance(value, Mapping) and "NULL" not in value:
            fields[name] = value.get("N", value.get("S", value))
    return fields


Refused = tuple[StreamRecord, PermanentFailure]


class RecordChange(NamedTuple):
    """A record and its change; `before` are older records of its key, whose removals are merged into `change`."""

    record: StreamRecord
    change: EntryChange
    before: tuple[StreamRecord, ...] = ()

    @classmethod
    def of(cls, record: StreamRecord, change: EntryChange, earlier: RecordChange | None) -> RecordChange:
        if earlier is None:
            return cls(record, change)
        return cls(record, change.after(earlier.change), (*earlier.before, earlier.record))


class ChangesOfBatch(NamedTuple):
    changes: list[RecordChange]  # one for each entry
    refused: list[Refused]  # records that no message can express


def one_of_each_key(records: Sequence[StreamRecord], settlement: Settlement[StreamRecord]) -> ChangesOfBatch:
    """The changes of a batch. Records that are in neither list are settled as dropped."""
    last: dict[EntryKey, RecordChange] = {}
    refused: dict[object, Refused] = {}
    # The order is that of the stream: records that were given back come again in the order of their delays.
    for record in sorted(records, key=lambda record: int(record.sequence)):
        try:
            change = change_of(record)
        except PermanentFailure as failure:
            key = table_key(record)
            if (earlier := refused.pop(key, None)) is not None:
                # One dead letter per key is enough, and the checkpoint cannot pass the later record without it.
                drop(settlement, earlier[0], "coalesced")
            refused[key] = (record, failure)
            continue
        if change is None:
            drop(settlement, record, "filtered")
            continue
        last[change.item.key] = RecordChange.of(record, change, last.pop(change.item.key, None))
    return ChangesOfBatch(list(last.values()), list(refused.values()))


def drop(settlement: Settlement[StreamRecord], record: StreamRecord, why: str) -> None:
    """Settle a record that needs no work of its own."""
    settlement.done.append(record)
    settlement.counts.update(("dropped", why))
