"""Work that is due and not worked off: between two evaluations at least nothing of it was acknowledged.

An evaluation compares the counter of each drain's last acknowledgement with that of the evaluations before it, so no
clock of a drain counts, and it is the same whether no drain runs, one hangs, or one cannot reach what it needs. What
waits for an operator is not due: a paused drain, a market without codes, a message before its time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from regworkers_core.domain.snapshot import Reading, Snapshot, Unread
from regworkers_core.domain.timestamps import duration
from regworkers_core.flows import DRAINS
from regworkers_core.operations.alerts.conditions.condition import (
    STALLED,
    STREAM,
    Assessment,
    Context,
    Finding,
    causes_of_stalls,
)
from regworkers_core.replication import drains as replication
from regworkers_core.settings import Settings

ENQUEUE = replication.ENQUEUE.name
# Two evaluations a minute apart are a little less than that at times.
_EARLY_SECONDS = 5.0
_KEY = "drain:"


def key_of(drain: str) -> str:
    """The drain's key among those whose counter evaluations compare (`Context.still_seconds`)."""
    return _KEY + drain


def is_key(key: str) -> bool:
    return key.startswith(_KEY)


def marks(snapshot: Snapshot, settings: Settings) -> dict[str, Reading[str]]:
    """The counter of each drain with work that is due, by its key; Unread where either is not known. Of a paused one
    another mark at each look, so that what waited for its operator is no standstill after the pause.
    """
    due, last = _due(snapshot, settings), snapshot.acknowledged
    if isinstance(due, Unread) or isinstance(last, Unread):
        unread = due if isinstance(due, Unread) else last
        return {key_of(spec.name): unread for spec in DRAINS if isinstance(unread, Unread)}
    counters: dict[str, Reading[str]] = {each.drain: str(each.mark) for each in last}
    pauses = () if isinstance(snapshot.pauses, Unread) else snapshot.pauses
    found: dict[str, Reading[str]] = {key_of(paused.drain): snapshot.at for paused in pauses}
    return found | {
        key_of(drain): work
        if isinstance(work, Unread)
        else counters.get(drain) or _mark_without_row(snapshot, drain)
        for drain, work in due.items()
        if work
    }


def _mark_without_row(snapshot: Snapshot, drain: str) -> Reading[str]:
    """Another one at each look while the drain log shows that runs of an earlier version, which keep no row, get on."""
    if isinstance(snapshot.drains, Unread):
        return snapshot.drains
    gets_on = any(state.name == drain and state.received > state.failed for state in snapshot.drains)
    return snapshot.at if gets_on else "0"


def is_paused(context: Context, drain: str) -> bool:
    pauses = context.snapshot.pauses
    return not isinstance(pauses, Unread) and any(paused.drain == drain for paused in pauses)


def is_draining(context: Context, drain: str) -> bool:
    """Whether the drain has acknowledged something since the last evaluation. False also if that is not known."""
    return context.still_seconds.get(key_of(drain)) == 0


def not_worked_off(context: Context) -> Assessment | Unread:
    """One finding for each drain that works nothing off, but for `enqueue`: that one is a finding of `stream-lag`. Of
    several at once the first is the cause of the others.
    """
    due, last = _due(context.snapshot, context.settings), context.snapshot.acknowledged
    if isinstance(due, Unread):
        return due
    if isinstance(last, Unread):
        return last
    found = tuple(_stalls(context, due))
    unknown = {drain: work for drain, work in due.items() if isinstance(work, Unread) and drain != ENQUEUE}
    return Assessment(tuple(each for each in found if each.subject != ENQUEUE), unknown)


def stalled_enqueue(context: Context) -> Finding | None:
    """As the finding of `stream-lag` that it is."""
    due = _due(context.snapshot, context.settings)
    return None if isinstance(due, Unread) else next(_stalls(context, {ENQUEUE: due[ENQUEUE]}), None)


def _stalls(context: Context, due: Mapping[str, Reading[str]]) -> Iterator[Finding]:
    before: tuple[str, ...] = ()
    for spec in DRAINS:
        drain, limit = spec.name, context.settings.at(spec.stalled)
        work, still = due.get(drain, ""), context.still_seconds.get(key_of(drain), 0.0)
        if not work or isinstance(work, Unread) or not still or still < limit - _EARLY_SECONDS:
            continue
        severity = context.severity
        yield Finding(
            drain,
            severity.drain_stalled_analytics if spec.can_wait else severity.drain_stalled,
            f"the drain {drain} has acknowledged nothing for {duration(still)}: {work}{_runs(context, drain)}",
            {"stalledSeconds": round(still), "lastAcknowledgedAt": _last_at(context, drain)},
            because=(*causes_of_stalls(drain), *before),
            page=spec.runbook,
        )
        before = (*before, STREAM if drain == ENQUEUE else f"{STALLED}:{drain}")


def _runs(context: Context, drain: str) -> str:
    """How many runs of the drain work, as far as that is known."""
    drains = context.snapshot.drains
    states = () if isinstance(drains, Unread) else drains
    active = next((state.active_runs for state in states if state.name == drain), None)
    if active is None:
        return ""
    return f", {active} of its runs live" if active else ", none of its runs lives"


def _last_at(context: Context, drain: str) -> str | None:
    last = context.snapshot.acknowledged
    known = () if isinstance(last, Unread) else last
    return next((each.at for each in known if each.drain == drain), None)


def _due(snapshot: Snapshot, settings: Settings) -> Reading[Mapping[str, Reading[str]]]:
    """What each drain could work on now, in words; empty: nothing, or it is paused."""
    if isinstance(snapshot.pauses, Unread):
        return snapshot.pauses
    due: dict[str, Reading[str]] = {
        spec.name: spec.due(snapshot) if spec.due else _messages(snapshot, settings, spec.queue)
        for spec in DRAINS
    }
    return {**due, **{paused.drain: "" for paused in snapshot.pauses}}


def _messages(snapshot: Snapshot, settings: Settings, short: str) -> Reading[str]:
    """A message in flight counts: a drain that hangs holds it for ever. One that is delayed is not due."""
    name = settings.names.prefix + short
    if isinstance(snapshot.queues, Unread):
        return snapshot.queues
    if (unread := snapshot.unread_queues.get(name)) is not None:
        return unread
    for queue in snapshot.queues:
        if queue.name == name and (number := queue.visible + queue.in_flight):
            return f"{number:,} messages wait on {short}, {queue.in_flight:,} of them in flight"
    return ""
