"""How the analytics queue stands, without receiving from it: is anything close to being lost, is anything stuck."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from regworkers_core.adapters.mongo.activity import Marks
from regworkers_core.domain.alert import Alert, Severity
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.operations.alerts.notifier import alerting
from regworkers_core.runtime import Runtime
from regworkers_core.settings import AnalyticsSettings

SCOPE = "analytics"
# As `provision` sets it: SQS drops a message that is older, delivered or not.
RETENTION_SECONDS = 14 * 24 * 3600.0
_DAY_SECONDS = 24 * 3600.0
_RUNBOOK = "analytics.md"
T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Age:
    """Of the oldest message, in seconds; None: not known.

    `measured` is CloudWatch's, which passes over messages that were received three times or more. `at_least`: nothing
    was delivered since, and the queue was not empty. `at_most`: since then the queue was never seen empty, which on a
    busy one says little.
    """

    measured: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def known(self) -> float | None:
        """What it is at least, by the better of both."""
        known = [age for age in (self.measured, self.at_least) if age is not None]
        return max(known) if known else None

    @property
    def seconds_left(self) -> float | None:
        """Until the first message is lost, if nothing changes."""
        return None if self.known is None else max(0.0, RETENTION_SECONDS - self.known)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look. `waiting` counts messages, those in flight included, and is None when the queue could not be read."""

    waiting: int | None
    age: Age


def look(runtime: Runtime) -> Snapshot:
    """Bounded calls; keeps in mind (in MongoDB) when the queue was empty. Never raises for what is away."""
    queue, now = runtime.names.analytics_queue, runtime.clock()
    depth = _or_none(lambda: runtime.queue(queue).depth())
    if depth is None:
        return Snapshot(None, Age())
    if depth.total == 0:
        _or_none(lambda: runtime.queue_marks.empty(queue, now))
        return Snapshot(0, Age(measured=0.0, at_least=0.0, at_most=0.0))
    marks = _or_none(lambda: runtime.queue_marks.of(queue)) or Marks()
    if marks.watched_at is None:
        _or_none(lambda: runtime.queue_marks.watched(queue, now))
        marks = Marks(watched_at=now)
    measured = _or_none(lambda: runtime.metrics.oldest_message_seconds(queue, now))
    return Snapshot(depth.total, age_of(marks, measured, now))


def age_of(marks: Marks, measured: float | None, now: float) -> Age:
    """Bounds of the age of the oldest message of a queue that is not empty now."""
    moments = (marks.watched_at, marks.empty_at, marks.delivered_at)
    known = [moment for moment in moments if moment is not None]
    return Age(
        measured,
        max(0.0, now - max(known)) if known else None,
        None if marks.empty_at is None else max(0.0, now - marks.empty_at),
    )


def alerts(snapshot: Snapshot, settings: AnalyticsSettings, severity: Severity) -> list[Alert] | None:
    """What is wrong, besides what the conditions of docs/alerts.md see (`data-loss`, `dependency-down`); None when that
    is not known, and nothing shall be opened or closed.
    """
    if snapshot.waiting is None:
        return None
    age, warn_seconds = snapshot.age, settings.warn_days_left * _DAY_SECONDS
    sure = age.seconds_left is not None and age.seconds_left <= warn_seconds
    if sure or age.at_most is None or RETENTION_SECONDS - age.at_most > warn_seconds:
        return []
    days = age.at_most / _DAY_SECONDS
    summary = f"the analytics queue was not seen empty for {days:.1f} days: it is busy, or messages are stuck"
    return [_alert("age", severity, summary, snapshot)]


def tell(runtime: Runtime, snapshot: Snapshot) -> None:
    """Open and close the incidents of this scope, and put the numbers out as metrics. Never raises for what is away:
    the next look tells it.
    """
    settings = runtime.settings
    holding = alerts(snapshot, settings.analytics, settings.alerts.severity.analytics_age)
    try:
        if holding is not None:
            alerting(runtime).settle(SCOPE, holding)
    except Failure as failure:
        log.warning("alerts not settled", error=str(failure))
    if settings.observability.cloudwatch_enabled:
        runtime.metrics.gauges(
            {"Queue": runtime.names.analytics_queue},
            {
                "OldestMessageAge": (snapshot.age.known, "Seconds"),
                "TimeToDataLoss": (snapshot.age.seconds_left, "Seconds"),
            },
        )


def _alert(what: str, severity: Severity, summary: str, snapshot: Snapshot) -> Alert:
    age = snapshot.age
    details = {
        "waiting": snapshot.waiting,
        "oldestMeasuredSeconds": age.measured,
        "oldestAtLeastSeconds": age.at_least,
        "oldestAtMostSeconds": age.at_most,
    }
    known = {name: round(value) for name, value in details.items() if value is not None}
    return Alert(f"{SCOPE}:{what}", severity, summary, _RUNBOOK, known)


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except (Failure, UsageError):
        return None
