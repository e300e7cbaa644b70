"""Pauses: an operator keeps a drain from its work until `regworkers drain resume`. Kept beside the drain's fuse in
`worker-leases`, so a drain may read its own pause with the rights that it has.
"""

from __future__ import annotations

from regworkers_core.domain.snapshot import PausedDrain
from regworkers_core.engine.defects import FUSES
from regworkers_core.engine.leases import LeaseKey, LeaseRow, LeaseTable


def pause_of(table: LeaseTable, drain: str) -> PausedDrain | None:
    """The pause of a drain, None if it may work. Raises TransientFailure."""
    row = table.get(_key(drain))
    return None if row is None else _paused(drain, row)


def store_pause(table: LeaseTable, paused: PausedDrain) -> PausedDrain:
    """Returns the pause in force: the earlier one, if there is one. Raises TransientFailure."""
    row = LeaseRow(_key(paused.drain), counter=1, state=paused.as_dict())
    if table.swap(row, None):
        return paused
    return pause_of(table, paused.drain) or paused


def remove_pause(table: LeaseTable, drain: str) -> PausedDrain | None:
    """Returns the removed pause; None if there was none or another process was faster. Raises TransientFailure."""
    row = table.get(_key(drain))
    return _paused(drain, row) if row is not None and table.remove(row) else None


def _key(drain: str) -> LeaseKey:
    return LeaseKey(FUSES + drain, "PAUSE")


def _paused(drain: str, row: LeaseRow) -> PausedDrain:
    return PausedDrain(drain, *(row.state.get(name, "") for name in ("since", "by", "reason")))
