"""What reconcile asks of the two stores and of the dead letters, and a second look at given keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from regworkers_core.adapters.aws.demand_table import Page
from regworkers_core.adapters.mongo.entry_documents import Stored
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order
from regworkers_core.replication.reconcile.states import State, of_replica, of_source


class SourceReads(Protocol):
    """Consistent reads of the demand table."""

    def pages(self, campaign_id: str | None, segment: int = 0, segments: int = 1) -> Iterator[Page]: ...
    def get(self, keys: Sequence[EntryKey]) -> Mapping[EntryKey, Mapping[str, Any]]: ...


class ReplicaAccess(Protocol):
    def scan(self, campaign_id: str | None) -> Iterator[tuple[EntryKey, Stored]]: ...
    def get(self, keys: Sequence[EntryKey]) -> Mapping[EntryKey, Stored]: ...
    def delete_tombstone(self, key: EntryKey, order: Order) -> bool: ...


class OpenDeadLetters(Protocol):
    def open_orders(self, keys: Sequence[EntryKey]) -> Mapping[EntryKey, set[Order]]: ...


class Pair(NamedTuple):
    """One entry on both sides, None where it is absent."""

    source: State | None
    replica: State | None


class Sides:
    """Both stores. Every method raises TransientFailure when one of them cannot answer."""

    def __init__(self, source: SourceReads, replica: ReplicaAccess, dead_letters: OpenDeadLetters) -> None:
        self.source, self.replica, self._dead_letters = source, replica, dead_letters

    def read(self, keys: Sequence[EntryKey]) -> dict[EntryKey, Pair]:
        """Both sides of distinct keys, the replica first: the source is then the later look, so a tombstone
        found on the way stood before the source was seen alive.
        """
        stored = self.replica.get(keys)
        items = self.source.get(keys)
        return {
            key: Pair(
                of_source(key, items[key]) if key in items else None,
                of_replica(key, stored[key]) if key in stored else None,
            )
            for key in keys
        }

    def refused(self, sources: Iterable[State | None]) -> set[EntryKey]:
        """Keys of those source states that have an open dead letter under exactly their order."""
        states = [state for state in sources if state is not None]
        orders = self._dead_letters.open_orders([state.key for state in states]) if states else {}
        return {state.key for state in states if state.order in orders.get(state.key, ())}
