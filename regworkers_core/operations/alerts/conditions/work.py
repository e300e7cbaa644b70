"""The stream, the queues, the drains that work on them, and the replica that they write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fairdraw.documents import as_document
from regworkers_core.domain.alert import Severity
from regworkers_core.domain.snapshot import AGE_UNKNOWN, QueueState, Unread
from regworkers_core.domain.timestamps import duration
from regworkers_core.flows import DRAIN_OF, PAGES
from regworkers_core.operations.alerts.conditions.condition import (
    FUSE,
    Assessment,
    Context,
    Finding,
    causes_of_backlog,
    causes_of_failures,
    merged,
)
from regworkers_core.operations.alerts.conditions.waiting import (
    ENQUEUE,
    is_draining,
    is_paused,
    stalled_enqueue,
)
from regworkers_core.replication.drains import SAVE
from regworkers_core.settings import Names

_DAY_SECONDS = 24 * 3600.0
_STREAM, _STREAM_RETENTION, _REPLICA = "demand-table", "demand-table-stream", "replica"
_ANALYTICS_QUEUE = "analytics-queue"
_ANALYTICS_DEAD = "analytics-queue-dlq"
_FORGED = f"forged-events:{_ANALYTICS_QUEUE}"
# Without the environment's prefix.
TOPICS = Names("").topics
_ARCHIVE = "event-archive"
# In place of the runbook on stream lag.
_PAGES = {**dict.fromkeys(TOPICS, "kafka.md"), **PAGES}
# A class of reconcile that is no difference yet.
_NOT_YET = "not_yet"


def stream_lag(context: Context) -> Assessment | Unread:
    """At most one finding: the age of the oldest record that no drain has read, or that none is read at all."""
    stream, limits = context.snapshot.stream, context.settings.alerts
    if isinstance(stream, Unread):
        return stream
    age, stalled = stream.iterator_age_seconds, stalled_enqueue(context)
    if age is None and stalled is None:
        return AGE_UNKNOWN
    found = [] if stalled is None else [replace(stalled, subject=_STREAM)]
    if age is not None and age > limits.stream_lag_seconds:
        limit = duration(limits.stream_lag_seconds)
        summary = f"the oldest unread record of the stream is {duration(age)} old, above {limit}"
        details = {"iteratorAgeSeconds": round(age), "shards": stream.shards}
        because = causes_of_backlog(ENQUEUE)
        found.append(Finding(_STREAM, _severity_of_lag(context, age), summary, details, because))
    return Assessment((merged(*found),) if found else ())


def _severity_of_lag(context: Context, age: float) -> Severity:
    """What is deep but draining warns, and so does what waits because an operator wanted that."""
    if is_paused(context, ENQUEUE):
        return Severity.WARNING
    if age > context.settings.alerts.stream_lag_critical_seconds:
        return Severity.worst((context.severity.stream_lag, context.severity.stream_lag_critical))
    return Severity.WARNING if is_draining(context, ENQUEUE) else context.severity.stream_lag


def queue_depth(context: Context) -> Assessment | Unread:
    """One finding for each queue above its threshold."""
    queues = context.snapshot.queues
    if isinstance(queues, Unread):
        return queues
    found = []
    for queue in queues:
        name = _name(context, queue.name)
        limit = context.settings.alerts.queue_depth.of(name)
        if queue.is_dead_letter or queue.waiting <= limit:
            continue
        summary = f"{queue.waiting} messages wait on {name}, above {limit}"
        details = {
            "waiting": queue.waiting,
            "visible": queue.visible,
            "inFlight": queue.in_flight,
            "limit": limit,
            **_age(queue),
        }
        because = causes_of_backlog(DRAIN_OF.get(name, ""))
        page = _PAGES.get(name, "")
        found.append(Finding(name, context.severity.queue_depth, summary, details, because, page=page))
    return Assessment(tuple(found), _unread_queues(context, dead=False))


def dead_letters(context: Context) -> Assessment | Unread:
    """One finding for each dead-letter queue with more messages than allowed."""
    queues = context.snapshot.queues
    if isinstance(queues, Unread):
        return queues
    found = [
        Finding(
            name := _name(context, queue.name),
            context.severity.dead_letters,
            f"{queue.waiting} dead letters on {name}",
            {"waiting": queue.waiting, **_age(queue)},
            (_FORGED,) if name == _ANALYTICS_DEAD else (),
        )
        for queue in queues
        if queue.is_dead_letter and queue.waiting > context.settings.alerts.dead_letters
    ]
    return Assessment(tuple(found), _unread_queues(context, dead=True))


def forged_events(context: Context) -> Assessment | Unread:
    """At most one finding: messages that none of our roles has signed, whose dead letters are open."""
    forged = context.snapshot.forged
    if isinstance(forged, Unread):
        return forged
    if not forged:
        return Assessment()
    summary = (
        f"{forged} messages on {_ANALYTICS_QUEUE} were not signed by a role that may send them; nothing of them is on "
        "Kafka"
    )
    page = "dead-letters.md"
    return Assessment(
        (Finding(_ANALYTICS_QUEUE, context.severity.forged_events, summary, {"messages": forged}, page=page),)
    )


def data_loss(context: Context) -> Assessment:
    """One finding for each queue, for the stream, and for each topic that the archive reads, whose oldest item is close
    to the end of its retention. What is not empty and has no known age is unknown.
    """
    snapshot = context.snapshot
    found: list[Finding] = []
    ages: list[tuple[str, float | Unread | None, float]] = []
    if isinstance(snapshot.queues, Unread):
        names = [name + end for name in context.settings.names.queues for end in ("", "-dlq")]
        unknown = {_name(context, name): snapshot.queues for name in names}
    else:
        unknown = {**_unread_queues(context, dead=False), **_unread_queues(context, dead=True)}
        for queue in snapshot.queues:
            age = (queue.age_unread or queue.oldest_seconds) if queue.waiting else 0.0
            ages.append((_name(context, queue.name), age, queue.retention_seconds))
    stream = snapshot.stream
    if isinstance(stream, Unread):
        unknown[_STREAM_RETENTION] = stream
    else:
        known = stream.iterator_age_seconds
        ages.append((_STREAM_RETENTION, AGE_UNKNOWN if known is None else known, stream.retention_seconds))
    if isinstance(snapshot.archive, Unread):
        # What is urgent by now has an incident already, which stays open. The rest has this time until it is.
        alerts, retention = context.settings.alerts, context.settings.kafka.retention_days * _DAY_SECONDS
        slack = (alerts.loss_share_left - alerts.loss_critical_share_left) * retention
        unknown[_ARCHIVE] = replace(snapshot.archive, slack_seconds=max(0.0, slack))
    else:
        for topic in snapshot.archive:
            # Offsets without a record behind them, which transactions and compaction leave, have no age.
            age = topic.oldest_seconds if topic.waiting and topic.oldest_seconds is not None else 0.0
            if topic.retention_seconds is not None:
                ages.append((_name(context, topic.topic), age, topic.retention_seconds))
    for name, age, retention in ages:
        if age is None:
            unknown[name] = Unread(f"the age of the oldest message on {name} is unknown")
        elif isinstance(age, Unread):
            unknown[name] = age
        elif (finding := _loss(context, name, age, retention)) is not None:
            found.append(finding)
    return Assessment(tuple(found), unknown)


def _loss(context: Context, name: str, age: float, retention: float) -> Finding | None:
    left = max(0.0, retention - age)
    warn, critical = _margins(context, name, retention)
    if left > warn:
        return None
    if left:
        summary = f"the oldest item on {name} is lost in {duration(left)}, it has waited for {duration(age)}"
    else:
        summary = (
            f"{name} loses items older than {duration(retention)}, the oldest has waited for {duration(age)}"
        )
    if name in TOPICS:
        summary += ": run `regworkers archive run`"
    severity = context.severity.data_loss
    if left <= critical:
        severity = Severity.worst((severity, context.severity.data_loss_critical))
    return Finding(
        name,
        severity,
        summary,
        {"secondsLeft": round(left), "ageSeconds": round(age), "retentionSeconds": round(retention)},
        page="dead-letters.md" if name.endswith("-dlq") else _PAGES.get(name, ""),
    )


def _margins(context: Context, name: str, retention: float) -> tuple[float, float]:
    """Seconds left at the first step and at the second."""
    if name == _ANALYTICS_QUEUE:
        own = context.settings.analytics
        return own.warn_days_left * _DAY_SECONDS, own.critical_days_left * _DAY_SECONDS
    alerts = context.settings.alerts
    return alerts.loss_share_left * retention, alerts.loss_critical_share_left * retention


def never_empty(context: Context) -> Assessment | Unread:
    """At most one finding: the analytics queue was not seen empty for so long that messages may be stuck. What is
    certain is a finding of `data_loss`.
    """
    snapshot = context.snapshot
    if isinstance(snapshot.queues, Unread):
        return snapshot.queues
    queue = next((each for each in snapshot.queues if _name(context, each.name) == _ANALYTICS_QUEUE), None)
    if queue is None:
        unread = _unread_queues(context, dead=False).get(_ANALYTICS_QUEUE)
        return Assessment() if unread is None else Assessment(unknown={"age": unread})
    if queue.waiting and queue.age_unread is not None:
        return Assessment(unknown={"age": queue.age_unread})
    at_least, at_most = queue.oldest_seconds, queue.oldest_at_most_seconds
    warn = queue.retention_seconds - context.settings.analytics.warn_days_left * _DAY_SECONDS
    is_certain = at_least is not None and at_least >= warn
    if not queue.waiting or is_certain or at_most is None or at_most < warn:
        return Assessment()
    summary = (
        f"the analytics queue was not seen empty for {at_most / _DAY_SECONDS:.1f} days: it is busy, or messages "
        "are stuck"
    )
    details = {"waiting": queue.waiting, "oldestAtLeastSeconds": at_least, "oldestAtMostSeconds": at_most}
    known = {name: round(value) for name, value in details.items() if value is not None}
    page = _PAGES[_ANALYTICS_QUEUE]
    return Assessment((Finding("age", context.severity.analytics_age, summary, known, page=page),))


def _name(context: Context, queue: str) -> str:
    """The queue's name without the environment's prefix."""
    return queue.removeprefix(context.settings.names.prefix)


def _unread_queues(context: Context, *, dead: bool) -> dict[str, Unread]:
    return {
        _name(context, name): unread
        for name, unread in context.snapshot.unread_queues.items()
        if name.endswith("-dlq") is dead
    }


def _age(queue: QueueState) -> dict[str, int]:
    return {} if queue.oldest_seconds is None else {"oldestSeconds": round(queue.oldest_seconds)}


def error_rate(context: Context) -> Assessment | Unread:
    """One finding for each drain of whose items too many failed."""
    drains, limits = context.snapshot.drains, context.settings.alerts
    if isinstance(drains, Unread):
        return drains
    found = []
    for drain in drains:
        rate = drain.error_rate
        if rate is None or rate <= limits.error_rate or drain.failed < limits.error_items:
            continue
        summary = (
            f"{rate:.0%} of what the drain {drain.name} received within {duration(drain.window_seconds)} failed: "
            f"{drain.failed} of {drain.received} items"
        )
        details = {"failed": drain.failed, "received": drain.received, "rate": round(rate, 4)}
        # A dependency's failure returns items; what became a dead letter failed by itself.
        own = drain.dead_lettered
        is_own = own >= limits.error_items and own > limits.error_rate * drain.received
        because = (f"{FUSE}:{drain.name}", *(() if is_own else causes_of_failures(drain.name)))
        found.append(Finding(drain.name, context.severity.error_rate, summary, details, because))
    return Assessment(tuple(found))


def batch_time(context: Context) -> Assessment | Unread:
    """One finding for each drain whose batches take nearly as long as it owns them."""
    drains, share = context.snapshot.drains, context.settings.alerts.batch_share
    if isinstance(drains, Unread):
        return drains
    found: list[Finding] = []
    unknown: dict[str, Unread] = {}
    for drain in drains:
        took, limit = drain.batch_p95_seconds, drain.batch_limit_seconds
        if took is None or limit is None:
            # A drain that received nothing was not slow.
            if drain.received:
                unknown[drain.name] = Unread(f"the drain {drain.name} has completed no batch")
        elif took > share * limit:
            summary = (
                f"a batch of the drain {drain.name} takes {took:.1f} s (p95), its limit is {limit:.0f} s"
            )
            details = {"p95Seconds": round(took, 3), "limitSeconds": limit}
            because = causes_of_failures(drain.name)
            found.append(Finding(drain.name, context.severity.batch_time, summary, details, because))
    return Assessment(tuple(found), unknown)


def blown_fuses(context: Context) -> Assessment | Unread:
    """One finding for each drain that has stopped itself."""
    fuses = context.snapshot.fuses
    if isinstance(fuses, Unread):
        return fuses
    return Assessment(
        tuple(
            Finding(
                fuse.drain,
                context.severity.drain_fuse,
                f"the drain {fuse.drain} has stopped itself: too many items failed with {fuse.reason} (fingerprint "
                f"{fuse.fingerprint}); it starts with another code version, or after `regworkers drain resume "
                f"{fuse.drain}`",
                as_document(fuse, "fingerprint", "reason", "tripped_at", "run_id"),
            )
            for fuse in fuses
        )
    )


def overdue_pauses(context: Context) -> Assessment | Unread:
    """One finding for each drain that is still paused after the end of its pause."""
    pauses = context.snapshot.pauses
    if isinstance(pauses, Unread):
        return pauses
    return Assessment(
        tuple(
            Finding(
                paused.drain,
                context.severity.drain_paused,
                f"the drain {paused.drain} is {paused.text}; that time is over, and `{paused.remedy}` ends it",
                paused.as_dict(),
                remedy=paused.remedy,
            )
            for paused in pauses
            if paused.is_over(context.now)
        )
    )


def drift(context: Context) -> Assessment | Unread:
    """One finding for what the last reconcile found, and one for each drain whose second look found differences."""
    parity, drains = context.snapshot.parity, context.snapshot.drains
    if isinstance(parity, Unread) and isinstance(drains, Unread):
        return parity
    found: list[Finding] = []
    unknown: dict[str, Unread] = {}
    if isinstance(parity, Unread):
        unknown[_REPLICA] = parity
    elif parity is not None:
        what = "the replica differs from its source in"
        found += _differing(context, _REPLICA, what, parity.differences, {"comparedAt": parity.at})
    if isinstance(drains, Unread):
        unknown[SAVE.name] = drains
    else:
        for drain in drains:
            what = f"what the drain {drain.name} had saved differs a minute later in"
            details = {"windowSeconds": drain.window_seconds}
            found += _differing(context, drain.name, what, drain.differing, details)
    # Without a result it was never compared.
    return Assessment(tuple(found), unknown, frozenset({_REPLICA} if parity is None else ()))


def _differing(
    context: Context, subject: str, what: str, differences: Mapping[str, int], details: Mapping[str, Any]
) -> Iterator[Finding]:
    found = {kind: count for kind, count in sorted(differences.items()) if count and kind != _NOT_YET}
    total = sum(found.values())
    limits, severity = context.settings.alerts, context.severity.drift
    if total < limits.drift_entries:
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.items())
    if total >= limits.drift_critical:
        severity = Severity.worst((severity, context.severity.drift_critical))
    entries = "1 entry" if total == 1 else f"{total} entries"
    yield Finding(subject, severity, f"{what} {entries}: {kinds}", {**found, **details})
