"""A check is a pure function from a snapshot of the system to findings, or to Unread.

The other modules of this folder have them; `TABLE` of the package has all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from string import Formatter
from typing import Any, TypeAlias

from regworkers_core.domain.snapshot import Alert, Severity, Snapshot, Unread
from regworkers_core.domain.timestamps import duration, iso, seconds
from regworkers_core.engine.queue import QUEUE_SERVICE
from regworkers_core.flows import DRAIN
from regworkers_core.settings import AlertSettings, AnalyticsSettings, CertificatesSettings, Settings
from regworkers_core.settings.operations import AlertSeverities

# The limits that the docs have.
LIMITS = AlertSettings()
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
    """Everything that a condition reads."""

    snapshot: Snapshot
    settings: Settings
    # When the alerts sensor last evaluated (epoch seconds); None if it never did or evaluates now.
    sensor_seen_at: float | None = None
    # The time for which the lease of a draw was not renewed, by campaign; for which what a campaign waits for has not
    # ended, by `campaigns.Waiting.key`; for which a drain with work that is due acknowledged nothing, by
    # `drains.key_of`. 0: since the last evaluation they did.
    still_seconds: Mapping[str, float] = field(default_factory=dict)
    # Findings about sources that could not be read for too long.
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
    """A problem."""

    # What has it: a part of the alert's key.
    subject: str
    severity: Severity
    summary: str
    # Numbers and ids for programs.
    details: Mapping[str, Any] = field(default_factory=dict)
    # Keys of findings that certainly cause this one: while one of them holds, it is reported as their consequence, for
    # `lasts_seconds` longer than the check's `recovery`.
    because: tuple[str, ...] = ()
    # Many findings of one group are reported together.
    group: str = SEVERAL
    # Replaces the check's runbook.
    page: str = ""
    # For so much longer than the check's `recovery` it counts as a consequence.
    lasts_seconds: float = 0.0
    # The command that helps, if it is not that of the section or the runbook.
    remedy: str = ""
    # Where the doctor shows it, if that is not the check's section and the subject's row.
    section: str = ""
    # The row there.
    row: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """A subject that could not be assessed: its incident stays as it is, and after a while that is one itself."""

    subject: str
    # None: nothing can be said of it yet, which never becomes an incident.
    why: Unread | None = None


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a check found: findings, and by subject what it could not assess and of which nothing can be said yet."""

    findings: tuple[Finding, ...] = ()
    unknown: Mapping[str, Unread] = field(default_factory=dict)
    early: frozenset[str] = frozenset()

    @classmethod
    def of(cls, found: Iterable[Finding | Unknown]) -> Assessment:
        findings, unknown, early = [], {}, set()
        for each in found:
            if isinstance(each, Finding):
                findings.append(each)
            elif each.why is None:
                early.add(each.subject)
            else:
                unknown[each.subject] = each.why
        return cls(tuple(findings), unknown, frozenset(early))


Judged: TypeAlias = Assessment | Unread
# From the context and the parts of the snapshot that the check reads; Unread: of the whole it is not known.
Find: TypeAlias = Callable[..., Iterable[Finding | Unknown] | Unread]


class _Words(Formatter):
    """`{alerts.stuck_seconds!d}` is a duration."""

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        return duration(value) if conversion == "d" else super().convert_field(value, conversion)


_WORDS = _Words()
_VALUES: Mapping[str, Any] = {
    "alerts": LIMITS,
    "analytics": AnalyticsSettings(),
    "certificates": CertificatesSettings(),
}


def _not_assessed(_: Context) -> Judged:
    return Assessment()


@dataclass(frozen=True, slots=True)
class Check:
    """What is looked for, in one place: alerts, doctor and reviews print what it finds. A decorator of the function
    that finds it.
    """

    # The scope of its alerts; its severities are the settings that begin with it.
    name: str
    # A page below docs/runbooks.
    runbook: str
    # For docs/alerts.md: what its keys are. Empty: it opens no alert, only reviews ask it.
    key: str = ""
    # The end of the line that reports many findings together: "12 ...".
    several: str = ""
    # A section of the doctor; empty: it is not shown there.
    section: str = ""
    # For docs/alerts.md: when it fires, if the docstring of its function does not say "Fires when ...".
    fires: str = ""
    # For docs/alerts.md: when the second step of a check with two is reached.
    second: str = ""
    # For docs/alerts.md: the severities, where the name of the check does not give them.
    severities: str = ""
    # The parts of the snapshot that it reads. Without one of them it is not assessed.
    reads: tuple[str, ...] = ()
    # For how long nothing urgent hides while they cannot be read.
    slack_seconds: float = 0.0
    # It compares times with this machine's clock.
    timed: bool = False
    # It must hold at two evaluations.
    patient: bool = False
    # How long a finding may last after the end of its cause without being reported, in seconds.
    recovery: Callable[[AlertSettings], float] = lambda limits: limits.recovery_seconds
    # What the budget of an objective adds (`objectives.or_burns`).
    burns: Callable[[Context, Judged], Judged] | None = None
    # The function that finds it.
    assess: Callable[[Context], Judged] = _not_assessed

    def __call__(self, find: Find) -> Check:
        said = " ".join((find.__doc__ or "").partition("\n\n")[0].split())
        fires = self.fires or _WORDS.format(said.removeprefix("Fires when ").removesuffix("."), **_VALUES)
        return replace(self, fires=fires, assess=partial(self._assess, find))

    def of(self, settings: Settings, now: float, **parts: Any) -> Judged:
        """What it finds as of `now` (epoch seconds) in these parts of a snapshot alone."""
        return self.assess(Context(Snapshot(iso(now), settings.environment, **parts), settings))

    def _assess(self, find: Find, context: Context) -> Judged:
        parts = [getattr(context.snapshot, name) for name in self.reads]
        unread = next((each for each in parts if isinstance(each, Unread)), None)
        found = replace(unread, slack_seconds=self.slack_seconds) if unread else find(context, *parts)
        judged = found if isinstance(found, Unread) else Assessment.of(found)
        return self.burns(context, judged) if self.burns else judged

    @property
    def severity(self) -> str:
        """For docs/alerts.md: `critical`, or `warning; above 600 s critical`, of which the worse one counts."""
        if self.severities:
            return self.severities
        name = self.name.replace("-", "_")
        first = getattr(LIMITS.severity, name)
        second = getattr(LIMITS.severity, f"{name}_critical", first)
        return f"{first}" if first is second else f"{first}; {self.second} {second}"

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
