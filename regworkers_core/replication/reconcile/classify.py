"""In which way two states of an entry differ, and whether that could be mere lag: pure rules."""

from __future__ import annotations

from enum import StrEnum

from regworkers_core.domain.order import is_erased
from regworkers_core.replication.reconcile.states import State


class Kind(StrEnum):
    """The classes of differences. Only NOT_YET is no finding, and ERASED is none about what the replica holds."""

    MISSING = "missing"
    STALE = "stale"
    ORPHANED = "orphaned"
    RESURRECTED = "resurrected"
    REJECTED = "rejected"
    AHEAD = "ahead"
    ERASED = "erased"
    NOT_YET = "not_yet"


# What sending a key (after deleting the tombstone of a resurrected one) can heal.
REPAIRABLE = (Kind.MISSING, Kind.STALE, Kind.ORPHANED, Kind.RESURRECTED)

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
    " A repair leaves it alone until you say that the source is right: `regworkers reconcile --repair --accept-source"
    " N`, and `--dry-run` in its place lists the entries first.",
    Kind.ERASED: "The source holds an entry of a fan who was erased after it was created: a backup or a writer brought"
    " it back. The replica refuses it. `regworkers erase --pending` takes it out again; a new registration has a later"
    " `createdAt` and is replicated.",
    Kind.NOT_YET: "Younger than the lag objective, or changing right now: no difference so far.",
}


def classify(source: State | None, replica: State | None) -> Kind | None:
    """The class of a pair, None when both sides agree. NOT_YET takes more than a pair to tell, and so does REJECTED but
    for a key that breaks the grammar: nothing is ever sent about it.

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
    source: State | None, replica: State | None, *, replica_read_at: float, lag_objective_seconds: float
) -> bool:
    """Whether a differing pair, source read before the replica, may be one that a replicator within its
    objective has not reached yet.

    It cannot be where the source had its state for longer than the objective when the replica, which shows
    nothing or something lower, was read. Everything else may: content can change without a new `updatedAt`, a
    removal leaves no time at all, and a replica at or above the source may know of a change made since.
    """
    if source is not None and source.key.problem:
        return False
    if source is None or (replica is not None and replica.order >= source.order):
        return True
    updated_at = source.updated_at
    return updated_at is None or updated_at > replica_read_at - lag_objective_seconds


def is_confirmed(
    before: State | None,
    source: State | None,
    replica: State | None,
    *,
    source_read_at: float,
    now: float,
) -> bool:
    """Whether a pair that still differs is a difference for certain: the source was the same (`before`) one
    lag objective earlier, at `source_read_at`, and was not something else in between.
    """
    if source != before:
        return False
    # The replica may tell of a state that came and went between the two looks at the source.
    seen = None if replica is None else replica.updated_at
    return seen is None or not source_read_at < seen <= now
