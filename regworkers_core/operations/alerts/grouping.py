"""From what was judged to what is told: one alert for one cause. Pure.

What has to hold at two looks waits for the second one; what another finding explains is told as its consequence; what
many have in common is told together. Whatever is not told in its own name neither opens nor closes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.alert import Alert, Severity
from regworkers_core.domain.snapshot import Unread
from regworkers_core.domain.timestamps import seconds
from regworkers_core.operations.alerts.conditions.condition import Condition, Finding, Judgement
from regworkers_core.operations.alerts.conditions.texts import some
from regworkers_core.operations.alerts.notifier import Held
from regworkers_core.settings import AlertSettings

# Findings of one provider are one from the second on.
_PROVIDERS = ("aws", "services")
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Before:
    """What is known from earlier looks: incidents of all conditions, and since when (seconds since the epoch) what is
    patient is suspected. `now` is of the clock that wrote them.
    """

    incidents: Sequence[Incident]
    suspected: Mapping[str, float]
    now: float

    @property
    def open(self) -> frozenset[str]:
        return frozenset(each.alert.key for each in self.incidents if each.open)

    def explains(self, recovery_seconds: float) -> dict[str, float]:
        """Keys of what is open, or was until just now, members of what was reported together included; each with since
        when (seconds since the epoch): the first sight of what has to hold at two looks, else its incident's opening.
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
class Folded:
    """`held` by scope; `suspected` are the keys that hold now and have to go on, `cleared` those that do no more."""

    held: Mapping[str, Held]
    suspected: frozenset[str]
    cleared: frozenset[str]


def fold(
    table: Iterable[Condition],
    judged: Mapping[str, Judgement | Unread],
    before: Before,
    limits: AlertSettings,
) -> Folded:
    """`judged` by the names of the conditions."""
    table = tuple(table)
    seen = {
        key: before.suspected.get(key, before.now)
        for condition in table
        for key in (condition.key_of(finding.subject) for finding in _findings(judged[condition.name]))
    }
    explaining = {
        recovery: seen | before.explains(recovery)
        for recovery in {condition.recovery(limits) for condition in table}
    }
    folds = {
        condition.name: _Fold(
            condition, judged[condition.name], before, explaining[condition.recovery(limits)], limits
        )
        for condition in table
    }
    alerts = {alert.key: alert for each in folds.values() for alert in each.alerts}
    told_as = {member: key for each in folds.values() for member, key in each.told_as.items()}
    for each in folds.values():
        _attribute(each.explained, alerts, told_as)
    held = {
        name: Held(
            tuple(alerts[alert.key] for alert in each.alerts),
            frozenset(each.kept),
            isinstance(judged[name], Unread),
        )
        for name, each in folds.items()
    }
    suspected = frozenset(key for each in folds.values() for key in each.suspected)
    blind = {name for name, known in held.items() if known.blind}
    cleared = {key for key in before.suspected if key.partition(":")[0] not in blind} - suspected
    return Folded(held, suspected, frozenset(cleared))


class _Fold:
    """Of one condition: its `alerts`; `told_as`, by the key of each finding that is told, the key of its alert; the
    `explained` findings; the keys that are `kept` as they are; and the keys that are `suspected`.
    """

    def __init__(
        self,
        condition: Condition,
        judged: Judgement | Unread,
        before: Before,
        causes: Mapping[str, float],
        limits: AlertSettings,
    ) -> None:
        self._condition, self._before, self._limits = condition, before, limits
        self.alerts: list[Alert] = []
        self.told_as: dict[str, str] = {}
        self.explained: list[Finding] = []
        self.kept: set[str] = set()
        self.suspected: set[str] = set()
        groups: dict[str, list[Finding]] = {}
        for finding in _findings(judged):
            key = condition.key_of(finding.subject)
            if condition.patient:
                self.suspected.add(key)
            if condition.patient and not self._is_sure(key):
                self._keep(finding)
            elif because := tuple(
                cause for cause in finding.because if cause in causes and causes[cause] <= causes[key]
            ):
                self._keep(finding)
                self.explained.append(replace(finding, because=because))
            else:
                groups.setdefault(finding.group, []).append(finding)
        for group, members in groups.items():
            self._tell(group, members)
        if isinstance(judged, Judgement) and (left := {*judged.unknown, *judged.early}):
            # What is told together may be of those of whom nothing is known.
            self.kept |= {condition.key_of(subject) for subject in left}
            self.kept |= {key for key in before.open if self._is_a_group(key)}

    def _keep(self, finding: Finding) -> None:
        self.kept |= {self._condition.key_of(finding.subject), self._condition.key_of(finding.group)}

    def _is_sure(self, key: str) -> bool:
        since = self._before.suspected.get(key)
        if key in self._before.open:
            return True
        return since is not None and self._before.now - since >= self._limits.patience_seconds

    def _is_a_group(self, key: str) -> bool:
        return key.partition(":")[0] == self._condition.name and any(
            incident.alert.key == key and "members" in incident.alert.details
            for incident in self._before.incidents
        )

    def _tell(self, group: str, members: Sequence[Finding]) -> None:
        key_of, limit = self._condition.key_of, 1 if group in _PROVIDERS else self._limits.group_above
        if len(members) > limit or key_of(group) in self._before.open:
            alert = _together(self._condition, group, members)
            self.alerts.append(alert)
            for member in members:
                self._keep(member)
                self.told_as[key_of(member.subject)] = alert.key
            return
        for member in members:
            self.alerts.append(self._condition.alert(member))
            self.told_as[key_of(member.subject)] = key_of(member.subject)


def _together(condition: Condition, group: str, members: Sequence[Finding]) -> Alert:
    subjects = sorted(member.subject for member in members)
    pages = {member.page for member in members}
    details: dict[str, Any] = {"count": len(members), "members": subjects[:_NAMED]}
    return condition.alert(
        Finding(
            group,
            Severity.worst(member.severity for member in members),
            f"{len(members)} {condition.several}: {some(subjects)}",
            {**details, "first": members[0].summary},
            page=pages.pop() if len(pages) == 1 else "",
        )
    )


def _attribute(explained: Sequence[Finding], alerts: dict[str, Alert], told_as: Mapping[str, str]) -> None:
    """To the first of its causes that is told, which is then as severe as what comes of it."""
    for finding in explained:
        key = next((told_as[cause] for cause in finding.because if cause in told_as), None)
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


def _findings(judged: Judgement | Unread) -> tuple[Finding, ...]:
    return () if isinstance(judged, Unread) else judged.findings
