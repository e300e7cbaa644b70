"""Both sides of an entry, reduced to what is compared, and in which way they differ.

A state is key, order, live or not, and a digest of the content: neither mail nor names get any further than this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from regworkers_core.adapters.aws.demand_table import TablePage
from regworkers_core.adapters.mongo.entry_documents import UNSTORABLE, Stored, canonical
from regworkers_core.domain.entry import Entry, Order, is_erased, lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import PermanentFailure
from regworkers_core.domain.timestamps import seconds

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class EntrySide:
    """One entry on one side."""

    key: EntryKey
    order: Order
    live: bool = True  # False: a tombstone
    content: bytes = b""  # a digest of its fields, empty for a tombstone or an invalid entry
    invalid: bool = False  # the save drain would refuse it
    erased_at: str | None = None  # the replica's: states with a `createdAt` up to it were erased

    @property
    def updated_at(self) -> float | None:
        """Epoch seconds of `updatedAt`, None where there is none."""
        return seconds(self.order.updated_at)


def of_source(key: EntryKey, item: Mapping[str, Any]) -> EntrySide:
    try:
        entry = Entry.parse(key, item)
        return EntrySide(key, entry.order, content=digest(entry.fields))
    except (PermanentFailure, *UNSTORABLE):
        return EntrySide(key, lenient_order(item), invalid=True)


def of_replica(key: EntryKey, stored: Stored) -> EntrySide:
    """From a document of the replica. A document that others wrote, without custody fields, has the lowest order."""
    if stored.fields is None:
        return EntrySide(key, stored.order, live=False, erased_at=stored.erased_at)
    try:
        content = digest(stored.fields)
    except UNSTORABLE:
        # Only others write such content: it differs from everything, so that a repair overwrites it.
        content = b""
    return EntrySide(key, stored.order, content=content, erased_at=stored.erased_at)


def digest(fields: Mapping[str, Any]) -> bytes:
    """Equal exactly where `adapters.replica.same_content` says so; raises what `canonical` raises."""
    return hashlib.blake2b(canonical(fields), digest_size=_DIGEST_BYTES).digest()


class SourceReads(Protocol):
    """Reads of the demand table. Those of `campaign_ids` and `entries` are not consistent."""

    def campaign_ids(self) -> Iterator[str]: ...
    def entries(self, campaign_id: str, first: str, end: str | None, since: str) -> Iterator[TablePage]: ...
    def pages(self, campaign_id: str | None, segment: int = 0, segments: int = 1) -> Iterator[TablePage]: ...
    def get(
        self, keys: Sequence[EntryKey], *, consistent: bool = True
    ) -> Mapping[EntryKey, Mapping[str, Any]]: ...


class ReplicaAccess(Protocol):
    def campaign_ids(self) -> Iterable[str]: ...
    def entries(
        self, campaign_id: str, first: str, end: str | None, since: str
    ) -> Iterator[tuple[EntryKey, Stored]]: ...
    def get(self, keys: Sequence[EntryKey]) -> Mapping[EntryKey, Stored]: ...
    def delete_tombstone(self, key: EntryKey, order: Order) -> bool: ...


class RefusedStates(Protocol):
    def open_orders(self, keys: Sequence[EntryKey]) -> Mapping[EntryKey, set[Order]]: ...


class Pair(NamedTuple):
    """One entry on both sides, None where it is absent."""

    source: EntrySide | None
    replica: EntrySide | None

    @property
    def key(self) -> EntryKey:
        side = self.source or self.replica
        if side is None:
            raise ValueError("an entry is on one side at least")
        return side.key


class Sides:
    """Both stores. Every method raises TransientFailure when one of them cannot answer."""

    def __init__(self, source: SourceReads, replica: ReplicaAccess, dead_letters: RefusedStates) -> None:
        self.source, self.replica, self._dead_letters = source, replica, dead_letters

    def read(self, keys: Sequence[EntryKey], *, consistent: bool = True) -> dict[EntryKey, Pair]:
        """Both sides of distinct keys. The replica is read first, so a tombstone that is found existed before the
        source was seen alive.
        """
        stored = self.replica.get(keys)
        items = self.source.get(keys, consistent=consistent)
        return {
            key: Pair(
                of_source(key, items[key]) if key in items else None,
                of_replica(key, stored[key]) if key in stored else None,
            )
            for key in keys
        }

    def campaign_ids(self) -> set[str]:
        """Every campaign that has an entry on either side."""
        return {*self.source.campaign_ids(), *self.replica.campaign_ids()}

    def refused(self, sources: Iterable[EntrySide | None]) -> set[EntryKey]:
        """Keys of those source states that have an open dead letter under exactly their order."""
        states = [state for state in sources if state is not None]
        orders = self._dead_letters.open_orders([state.key for state in states]) if states else {}
        return {state.key for state in states if state.order in orders.get(state.key, ())}


class Kind(StrEnum):
    """The classes of differences. All but `WAITING` are findings; ERASED is one about the source, not the replica."""

    MISSING = "missing"
    STALE = "stale"
    ORPHANED = "orphaned"
    RESURRECTED = "resurrected"
    REJECTED = "rejected"
    AHEAD = "ahead"
    ERASED = "erased"
    NOT_YET = "not_yet"
    PARKED = "parked"


# Classes that are saved by themselves, or once an operator resumes their campaign.
WAITING = frozenset({Kind.NOT_YET, Kind.PARKED})
# Classes that a parked key explains.
PARKABLE = (Kind.MISSING, Kind.STALE, Kind.ORPHANED)

# Classes that sending the key repairs (after deleting the tombstone of a resurrected one).
REPAIRABLE = (
    Kind.MISSING,
    Kind.STALE,
    Kind.ORPHANED,
    Kind.RESURRECTED,
)

EXPLANATIONS = {
    Kind.MISSING: "The source has the entry, the replica does not.",
    Kind.STALE: "The replica holds an older state, or other content under the same order.",
    Kind.ORPHANED: "The replica still holds an entry that the source no longer has.",
    Kind.RESURRECTED: "The source has the entry, but a tombstone at or above its order hides it: only a repair"
    " deletes exactly that tombstone and sends the key.",
    Kind.REJECTED: "Replication refuses this very state, see its open dead letter, or its key: sending it again cannot"
    " help. Correct the entry in the demand table with a new version; that change replicates by itself. An entry whose"
    " ids break the grammar needs others.",
    Kind.AHEAD: "The replica holds a newer state than the source, and no save lowers it: a host whose clock was"
    " behind created the entry again, the source was restored from a backup, or something else wrote to the replica."
    " A repair leaves it alone until you say that the source is right: `regworkers reconcile --repair --apply"
    " --accept-source N`. `regworkers reconcile --repair` lists the entries first.",
    Kind.ERASED: "The source holds an entry of a fan who was erased after it was created: a backup or a writer brought"
    " it back. The replica refuses it. `regworkers erasures repeat` takes it out again; a new registration has a later"
    " `createdAt` and is replicated.",
    Kind.PARKED: "Its key waits, because the replication of its campaign is paused. No repair sends it: `regworkers"
    " campaign resume` does.",
    Kind.NOT_YET: "Younger than the lag objective, or changing right now: no difference so far.",
}


def classify(source: EntrySide | None, replica: EntrySide | None) -> Kind | None:
    """The class of a pair, None when both sides agree. A pair alone shows neither NOT_YET nor PARKED, and REJECTED only
    if its key breaks the grammar: such keys are never sent.

    A source entry that is invalid never agrees with anything: its state cannot be in the replica.
    """
    found = source or replica
    if found is not None and found.key.problem and (source is not None or found.live):
        return Kind.REJECTED
    if source is None:
        return Kind.ORPHANED if replica is not None and replica.live else None
    if replica is None:
        return Kind.MISSING
    if is_erased(source.order.created_at, replica.erased_at):
        return Kind.ERASED
    if source.invalid:
        if not replica.live:
            return Kind.MISSING
        return Kind.AHEAD if replica.order > source.order else Kind.STALE
    if not replica.live:
        return Kind.RESURRECTED if replica.order >= source.order else Kind.STALE
    if replica.order > source.order:
        return Kind.AHEAD
    same = replica.order == source.order and replica.content == source.content
    return None if same else Kind.STALE


def could_be_lag(
    source: EntrySide | None,
    replica: EntrySide | None,
    *,
    replica_read_at: float,
    lag_objective_seconds: float,
) -> bool:
    """Whether a differing pair, whose reads began at `replica_read_at`, may be mere lag within the objective.

    It cannot be if the source had its state for longer than the objective when the replica was read, and the replica
    has nothing or a lower state. In all other cases it may: content can change without a new `updatedAt`, a removal
    leaves no time, and a replica at or above the source may have a change that was made since.
    """
    if source is not None and source.key.problem:
        return False
    if source is None or (replica is not None and replica.order >= source.order):
        return True
    updated_at = source.updated_at
    return updated_at is None or updated_at > replica_read_at - lag_objective_seconds


def is_confirmed(
    before: EntrySide | None,
    source: EntrySide | None,
    replica: EntrySide | None,
    *,
    source_read_at: float,
    now: float,
) -> bool:
    """Whether a pair that still differs is certainly a difference: the source had the same state (`before`) one lag
    objective earlier, at `source_read_at`, and no other in between.
    """
    if source != before:
        return False
    # The replica may have a state that came and went between the two reads of the source.
    seen = None if replica is None else replica.updated_at
    return seen is None or not source_read_at < seen <= now
