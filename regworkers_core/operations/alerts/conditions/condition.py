"""A condition is a pure function from a snapshot of the system to findings, or to Unread.

The other modules of this folder have the functions; `alerts.table` lists all conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from regworkers_core.domain.alert import Alert, Severity
from regworkers_core.domain.snapshot import Snapshot, Unread
from regworkers_core.domain.timestamps import seconds
from regworkers_core.engine.queue import QUEUE_SERVICE
from regworkers_core.flows import DRAIN
from regworkers_core.settings import AlertSettings, AlertSeverities, Settings

# The group of findings that name no other.
SEVERAL = "several"
_NAMED = 5

BLIND, FUSE, STALLED = "blind", "drain-fuse", "drain-stalled"
DEPENDENCY, DAEMONS, WATCHER = "dependency-down", "scheduler:daemons", "watcher:alerts_sensor"
# MongoDB's outage is recorded under its own key, at the first evaluation after it.
MONGO_AWAY = "mongo-away"
STREAM = "stream-lag:demand-table"
_DRAW = ("dynamodb", "mongo", "s3", QUEUE_SERVICE)


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that a condition reads.

    `sensor_seen_at` is when the alerts sensor last evaluated (epoch seconds), None if it never did or evaluates now.
    `still_seconds` maps campaigns to the time for which the lease of their draw was not renewed, and (`unjudged_key`)
    to that for which a phase was not checked, drains with work that is due (`waiting.key_of`) to that for which they
    acknowledged nothing; 0: since the last evaluation they did.
    `blind` are the findings about sources that could not be read for too long.
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
        """The time of the snapshot in epoch seconds. Raises ValueError if it cannot be parsed."""
        at = seconds(self.snapshot.at)
        if at is None:
            raise ValueError(f"the time of the snapshot is invalid: {self.snapshot.at}")
        return at

    def age(self, at: str | None) -> float | None:
        """Seconds since `at`; None if it is unknown."""
        moment = seconds(at) if at else None
        return None if moment is None else self.now - moment


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with one `subject`, which is part of the alert's key.

    `because` are keys of findings that certainly cause this one: while one of them holds, it is reported as their
    consequence, for `lasts_seconds` longer than the condition's `recovery`. Many findings of one `group` are reported
    together. `page` replaces the condition's runbook, and `remedy` is the command that helps, if it is not that of the
    runbook.
    """

    subject: str
    severity: Severity
    summary: str
    details: Mapping[str, Any] = field(default_factory=dict)
    because: tuple[str, ...] = ()
    group: str = SEVERAL
    page: str = ""
    lasts_seconds: float = 0.0
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a condition found.

    `unknown` maps subjects that could not be assessed to the reason: their incidents stay as they are, and after a
    while that is an incident itself. `early` are subjects about which nothing can be said yet, which never becomes one.
    """

    findings: tuple[Finding, ...] = ()
    unknown: Mapping[str, Unread] = field(default_factory=dict)
    early: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Condition:
    """`name` is the scope of its alerts; `fires`, `severity` and `key` describe it in docs/alerts.md.

    `several` ends the line that reports many findings together ("12 ..."). `runbook` is a page below docs/runbooks.
    `timed`: it compares times with this machine's clock. `patient`: it must hold at two evaluations. `recovery` is how
    many seconds after the end of its cause a finding may last without being reported.
    """

    name: str
    fires: str
    severity: str
    key: str
    runbook: str
    several: str
    assess: Callable[[Context], Assessment | Unread]
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


def merged(first: Finding, *others: Finding) -> Finding:
    """Findings of one subject as one, with the highest severity: the rest is the first one's."""
    everything = (first, *others)
    return replace(
        first,
        severity=Severity.worst(each.severity for each in everything),
        summary="; ".join(each.summary for each in everything),
        details={name: value for each in everything for name, value in each.details.items()},
    )


def causes_of_failures(drain: str) -> tuple[str, ...]:
    """Keys of what makes the items of a drain fail."""
    return outages_of(DRAIN[drain].needs if drain in DRAIN else ())


def outages_of(dependencies: Iterable[str]) -> tuple[str, ...]:
    """Keys of their outages."""
    needed = tuple(dependencies)
    recorded = (f"{MONGO_AWAY}:mongo",) if "mongo" in needed else ()
    return (*(f"{DEPENDENCY}:{each}" for each in needed), *recorded)


def causes_of_stalls(drain: str) -> tuple[str, ...]:
    """Keys of what keeps a drain from its work. Without daemons, or after its fuse tripped, no run is started."""
    return (*causes_of_failures(drain), DAEMONS, f"{FUSE}:{drain}")


def causes_of_backlog(drain: str) -> tuple[str, ...]:
    """Keys of what makes work wait for a drain."""
    return (*causes_of_stalls(drain), f"{STALLED}:{drain}") if drain else ()


def causes_of_stuck_draws() -> tuple[str, ...]:
    """Keys of what keeps draws from continuing."""
    return (*outages_of(_DRAW), DAEMONS)


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown
