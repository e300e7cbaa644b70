"""What conditions could not read for too long: one finding for each dependency that keeps them from it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.alert import Severity
from regworkers_core.domain.snapshot import Unread
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.alerts.conditions.causes import BLIND, DEPENDENCY, WATCHER
from regworkers_core.operations.alerts.conditions.condition import Condition, Finding, Judgement
from regworkers_core.operations.alerts.conditions.texts import duration, some
from regworkers_core.settings import AlertSettings

_NAMED = 100
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gap:
    """What could not be judged: a condition (`key` is its name), or one subject of it (`key` is that of its alert)."""

    key: str
    severity: Severity
    unread: Unread

    @property
    def cause(self) -> str:
        """The dependency, or the condition where no dependency is at fault."""
        return self.unread.dependency or _condition(self.key)


def gaps_of(
    table: Iterable[Condition], judged: Mapping[str, Judgement | Unread], limits: AlertSettings
) -> tuple[Gap, ...]:
    """All that could not be judged at this look, each with the highest severity of its condition."""
    found: list[Gap] = []
    for condition in table:
        judgement = judged.get(condition.name, Judgement())
        if isinstance(judgement, Unread):
            unread = {condition.name: judgement}
        else:
            unread = {condition.key_of(subject): why for subject, why in judgement.unknown.items()}
        found += (Gap(key, limits.severity.worst_of(condition.name), why) for key, why in unread.items())
    return tuple(found)


def since_when(gaps: Iterable[Gap], before: Mapping[str, float], now: float) -> dict[str, float]:
    """By the key of each gap, since when it lasts (seconds since the epoch). `before` is what the look before came to:
    a condition of which a part was not read lasts as long as that part, and the other way round.
    """
    return {gap.key: min(_related(gap.key, before), default=now) for gap in gaps}


def findings_of(
    gaps: Iterable[Gap], since: Mapping[str, float], incidents: Iterable[Incident], now: float, seconds: float
) -> tuple[Finding, ...]:
    """One for each cause of gaps that last `seconds` or longer. A gap that an incident tells of already stays with that
    one, whatever keeps it unread by now.
    """
    told = {
        key: incident.alert.key.partition(":")[2]
        for incident in incidents
        if incident.open and incident.alert.scope == BLIND
        for key in incident.alert.details.get("unread", ())
    }
    together: dict[str, list[Gap]] = {}
    for gap in gaps:
        cause = next(iter(_related(gap.key, told)), None)
        if cause is None and now - since[gap.key] >= seconds:
            cause = gap.cause
        if cause is not None:
            together.setdefault(cause, []).append(gap)
    return tuple(_finding(cause, members, since, now) for cause, members in together.items())


def _finding(cause: str, members: Sequence[Gap], since: Mapping[str, float], now: float) -> Finding:
    keys = sorted(gap.key for gap in members)
    began = min(since[key] for key in keys)
    whys = list(dict.fromkeys(gap.unread.why for gap in members))
    return Finding(
        cause,
        Severity.worst(gap.severity for gap in members),
        f"{some(keys)} cannot be read for {duration(now - began)}: {some(whys)}",
        {"unread": keys[:_NAMED], "unreadCount": len(keys), "unreadSince": iso(began)},
        # Who does not look any more reads nothing of Dagster either.
        (f"{DEPENDENCY}:{cause}", *((WATCHER,) if cause == "dagster" else ())),
    )


def _related(key: str, values: Mapping[str, T]) -> list[T]:
    """Of the key itself; else of its whole condition, or of parts of it."""
    if key in values:
        return [values[key]]
    whole = _condition(key)
    if key != whole:
        return [values[whole]] if whole in values else []
    return [value for other, value in values.items() if _condition(other) == whole]


def _condition(key: str) -> str:
    return key.partition(":")[0]
