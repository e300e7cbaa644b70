"""What a save stores for the keys of a batch: from its messages and the items of the demand table. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.adapters.mongo.entry_documents import Write
from regworkers_core.domain.entry import Entry, Order, lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import ItemSubject, Op, ReplicationItem
from regworkers_core.domain.reasons import PermanentFailure


@dataclass(slots=True)
class KeyRequest:
    """What the messages of a batch say about one key."""

    message_id: str  # of the first message
    correlation_id: str
    removed: Order | None = None  # the order of a removed image
    also: tuple[str, ...] = ()  # ids of the other messages

    def add(self, item: ReplicationItem, message_id: str) -> None:
        if message_id != self.message_id:
            self.also += (message_id,)
        if item.op is Op.REMOVE:
            self.removed = item.order if self.removed is None else max(self.removed, item.order)


@dataclass(frozen=True, slots=True)
class StatesToSave:
    """What a save makes of some keys. Each is in one of three."""

    writes: list[Write] = field(default_factory=list)  # the states to store
    entries: dict[EntryKey, Entry] = field(default_factory=dict)  # the live ones of those
    # With the failure of its dead letter.
    refused: dict[EntryKey, tuple[ItemSubject, PermanentFailure]] = field(default_factory=dict)
    gone: list[EntryKey] = field(default_factory=list)  # nothing is to be stored of them


def states_to_save(
    wanted: Mapping[EntryKey, KeyRequest], items: Mapping[EntryKey, Mapping[str, Any]]
) -> StatesToSave:
    """The states of these keys, from the items of the demand table that exist. No I/O."""
    states = StatesToSave()
    for key, want in wanted.items():
        item = items.get(key)
        if item is not None:
            try:
                entry = Entry.parse(key, item)
            except PermanentFailure as failure:
                states.refused[key] = ItemSubject.entry(key, lenient_order(item)), failure
                continue
            states.entries[key] = entry
            states.writes.append(Write(key, entry.order, entry.fields, want.message_id, want.also))
        elif want.removed is not None:
            states.writes.append(Write(key, want.removed, None, want.message_id, want.also))
        else:
            states.gone.append(key)
    return states
