"""Both sides of the comparison, reduced to what is compared: key, order, live or not, digest of the content.

Neither mail nor names get any further than this, into no file and no memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regworkers_core.adapters.mongo.entry_documents import UNSTORABLE, Stored, canonical
from regworkers_core.domain.entry import Entry
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order, lenient_order
from regworkers_core.domain.reasons import PermanentFailure
from regworkers_core.domain.timestamps import seconds

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class State:
    """One entry on one side. `content` is empty behind a tombstone and for an entry that is `invalid`: one
    that the save drain would refuse. In the replica `erased_at` says up to which `createdAt` states were erased.
    """

    key: EntryKey
    order: Order
    live: bool = True
    content: bytes = b""
    invalid: bool = False
    erased_at: str | None = None

    @property
    def updated_at(self) -> float | None:
        """Epoch seconds of `updatedAt`, None where there is none."""
        return seconds(self.order.updated_at)


def of_source(key: EntryKey, item: Mapping[str, Any]) -> State:
    """From an item of the demand table."""
    try:
        entry = Entry.parse(key, item)
        return State(key, entry.order, content=digest(entry.fields))
    except (PermanentFailure, *UNSTORABLE):
        return State(key, lenient_order(item), invalid=True)


def of_replica(key: EntryKey, stored: Stored) -> State:
    """From a document of the replica; one without custody fields, written by others, is of the lowest order."""
    if stored.fields is None:
        return State(key, stored.order, live=False, erased_at=stored.erased_at)
    try:
        content = digest(stored.fields)
    except UNSTORABLE:
        # Something that only others write: it differs from everything, so that a repair writes over it.
        content = b""
    return State(key, stored.order, content=content, erased_at=stored.erased_at)


def digest(fields: Mapping[str, Any]) -> bytes:
    """Equal exactly where `adapters.replica.same_content` says so; raises what `canonical` raises."""
    return hashlib.blake2b(canonical(fields), digest_size=_DIGEST_BYTES).digest()
