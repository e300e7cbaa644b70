"""Drains that stopped, fail or are slow, and work that is due and not worked off.

A drain works nothing off if between two evaluations at least it acknowledged nothing. An evaluation compares the
counter of each drain's last acknowledgement with that of the evaluations before it, so no clock of a drain counts, and
it is the same whether no drain runs, one hangs, or one cannot reach what it needs. What waits for an operator is not
due: a paused drain, a market without codes, a message before its time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fairdraw.documents import as_document
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.snapshot import (
    DELIVERY,
    PAUSE_SECONDS,
    BlownFuse,
    PausedDrain,
    Reading,
    Snapshot,
    Unread,
)
from regworkers_core.domain.timestamps import duration
from regworkers_core.engine.defects import MOST_DEFECTS, WINDOW_ITEMS
from regworkers_core.flows import DRAINS
from regworkers_core.operations.alerts.conditions.condition import (
    FUSE,
    LIMITS,
    STALLED,
    STREAM,
    Check,
    Context,
    Finding,
    Unknown,
    causes_of_failures,
    causes_of_stalls,
)
from regworkers_core.operations.alerts.conditions.objectives import or_burns
from regworkers_core.replication import drains as replication
from regworkers_core.settings import Settings
from regworkers_core.settings.documents import snake

ENQUEUE = replication.ENQUEUE.name
# Two evaluations a minute apart are a little less than that at times.
_EARLY_SECONDS = 5.0
_DAY_SECONDS = 86_400.0
_KEY = "drain:"


@Check(
    name=FUSE,
    section="drains",
    fires=f"a drain has stopped itself: one defect made more than {MOST_DEFECTS} of its last {WINDOW_ITEMS} items "
    "dead letters; closes when another code version runs, or after `regworkers drain resume`",
    key="drain",
    runbook="dead-letters.md",
    several="drains have stopped themselves",
    reads=("fuses",),
)
def blown_fuses(context: Context, fuses: Sequence[BlownFuse]) -> Iterator[Finding]:
    for fuse in fuses:
        yield Finding(
            fuse.drain,
            context.severity.drain_fuse,
            f"the drain {fuse.drain} has stopped itself: too many items failed with {fuse.reason} (fingerprint "
            f"{fuse.fingerprint}); it starts with another code version, or after `regworkers drain resume "
            f"{fuse.drain}`",
            as_document(fuse, "fingerprint", "reason", "tripped_at", "run_id"),
        )


@Check(
    name="drain-paused",
    section="drains",
    fires="a drain is still paused after the end of its pause (`drain pause --for`, "
    f"{duration(PAUSE_SECONDS)} if nothing is said); closes after `regworkers drain resume`",
    key="drain",
    runbook="stream-lag.md",
    several="drains are paused",
    reads=("pauses",),
    timed=True,
)
def overdue_pauses(context: Context, pauses: Sequence[PausedDrain]) -> Iterator[Finding]:
    for paused in pauses:
        if paused.is_over(context.now):
            yield Finding(
                paused.drain,
                context.severity.drain_paused,
                f"the drain {paused.drain} is {paused.text}; that time is over, and `{paused.remedy}` ends it",
                paused.as_dict(),
                remedy=paused.remedy,
            )


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
        key_of(drain): work if isinstance(work, Unread) else counters.get(drain, "0")
        for drain, work in due.items()
        if work
    }


def is_paused(context: Context, drain: str) -> bool:
    pauses = context.snapshot.pauses
    return not isinstance(pauses, Unread) and any(paused.drain == drain for paused in pauses)


def is_draining(context: Context, drain: str) -> bool:
    """Whether the drain has acknowledged something since the last evaluation. False also if that is not known."""
    return context.still_seconds.get(key_of(drain)) == 0


def _and(names: Sequence[str]) -> str:
    """`a`, `b` and `c`."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} and {last}" if others else last


def _limits() -> str:
    """After how long which drains stand still."""
    by_setting: dict[str, list[str]] = {}
    for spec in DRAINS:
        if spec.name != ENQUEUE:
            by_setting.setdefault(spec.stalled.partition(".")[2], []).append(spec.name)
    return ", ".join(
        f"{_and(names)} for `{setting}` ({duration(getattr(LIMITS, snake(setting)))})"
        for setting, names in by_setting.items()
    )


@Check(
    name=STALLED,
    section="drains",
    fires=f"work is due and a drain acknowledges nothing of it, between two evaluations at least: {_limits()}; "
    f"not while an operator keeps it paused, and of `{ENQUEUE}` it is `stream-lag`",
    severities=f"{LIMITS.severity.drain_stalled}; {LIMITS.severity.drain_stalled_analytics} (`drainStalledAnalytics`): "
    + _and([spec.name for spec in DRAINS if spec.can_wait]),
    key="drain",
    runbook="stream-lag.md",
    several="drains work nothing off",
    reads=("pauses", "acknowledged"),
)
def not_worked_off(context: Context, *_: object) -> Iterator[Finding | Unknown]:
    """Each drain that works nothing off, but for `enqueue`: that one is a finding of `stream-lag`. Of several at once
    the first is the cause of the others.
    """
    due = _due(context.snapshot, context.settings)
    if not isinstance(due, Unread):
        yield from (each for each in _stalls(context, due) if each.subject != ENQUEUE)
        for drain, work in due.items():
            if isinstance(work, Unread) and drain != ENQUEUE:
                yield Unknown(drain, work)


def stalled_enqueue(context: Context) -> Finding | None:
    """A stalled enqueue drain, which is a finding of `stream-lag`."""
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


@Check(
    name="error-rate",
    section="drains",
    key="drain",
    runbook="dead-letters.md",
    several="drains fail",
    reads=("drains",),
    burns=or_burns(DELIVERY, same_events=True),
    timed=True,
)
def error_rate(context: Context, drains: Sequence[DrainWindow]) -> Iterator[Finding]:
    """Fires when more than `errorRate` ({alerts.error_rate:.0%}) of what a drain received within 5 min failed, and at
    least `errorItems` ({alerts.error_items}) items; or the budget of [delivery](#objectives) burns.
    """
    limits = context.settings.alerts
    for drain in drains:
        rate = drain.error_rate
        if rate is None or rate <= limits.error_rate or drain.failed < limits.error_items:
            continue
        # A dependency's failure returns items; what became a dead letter failed by itself.
        own = drain.dead_lettered
        is_own = own >= limits.error_items and own > limits.error_rate * drain.received
        yield Finding(
            drain.name,
            context.severity.error_rate,
            f"{rate:.0%} of what the drain {drain.name} received within {duration(drain.window_seconds)} failed: "
            f"{drain.failed} of {drain.received} items",
            {"failed": drain.failed, "received": drain.received, "rate": round(rate, 4)},
            (f"{FUSE}:{drain.name}", *(() if is_own else causes_of_failures(drain.name))),
        )


@Check(
    name="batch-time",
    section="drains",
    key="drain",
    runbook="time-outs.md",
    several="drains are close to their time limit",
    reads=("drains",),
    timed=True,
)
def batch_time(context: Context, drains: Sequence[DrainWindow]) -> Iterator[Finding | Unknown]:
    """Fires when the p95 of a drain's batches is above `batchShare` ({alerts.batch_share:.0%}) of the time that it owns
    a batch.

    Of a window of days the longest batch counts.
    """
    for drain in drains:
        took, limit, how = drain.batch_p95_seconds, drain.batch_limit_seconds, "p95"
        if drain.window_seconds >= _DAY_SECONDS:
            took, how = drain.batch_max_seconds, "the longest"
        if took is None or limit is None:
            # A drain that received nothing was not slow.
            if drain.received:
                yield Unknown(drain.name, Unread(f"the drain {drain.name} has completed no batch"))
        elif took > context.settings.alerts.batch_share * limit:
            yield Finding(
                drain.name,
                context.severity.batch_time,
                f"a batch of the drain {drain.name} takes {took:.1f} s ({how}), its limit is {limit:.0f} s",
                {"p95Seconds": round(took, 3), "limitSeconds": limit},
                causes_of_failures(drain.name),
            )
