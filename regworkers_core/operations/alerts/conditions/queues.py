"""Queues: what waits on them, what was given up, what is about to be lost."""

from __future__ import annotations

from regworkers_core.domain.alert import Severity
from regworkers_core.domain.snapshot import QueueState, Unread
from regworkers_core.operations.alerts.conditions.causes import DRAIN_OF, of_backlog
from regworkers_core.operations.alerts.conditions.condition import Finding, Given, Judgement
from regworkers_core.operations.alerts.conditions.texts import duration
from regworkers_core.operations.alerts.conditions.work import AGE_NOT_KNOWN

_DAY_SECONDS = 24 * 3600.0
_STREAM = "demand-table-stream"
# In place of the page on what replication is late with.
_PAGES = {
    "analytics-queue": "kafka.md",
    "selection-queue": "selection-failures.md",
    "notification-queue": "selection-failures.md",
}


def dead_letters(given: Given) -> Judgement | Unread:
    """One finding for each dead-letter queue that holds something, or more than it may."""
    queues = given.snapshot.queues
    if isinstance(queues, Unread):
        return queues
    found = [
        Finding(
            name := _name(given, queue.name),
            given.severity.dead_letters,
            f"{queue.waiting} dead letters on {name}",
            {"waiting": queue.waiting, **_age(queue)},
        )
        for queue in queues
        if queue.is_dead_letter and queue.waiting > given.settings.alerts.dead_letters
    ]
    return Judgement(tuple(found), _unread(given, dead=True))


def depth(given: Given) -> Judgement | Unread:
    """One finding for each queue above its threshold."""
    queues = given.snapshot.queues
    if isinstance(queues, Unread):
        return queues
    found = []
    for queue in queues:
        name = _name(given, queue.name)
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
        found.append(Finding(name, given.severity.queue_depth, summary, details, because, page=page))
    return Judgement(tuple(found), _unread(given, dead=False))


def data_loss(given: Given) -> Judgement:
    """One finding for each queue, and the stream, whose oldest item nears the end of its retention. What is not empty
    and of unknown age is unknown.
    """
    snapshot = given.snapshot
    found: list[Finding] = []
    ages: list[tuple[str, float | Unread | None, float]] = []
    if isinstance(snapshot.queues, Unread):
        names = [name + end for name in given.settings.names.queues for end in ("", "-dlq")]
        unknown = {_name(given, name): snapshot.queues for name in names}
    else:
        unknown = {**_unread(given, dead=False), **_unread(given, dead=True)}
        for queue in snapshot.queues:
            age = (queue.age_unread or queue.oldest_seconds) if queue.waiting else 0.0
            ages.append((_name(given, queue.name), age, queue.retention_seconds))
    stream = snapshot.stream
    if isinstance(stream, Unread):
        unknown[_STREAM] = stream
    else:
        known = stream.iterator_age_seconds
        ages.append((_STREAM, AGE_NOT_KNOWN if known is None else known, stream.retention_seconds))
    for name, age, retention in ages:
        if age is None:
            unknown[name] = Unread(f"the age of the oldest message on {name} is not known")
        elif isinstance(age, Unread):
            unknown[name] = age
        elif (finding := _loss(given, name, age, retention)) is not None:
            found.append(finding)
    return Judgement(tuple(found), unknown)


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
    severity = given.severity.data_loss
    if left <= critical:
        severity = Severity.worst((severity, given.severity.data_loss_critical))
    return Finding(
        name,
        severity,
        summary,
        {"secondsLeft": round(left), "ageSeconds": round(age), "retentionSeconds": round(retention)},
        page="dead-letters.md" if name.endswith("-dlq") else _PAGES.get(name, ""),
    )


def _margins(given: Given, name: str, retention: float) -> tuple[float, float]:
    """Seconds left at the first step, and at the second."""
    if name == "analytics-queue":
        own = given.settings.analytics
        return own.warn_days_left * _DAY_SECONDS, own.critical_days_left * _DAY_SECONDS
    alerts = given.settings.alerts
    return alerts.loss_share_left * retention, alerts.loss_critical_share_left * retention


def _limit(given: Given, name: str) -> int | None:
    return getattr(given.settings.alerts.queue_depth, name.removesuffix("-queue"), None)


def _name(given: Given, queue: str) -> str:
    """Without the environment's prefix."""
    return queue.removeprefix(given.settings.names.prefix)


def _unread(given: Given, *, dead: bool) -> dict[str, Unread]:
    return {
        _name(given, name): unread
        for name, unread in given.snapshot.unread_queues.items()
        if name.endswith("-dlq") is dead
    }


def _age(queue: QueueState) -> dict[str, int]:
    return {} if queue.oldest_seconds is None else {"oldestSeconds": round(queue.oldest_seconds)}
