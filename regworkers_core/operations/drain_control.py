"""Pause a drain, and let it work again: for the terminal and for jobs. The callers record it in the audit log."""

from __future__ import annotations

from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.snapshot import BlownFuse, PausedDrain
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.holds import remove_hold, store_pause
from regworkers_core.operations.health.snapshot import DRAINS
from regworkers_core.runtime import Runtime

_LONGEST_REASON = 300


def pause_drain(runtime: Runtime, name: str, reason: str, *, by: str) -> PausedDrain:
    """Returns the pause in force, which may be an earlier one. Raises UsageError for an unknown drain, and without a
    reason of one line.
    """
    _check(name)
    reason = reason.strip()
    if not reason.isprintable() or not 0 < len(reason) <= _LONGEST_REASON:
        raise UsageError(f"the reason of a pause is one line of 1 to {_LONGEST_REASON} characters")
    return store_pause(runtime.leases, PausedDrain(name, iso(runtime.clock()), by, reason))


def resume_drain(runtime: Runtime, name: str) -> tuple[BlownFuse | None, PausedDrain | None]:
    """Remove what keeps the drain from its work; returns both, None for what was not there. Raises UsageError for an
    unknown drain.
    """
    _check(name)
    return remove_hold(runtime.leases, BlownFuse, name), remove_hold(runtime.leases, PausedDrain, name)


def _check(name: str) -> None:
    names = [spec.name for spec in DRAINS]
    if name not in names:
        raise UsageError(f"unknown drain {name}: use {', '.join(names)}")
