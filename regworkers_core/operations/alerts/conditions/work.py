"""What drains and the reader of the stream did lately."""

from __future__ import annotations

from regworkers_core.domain.alert import Severity
from regworkers_core.domain.snapshot import Unread
from regworkers_core.operations.alerts.conditions.causes import FUSE, of_backlog, of_drain
from regworkers_core.operations.alerts.conditions.condition import Finding, Given, Judgement
from regworkers_core.operations.alerts.conditions.texts import duration

_STREAM = "demand-table"
AGE_NOT_KNOWN = Unread("the age of the oldest unread record of the stream is not known", "streams")


def error_rate(given: Given) -> Judgement | Unread:
    """One finding for each drain of whose items too many failed."""
    drains, limits = given.snapshot.drains, given.settings.alerts
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
        # A dependency's failure gives items back; what became a dead letter was the item's own fault.
        own = drain.dead_lettered
        is_own = own >= limits.error_items and own > limits.error_rate * drain.received
        because = (f"{FUSE}:{drain.name}", *(() if is_own else of_drain(drain.name)))
        found.append(Finding(drain.name, given.severity.error_rate, summary, details, because))
    return Judgement(tuple(found))


def fuses(given: Given) -> Judgement | Unread:
    """One finding for each drain that has stopped itself."""
    blown = given.snapshot.fuses
    if isinstance(blown, Unread):
        return blown
    return Judgement(
        tuple(
            Finding(
                fuse.drain,
                given.severity.drain_fuse,
                f"the drain {fuse.drain} has stopped itself: too many items failed with {fuse.reason} (fingerprint "
                f"{fuse.fingerprint}); it starts with another code version, or after `regworkers drain resume "
                f"{fuse.drain}`",
                {
                    "fingerprint": fuse.fingerprint,
                    "reason": fuse.reason,
                    "trippedAt": fuse.tripped_at,
                    "runId": fuse.run_id,
                },
            )
            for fuse in blown
        )
    )


def batch_time(given: Given) -> Judgement | Unread:
    """One finding for each drain whose batches take nearly as long as they are its own."""
    drains, share = given.snapshot.drains, given.settings.alerts.batch_share
    if isinstance(drains, Unread):
        return drains
    found: list[Finding] = []
    unknown: dict[str, Unread] = {}
    for drain in drains:
        took, limit = drain.batch_p95_seconds, drain.batch_limit_seconds
        if took is None or limit is None:
            # Nothing received is known: it was not slow.
            if drain.received:
                unknown[drain.name] = Unread(f"the drain {drain.name} has ended no batch")
        elif took > share * limit:
            summary = (
                f"a batch of the drain {drain.name} takes {took:.1f} s (p95), its limit is {limit:.0f} s"
            )
            details = {"p95Seconds": round(took, 3), "limitSeconds": limit}
            found.append(
                Finding(drain.name, given.severity.batch_time, summary, details, of_drain(drain.name))
            )
    return Judgement(tuple(found), unknown)


def stream_lag(given: Given) -> Judgement | Unread:
    """At most one finding: the age of the oldest record that nobody has read."""
    stream, limits = given.snapshot.stream, given.settings.alerts
    if isinstance(stream, Unread):
        return stream
    age = stream.iterator_age_seconds
    if age is None:
        return AGE_NOT_KNOWN
    if age <= limits.stream_lag_seconds:
        return Judgement()
    severity = given.severity.stream_lag
    if age > limits.stream_lag_critical_seconds:
        severity = Severity.worst((severity, given.severity.stream_lag_critical))
    limit = duration(limits.stream_lag_seconds)
    summary = f"the oldest unread record of the stream is {duration(age)} old, above {limit}"
    found = Finding(
        _STREAM,
        severity,
        summary,
        {"iteratorAgeSeconds": round(age), "shards": stream.shards},
        of_backlog("enqueue"),
    )
    return Judgement((found,))
