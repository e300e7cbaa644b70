"""Both sides of the comparison, reduced to what is compared: key, order, live or not, digest of the content.

Neither mail nor names get any further than this, into no file and no memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bson
from bson.errors import InvalidDocument

from regworkers_core.adapters.replica import Stored
from regworkers_core.domain.entry import Entry
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order, lenient_order
from regworkers_core.domain.reasons import PermanentFailure
from regworkers_core.domain.timestamps import seconds

_DIGEST_BYTES = 16
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class State:
    """One entry on one side. `content` is empty behind a tombstone and for an entry that is `invalid`: one
    that the save drain would refuse.
    """

    key: EntryKey
    order: Order
    live: bool = True
    content: bytes = b""
    invalid: bool = False

    @property
    def updated_at(self) -> float | None:
        """Epoch seconds of `updatedAt`, None where there is none."""
        return seconds(self.order.updated_at)


def of_source(key: EntryKey, item: Mapping[str, Any]) -> State:
    """From an item of the demand table."""
    try:
        entry = Entry.parse(key, item)
        return State(key, _bounded(entry.order), content=digest(entry.fields))
    except (PermanentFailure, InvalidDocument, OverflowError):
        return State(key, _bounded(lenient_order(item)), invalid=True)


def of_replica(key: EntryKey, stored: Stored) -> State:
    """From a document of the replica; one without custody fields, written by others, is of the lowest order."""
    if stored.fields is None:
        return State(key, stored.order, live=False)
    return State(key, stored.order, content=digest(stored.fields))


def digest(fields: Mapping[str, Any]) -> bytes:
    """Equal exactly where `adapters.replica.same_content` says so: types count, the order of names does not.

    Raises InvalidDocument or OverflowError for what MongoDB cannot hold.
    """
    canonical: bytes = bson.encode({"fields": _sorted(fields)})
    return hashlib.blake2b(canonical, digest_size=_DIGEST_BYTES).digest()


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def _bounded(order: Order) -> Order:
    """A version of more than 64 bits is refused by the replica; here it must only not break the comparison."""
    return order if order.version <= _INT64_MAX else order._replace(version=_INT64_MAX)
