"""What a condition is: a pure function from a look at the system to findings, or to "not known"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.domain.alert import Alert, Severity
from regworkers_core.domain.snapshot import Snapshot, Unread
from regworkers_core.domain.timestamps import seconds
from regworkers_core.settings import AlertSettings, AlertSeverities, Settings

# Where several findings are one, unless they say otherwise.
SEVERAL = "several"


@dataclass(frozen=True, slots=True)
class Given:
    """All that a judge looks at. `sensor_seen_at`: when the sensor of alerts looked last, in seconds since the epoch;
    None when it never did, or is the one who looks. `still_seconds`: for how long the lease of a campaign's draw stands
    still, by campaign, where it does. `blind`: what other conditions could not read for too long.
    """

    snapshot: Snapshot
    settings: Settings
    sensor_seen_at: float | None = None
    still_seconds: Mapping[str, float] = field(default_factory=dict)
    blind: tuple[Finding, ...] = ()

    @property
    def severity(self) -> AlertSeverities:
        return self.settings.alerts.severity

    @property
    def now(self) -> float:
        """Of the snapshot, in seconds since the epoch. Raises ValueError when its time is none."""
        at = seconds(self.snapshot.at)
        if at is None:
            raise ValueError(f"the time of the snapshot is none: {self.snapshot.at}")
        return at

    def age(self, at: str | None) -> float | None:
        """In seconds, None when it is not known."""
        moment = seconds(at) if at else None
        return None if moment is None else self.now - moment


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` is what it is about: with the condition's name, the key of the alert.

    `because` has keys of findings that explain this one for certain: while one of them holds, it is told as their
    consequence. Where many of one `group` hold they are told together; `page` in place of the condition's runbook.
    """

    subject: str
    severity: Severity
    summary: str
    details: Mapping[str, Any] = field(default_factory=dict)
    because: tuple[str, ...] = ()
    group: str = SEVERAL
    page: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """`unknown` are subjects that could not be judged, and why: what is open of them stays so, nothing is opened, and
    after a while that is an incident itself. `early` are those of which there is nothing to judge yet, which never is.
    """

    findings: tuple[Finding, ...] = ()
    unknown: Mapping[str, Unread] = field(default_factory=dict)
    early: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Condition:
    """`name` is the scope of its alerts. `fires`, `severity` and `key` describe it for people; `several` ends the line
    that tells of many together ("12 ..."). `runbook` is a page below docs/runbooks.

    `timed`: it compares times with the clock of this machine. `patient`: it has to hold at two looks. `recovery`: for
    how many seconds after the end of what explains it a finding may go on without being reported.
    """

    name: str
    fires: str
    severity: str
    key: str
    runbook: str
    several: str
    judge: Callable[[Given], Judgement | Unread]
    timed: bool = False
    patient: bool = False
    recovery: Callable[[AlertSettings], float] = lambda limits: limits.recovery_seconds

    def key_of(self, subject: str) -> str:
        return f"{self.name}:{subject}"

    def alert(self, finding: Finding) -> Alert:
        page = f"runbooks/{finding.page or self.runbook}"
        return Alert(
            self.key_of(finding.subject), finding.severity, finding.summary, page, dict(finding.details)
        )
