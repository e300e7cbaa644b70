"""Queues: what waits on them, what was given up, what is about to be lost."""

from __future__ import annotations

from regworkers_core.domain.alert import Severity
from regworkers_core.domain.snapshot import QueueState, Unread
from regworkers_core.operations.conditions.causes import DRAIN_OF, of_backlog
from regworkers_core.operations.conditions.condition import Finding, Given, Judgement
from regworkers_core.operations.conditions.texts import duration

_DAY_SECONDS = 24 * 3600.0
_STREAM = "demand-table-stream"
# In place of the page on what replication is late with.
_PAGES = {
    "analytics-queue": "kafka.md",
    "selection-queue": "selection-failures.md",
    "notification-queue": "selection-failures.md",
}


def dead_letters(given: Given) -> Judgement | Unread:
    """One finding for each dead-letter queue that holds something."""
    queues = given.snapshot.queues
    if isinstance(queues, Unread):
        return queues
    found = [
        Finding(
            name := _name(given, queue),
            Severity.WARNING,
            f"{queue.waiting} dead letters on {name}",
            {"waiting": queue.waiting, **_age(queue)},
        )
        for queue in queues
        if queue.is_dead_letter and queue.waiting
    ]
    return Judgement(tuple(found))


def depth(given: Given) -> Judgement | Unread:
    """One finding for each queue above its threshold."""
    queues = given.snapshot.queues
    if isinstance(queues, Unread):
        return queues
    found = []
    for queue in queues:
        name = _name(given, queue)
        limit = _limit(given, name)
        if queue.is_dead_letter or limit is None or queue.waiting <= limit:
            continue
        summary = f"{queue.waiting} messages wait on {name}, above {limit}"
        details = {
            "waiting": queue.waiting,
            "visible": queue.visible,
            "inFlight": queue.in_flight,
            "limit": limit,
        }
        because = of_backlog(DRAIN_OF.get(name, ""))
        details |= _age(queue)
        page = _PAGES.get(name, "")
        found.append(Finding(name, Severity.CRITICAL, summary, details, because, page=page))
    return Judgement(tuple(found))


def data_loss(given: Given) -> Judgement | Unread:
    """One finding for each queue, and the stream, whose oldest item nears the end of its retention. What is not empty
    and of unknown age is unknown.
    """
    snapshot = given.snapshot
    if isinstance(snapshot.queues, Unread) and isinstance(snapshot.stream, Unread):
        return Unread(f"{snapshot.queues.why}; {snapshot.stream.why}")
    found, unknown = [], set()
    ages: list[tuple[str, float | None, float]] = []
    if isinstance(snapshot.queues, Unread):
        unknown |= {name + end for name in given.settings.names.queues for end in ("", "-dlq")}
        unknown = {name.removeprefix(given.settings.names.prefix) for name in unknown}
    else:
        for queue in snapshot.queues:
            age = queue.oldest_seconds if queue.waiting else 0.0
            ages.append((_name(given, queue), age, queue.retention_seconds))
    if isinstance(snapshot.stream, Unread):
        unknown.add(_STREAM)
    else:
        ages.append((_STREAM, snapshot.stream.iterator_age_seconds, snapshot.stream.retention_seconds))
    for name, age, retention in ages:
        if age is None:
            unknown.add(name)
        elif (finding := _loss(given, name, age, retention)) is not None:
            found.append(finding)
    return Judgement(tuple(found), frozenset(unknown))


def _loss(given: Given, name: str, age: float, retention: float) -> Finding | None:
    left = max(0.0, retention - age)
    warn, critical = _margins(given, name, retention)
    if left > warn:
        return None
    if left:
        summary = f"the oldest item on {name} is lost in {duration(left)}, it waits for {duration(age)}"
    else:
        summary = (
            f"{name} loses what is older than {duration(retention)}, the oldest item waited {duration(age)}"
        )
    return Finding(
        name,
        Severity.CRITICAL if left <= critical else Severity.WARNING,
        summary,
        {"secondsLeft": round(left), "ageSeconds": round(age), "retentionSeconds": round(retention)},
        page="dead-letters.md" if name.endswith("-dlq") else _PAGES.get(name, ""),
    )


def _margins(given: Given, name: str, retention: float) -> tuple[float, float]:
    """Seconds left at which it is a warning, and at which it is critical."""
    if name == "analytics-queue":
        own = given.settings.analytics
        return own.warn_days_left * _DAY_SECONDS, own.critical_days_left * _DAY_SECONDS
    alerts = given.settings.alerts
    return alerts.loss_share_left * retention, alerts.loss_critical_share_left * retention


def _limit(given: Given, name: str) -> int | None:
    return getattr(given.settings.alerts.queue_depth, name.removesuffix("-queue"), None)


def _name(given: Given, queue: QueueState) -> str:
    """Without the environment's prefix."""
    return queue.name.removeprefix(given.settings.names.prefix)


def _age(queue: QueueState) -> dict[str, int]:
    return {} if queue.oldest_seconds is None else {"oldestSeconds": round(queue.oldest_seconds)}
