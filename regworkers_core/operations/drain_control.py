"""Pause a drain, and let it work again: for the terminal and for jobs. The callers record it in the audit log."""

from __future__ import annotations

from regworkers_core.domain.keys import quoted
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.snapshot import PAUSE_SECONDS, BlownFuse, PausedDrain
from regworkers_core.domain.timestamps import iso, span_seconds
from regworkers_core.engine.holds import remove_hold, store_pause
from regworkers_core.flows import DRAIN
from regworkers_core.runtime import Runtime

_LONGEST_REASON = 300
# The stream keeps its records for a day.
_LONGEST_SECONDS = 86_400.0
PAUSE = f"{PAUSE_SECONDS / 60:.0f}m"


def pause_drain(runtime: Runtime, name: str, reason: str, *, by: str, lasts: str = PAUSE) -> PausedDrain:
    """Pause it for a time as `30m` or `2h`, after which an alert asks for it. Returns the pause in force, which may be
    an earlier one that is not over. Raises UsageError for an unknown drain, another form of time, and without a reason
    of one line.
    """
    _check(name)
    reason = reason.strip()
    if not reason.isprintable() or not 0 < len(reason) <= _LONGEST_REASON:
        raise UsageError(f"the reason of a pause is one line of 1 to {_LONGEST_REASON} characters")
    span, now = span_seconds(lasts) or 0.0, runtime.clock()
    if not 0 < span <= _LONGEST_SECONDS:
        raise UsageError(f"a pause lasts for {PAUSE}, 2h or another time up to 1d, not {lasts!r}")
    paused = PausedDrain(name, iso(now), by, reason, until=iso(now + span))
    return store_pause(runtime.leases, paused, now)


def resume_drain(runtime: Runtime, name: str) -> tuple[BlownFuse | None, PausedDrain | None]:
    """Remove what keeps the drain from its work; returns both, None for what was not there. Raises UsageError for an
    unknown drain.
    """
    _check(name)
    return remove_hold(runtime.leases, BlownFuse, name), remove_hold(runtime.leases, PausedDrain, name)


def _check(name: str) -> None:
    if name not in DRAIN:
        raise UsageError(f"unknown drain {quoted(name)}: use {', '.join(DRAIN)}")
