"""What keeps a drain from its work until `regworkers drain resume`: its blown fuse, or an operator's pause. Each is a
row of `worker-leases` under the drain's name, which a drain may read with the rights that it has.

A blown fuse binds the code that blew it: another version removes it and starts. All functions raise TransientFailure.
"""

from __future__ import annotations

from typing import TypeVar

from fairdraw.documents import from_document
from regworkers_core.domain.snapshot import BlownFuse, PausedDrain
from regworkers_core.engine.leases import LeaseKey, LeaseRow, LeaseTable

H = TypeVar("H", BlownFuse, PausedDrain)

# Begins the names of these rows.
HOLDS = "FUSE#"
_SORT_KEYS = {BlownFuse: "FUSE", PausedDrain: "PAUSE"}


def hold_of(table: LeaseTable, kind: type[H], drain: str) -> H | None:
    """The blown fuse or the pause of a drain; None if there is none."""
    row = table.get(_key(kind, drain))
    return None if row is None else from_document(kind, row.state, drain=drain)


def store_fuse(table: LeaseTable, blown: BlownFuse) -> None:
    """Store it in place of an earlier one."""
    key = _key(BlownFuse, blown.drain)
    seen = table.get(key)
    table.swap(LeaseRow(key, counter=1 + (seen.counter if seen else 0), state=blown.as_dict()), seen)


def store_pause(table: LeaseTable, paused: PausedDrain, now: float) -> PausedDrain:
    """Returns the pause in force: the earlier one, if its time is not over at `now` (epoch seconds)."""
    key = _key(PausedDrain, paused.drain)
    seen = table.get(key)
    if seen is not None:
        earlier = from_document(PausedDrain, seen.state, drain=paused.drain)
        if not earlier.is_over(now):
            return earlier
    row = LeaseRow(key, counter=1 + (seen.counter if seen else 0), state=paused.as_dict())
    return paused if table.swap(row, seen) else hold_of(table, PausedDrain, paused.drain) or paused


def remove_hold(table: LeaseTable, kind: type[H], drain: str) -> H | None:
    """Returns what was removed; None if there was none or another process was faster."""
    row = table.get(_key(kind, drain))
    return from_document(kind, row.state, drain=drain) if row is not None and table.remove(row) else None


def _key(kind: type[BlownFuse] | type[PausedDrain], drain: str) -> LeaseKey:
    return LeaseKey(HOLDS + drain, _SORT_KEYS[kind])
