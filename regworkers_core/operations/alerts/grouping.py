"""From findings to alerts: one alert for one cause. Pure.

A patient condition must hold at two evaluations. A finding with a cause that is reported becomes its consequence
(inhibition). Findings that belong together become one alert (grouping). What is not reported under its own key neither
opens nor closes an incident.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.snapshot import Alert, Severity, Unread
from regworkers_core.domain.timestamps import seconds
from regworkers_core.operations.alerts.conditions.condition import Assessment, Check, Finding, some
from regworkers_core.operations.alerts.notifier import ScopeState
from regworkers_core.settings import AlertSettings

# Two findings of one provider are already a group.
_PROVIDERS = ("aws", "services")
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Previous:
    """What earlier evaluations stored: the incidents of all conditions, and when (epoch seconds) each finding of a
    patient condition was first seen. `now` is the time of the clock that wrote them.
    """

    incidents: Sequence[Incident]
    suspected: Mapping[str, float]
    now: float

    @property
    def open(self) -> frozenset[str]:
        return frozenset(each.alert.key for each in self.incidents if each.open)

    def causes(self, recovery_seconds: float) -> dict[str, float]:
        """Start (epoch seconds) of each incident that is open, or closed at most `recovery_seconds` ago, by its key
        and the keys of its members. A finding of a patient condition began when it was first seen.
        """
        found: dict[str, float] = {}
        for incident in self.incidents:
            ended = seconds(incident.resolved_at) if incident.resolved_at else None
            recent = ended is not None and 0 <= self.now - ended <= recovery_seconds
            if incident.open or recent:
                members = incident.alert.details.get("members", ())
                opened = seconds(incident.opened_at)
                for key in (incident.alert.key, *(f"{incident.alert.scope}:{member}" for member in members)):
                    found[key] = min(
                        self.now if opened is None else opened, self.suspected.get(key, self.now)
                    )
        return found


@dataclass(frozen=True, slots=True)
class Grouped:
    """`scopes` is what to settle, by scope. `suspected` are keys of patient conditions that hold now, `cleared` those
    that no longer hold.
    """

    scopes: Mapping[str, ScopeState]
    suspected: frozenset[str]
    cleared: frozenset[str]


def group_and_inhibit(
    table: Iterable[Check],
    assessed: Mapping[str, Assessment | Unread],
    previous: Previous,
    limits: AlertSettings,
) -> Grouped:
    """Group the findings of all conditions. `assessed` has the result of each condition by its name."""
    table = tuple(table)
    seen = {
        key: previous.suspected.get(key, previous.now)
        for condition in table
        for key in (condition.key_of(finding.subject) for finding in _findings(assessed[condition.name]))
    }
    causes = {
        recovery: seen | previous.causes(recovery)
        for condition in table
        for recovery in {
            condition.recovery(limits) + finding.lasts_seconds
            for finding in _findings(assessed[condition.name])
        }
    }
    groups = {
        condition.name: _ConditionGroups(condition, assessed[condition.name], previous, causes, limits)
        for condition in table
    }
    alerts = {alert.key: alert for each in groups.values() for alert in each.alerts}
    reported_as = {member: key for each in groups.values() for member, key in each.reported_as.items()}
    for each in groups.values():
        _attribute(each.consequences, alerts, reported_as)
    scopes = {
        name: ScopeState(
            tuple(alerts[alert.key] for alert in each.alerts),
            frozenset(each.kept),
            isinstance(assessed[name], Unread),
        )
        for name, each in groups.items()
    }
    suspected = frozenset(key for each in groups.values() for key in each.suspected)
    blind = {name for name, scope in scopes.items() if scope.blind}
    cleared = {key for key in previous.suspected if key.partition(":")[0] not in blind} - suspected
    return Grouped(scopes, suspected, frozenset(cleared))


class _ConditionGroups:
    """The findings of one condition: its `alerts`; `reported_as` maps the key of each reported finding to the key of
    its alert; `consequences` are findings with a cause; `kept` and `suspected` are keys.
    """

    def __init__(
        self,
        condition: Check,
        assessed: Assessment | Unread,
        previous: Previous,
        causes: Mapping[float, Mapping[str, float]],
        limits: AlertSettings,
    ) -> None:
        self._condition, self._previous, self._limits = condition, previous, limits
        self.alerts: list[Alert] = []
        self.reported_as: dict[str, str] = {}
        self.consequences: list[Finding] = []
        self.kept: set[str] = set()
        self.suspected: set[str] = set()
        groups: dict[str, list[Finding]] = {}
        for finding in _findings(assessed):
            key = condition.key_of(finding.subject)
            began = causes[condition.recovery(limits) + finding.lasts_seconds]
            if condition.patient:
                self.suspected.add(key)
            if condition.patient and not self._is_confirmed(key):
                self._keep(finding)
            elif because := tuple(
                cause for cause in finding.because if cause in began and began[cause] <= began[key]
            ):
                self._keep(finding)
                self.consequences.append(replace(finding, because=because))
            else:
                groups.setdefault(finding.group, []).append(finding)
        for group, members in groups.items():
            self._report(group, members)
        if isinstance(assessed, Assessment) and (left := {*assessed.unknown, *assessed.early}):
            # A group may contain subjects about which nothing is known now.
            self.kept |= {condition.key_of(subject) for subject in left}
            self.kept |= {key for key in previous.open if self._is_group(key)}

    def _keep(self, finding: Finding) -> None:
        self.kept |= {self._condition.key_of(finding.subject), self._condition.key_of(finding.group)}

    def _is_confirmed(self, key: str) -> bool:
        since = self._previous.suspected.get(key)
        if key in self._previous.open:
            return True
        return since is not None and self._previous.now - since >= self._limits.patience_seconds

    def _is_group(self, key: str) -> bool:
        return key.partition(":")[0] == self._condition.name and any(
            incident.alert.key == key and "members" in incident.alert.details
            for incident in self._previous.incidents
        )

    def _report(self, group: str, members: Sequence[Finding]) -> None:
        key_of, limit = self._condition.key_of, 1 if group in _PROVIDERS else self._limits.group_above
        # One that has an incident of its own keeps it: two incidents for one cause would notify twice.
        own = [member for member in members if key_of(member.subject) in self._previous.open]
        others = [member for member in members if member not in own]
        if others and (len(others) > limit or key_of(group) in self._previous.open):
            alert = _group_alert(self._condition, group, others)
            self.alerts.append(alert)
            self.reported_as[alert.key] = alert.key
            for member in others:
                self._keep(member)
                self.reported_as[key_of(member.subject)] = alert.key
            others = []
        for member in (*own, *others):
            self.alerts.append(self._condition.alert(member))
            self.reported_as[key_of(member.subject)] = key_of(member.subject)


def _group_alert(condition: Check, group: str, members: Sequence[Finding]) -> Alert:
    subjects = sorted(member.subject for member in members)
    pages = {member.page for member in members}
    details: dict[str, Any] = {"count": len(members), "members": subjects[:_NAMED]}
    return condition.alert(
        Finding(
            group,
            Severity.worst(member.severity for member in members),
            f"{len(members)} {condition.several}: {some(subjects)}"
            if len(members) > 1
            else members[0].summary,
            {**details, "first": members[0].summary},
            page=pages.pop() if len(pages) == 1 else "",
        )
    )


def _attribute(
    consequences: Sequence[Finding], alerts: dict[str, Alert], reported_as: Mapping[str, str]
) -> None:
    """Add each consequence to the alert of its first cause that is reported, which takes its severity if higher."""
    for finding in consequences:
        key = next((reported_as[cause] for cause in finding.because if cause in reported_as), None)
        if key is None:
            continue
        alert = alerts[key]
        named = list(alert.details.get("consequences", ()))
        details = {
            **alert.details,
            "consequences": [*named, finding.summary][:_NAMED],
            "consequencesCount": alert.details.get("consequencesCount", 0) + 1,
        }
        severity = Severity.worst((alert.severity, finding.severity))
        alerts[key] = replace(alert, severity=severity, details=details)


def _findings(assessed: Assessment | Unread) -> tuple[Finding, ...]:
    return () if isinstance(assessed, Unread) else assessed.findings
