"""Sources that could not be read for too long, which is an incident itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.snapshot import Severity, Unread
from regworkers_core.domain.timestamps import duration, iso
from regworkers_core.operations.alerts.conditions.availability import provider_of
from regworkers_core.operations.alerts.conditions.condition import (
    BLIND,
    DEPENDENCY,
    WATCHER,
    Assessment,
    Check,
    Context,
    Finding,
    Judged,
    some,
)
from regworkers_core.operations.dependency_status import AWS
from regworkers_core.settings import AlertSettings

T = TypeVar("T")
_LISTED = 100


@Check(
    name=BLIND,
    severities="the highest of the affected conditions; of events that the archive has not read, that of the "
    "first step of `data-loss` until its second step may be near",
    key="dependency, `clock`, `machine` (too busy to judge), or the condition if no dependency failed",
    runbook="time-outs.md",
    several="causes keep conditions from being judged",
    # A dependency that answers again but still cannot be read is a problem by itself.
    recovery=lambda limits: limits.blind_seconds,
)
def blind(context: Context) -> Iterable[Finding]:
    """Fires when the source of a condition, or of one of its subjects, could not be read for `blindSeconds`
    ({alerts.blind_seconds!d}); one incident for each dependency that fails.

    The sources that the other checks could not read for too long, as `blind_findings` returned them.
    """
    return context.blind


@dataclass(frozen=True, slots=True)
class Gap:
    """What could not be assessed: a condition or one of its subjects."""

    # The condition's name, or the key of the subject's alert.
    key: str
    # The highest of its condition.
    severity: Severity
    unread: Unread
    # That of its first step; None: it has one step.
    first: Severity | None = None

    def severity_after(self, seconds: float) -> Severity:
        """How urgent it is when it has lasted for so long."""
        return (self.first or self.severity) if seconds < self.unread.slack_seconds else self.severity

    @property
    def cause(self) -> str:
        """The dependency, or the condition if no dependency failed."""
        return self.unread.dependency or _condition(self.key)


def gaps_of(table: Iterable[Check], assessed: Mapping[str, Judged], limits: AlertSettings) -> tuple[Gap, ...]:
    """Everything that this evaluation could not assess, each with the highest severity of its condition."""
    found: list[Gap] = []
    for condition in table:
        assessment = assessed.get(condition.name, Assessment())
        if isinstance(assessment, Unread):
            unread = {condition.name: assessment}
        else:
            unread = {condition.key_of(subject): why for subject, why in assessment.unknown.items()}
        severity, name = limits.severity, condition.name
        found += (
            Gap(key, severity.worst_of(name), why, severity.first_of(name)) for key, why in unread.items()
        )
    return tuple(found)


def gaps_since(gaps: Iterable[Gap], before: Mapping[str, float], now: float) -> dict[str, float]:
    """Start of each gap (epoch seconds) by its key. `before` is the result of the previous evaluation: the gap of a
    whole condition began with that of any part of it, and the other way round.
    """
    return {gap.key: min(_related(gap.key, before), default=now) for gap in gaps}


def blind_findings(
    gaps: Iterable[Gap], since: Mapping[str, float], incidents: Iterable[Incident], now: float, seconds: float
) -> tuple[Finding, ...]:
    """One finding for each cause of gaps that last `seconds` or longer. A gap that an open incident already reports
    stays with that incident, even if its cause has changed.
    """
    reported = {
        key: incident.alert.key.partition(":")[2]
        for incident in incidents
        if incident.open and incident.alert.scope == BLIND
        for key in incident.alert.details.get("unread", ())
    }
    by_cause: dict[str, list[Gap]] = {}
    for gap in gaps:
        cause = next(iter(_related(gap.key, reported)), None)
        if cause is None and now - since[gap.key] >= seconds:
            cause = gap.cause
        if cause is not None:
            by_cause.setdefault(cause, []).append(gap)
    return tuple(_blind_finding(cause, members, since, now) for cause, members in by_cause.items())


def _blind_finding(cause: str, members: Sequence[Gap], since: Mapping[str, float], now: float) -> Finding:
    keys = sorted(gap.key for gap in members)
    began = min(since[key] for key in keys)
    whys = list(dict.fromkeys(gap.unread.why for gap in members))
    return Finding(
        cause,
        Severity.worst(gap.severity_after(now - since[gap.key]) for gap in members),
        f"{some(keys)} could not be read for {duration(now - began)}: {some(whys)}",
        {"unread": keys[:_LISTED], "unreadCount": len(keys), "unreadSince": iso(began)},
        # A sensor that does not run reads nothing of Dagster either; what fails for several services of AWS fails for
        # those that are not probed.
        (
            f"{DEPENDENCY}:{cause}",
            *((WATCHER,) if cause == "dagster" else ()),
            *((f"{DEPENDENCY}:{provider_of(cause)}",) if cause in AWS else ()),
        ),
    )


def _related(key: str, values: Mapping[str, T]) -> list[T]:
    """The value of the key itself; else that of its whole condition, or those of its parts."""
    if key in values:
        return [values[key]]
    whole = _condition(key)
    if key != whole:
        return [values[whole]] if whole in values else []
    return [value for other, value in values.items() if _condition(other) == whole]


def _condition(key: str) -> str:
    return key.partition(":")[0]
