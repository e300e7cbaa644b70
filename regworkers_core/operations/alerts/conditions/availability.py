"""Dependencies that do not answer, a scheduler that does not run, sources that cannot be read, Kafka's certificate,
checkEligibility, which fans wait for, and the lines of pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TypeVar

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.alert import Severity
from regworkers_core.domain.snapshot import CertificateState, FunctionState, TickState, Unread
from regworkers_core.domain.timestamps import duration, iso
from regworkers_core.engine.queue import QUEUE_SERVICE
from regworkers_core.operations.alerts.conditions.condition import (
    BLIND,
    DAEMONS,
    DEPENDENCY,
    SEVERAL,
    WATCHER,
    Assessment,
    Condition,
    Context,
    Finding,
    outages_of,
    some,
)
from regworkers_core.operations.dependency_status import (
    AWS,
    NO_ANSWER,
    too_busy,
)
from regworkers_core.settings import AlertSettings

T = TypeVar("T")
# Without these nothing is replicated or drawn. The others become critical by their consequences.
ESSENTIAL = ("dynamodb", "streams", QUEUE_SERVICE, "mongo", "s3")
_PAGES = {
    "kafka": "kafka.md",
    "redis": "campaign-configuration.md",
    "service-campaign": "campaign-configuration.md",
}
ALERTS_SENSOR = "alerts_sensor"
# The daemon loop may start a due schedule late, and its tick may wait on a busy machine.
_SCHEDULE_LATE_SECONDS = 60.0
_LISTED = 100
# The dependencies without which a verdict is UNKNOWN.
_VERDICT_NEEDS = ("dynamodb", "mongo", "service-user", "service-campaign")


def mongo_down(_: Context) -> Assessment:
    """Never finds anything: it runs only once MongoDB has answered. `outage` opens this incident."""
    return Assessment()


def down(context: Context) -> Assessment:
    """One finding for each dependency that cannot be used, grouped by provider."""
    found = [
        Finding(
            name,
            context.severity.dependency_down
            if name in ESSENTIAL
            else context.severity.dependency_down_others,
            f"{name} {trouble}" if trouble == NO_ANSWER else f"{name} cannot be used: {trouble}",
            {"dependency": name, "trouble": trouble},
            group=_provider(name),
            page=_PAGES.get(name, ""),
        )
        for name, trouble in context.snapshot.dependencies.items()
        if trouble is not None
    ]
    return Assessment(tuple(found), {name: too_busy() for name in context.snapshot.unjudged})


def _provider(name: str) -> str:
    if name in AWS:
        return "aws"
    return "services" if name.startswith("service-") else SEVERAL


def silent(context: Context) -> Assessment | Unread:
    """One finding for all daemons, since they share a process, and one for each tick that is overdue or failed."""
    read = context.snapshot.scheduler
    if isinstance(read, Unread):
        return read
    findings = []
    limit = context.settings.alerts.silent_seconds
    ages = {name: context.age(at) for name, at in sorted(read.daemons.items())}
    late = {name: age for name, age in ages.items() if age is None or age > limit}
    if late:
        beats = [f"{name} {'never' if age is None else duration(age) + ' ago'}" for name, age in late.items()]
        summary = f"{len(late)} of {len(ages)} Dagster daemons are silent, last heartbeat: {some(beats)}"
        details = {"silentSeconds": {name: age and round(age) for name, age in late.items()}}
        findings.append(Finding(DAEMONS.partition(":")[2], context.severity.scheduler, summary, details))
    findings += [found for tick in read.ticks if (found := _of_tick(context, tick)) is not None]
    # It is unknown when these were switched on: their first tick may be due tomorrow.
    first = {tick.name for tick in read.ticks if tick.last_tick_at is None and tick.since is None}
    return Assessment(tuple(findings), early=frozenset(first))


def _of_tick(context: Context, tick: TickState) -> Finding | None:
    age = context.age(tick.last_tick_at)
    severity = context.severity.scheduler_ticks
    details = {
        "intervalSeconds": tick.interval_seconds,
        "silentSeconds": None if age is None else round(age),
    }
    if _is_late(context, tick):
        last = "never ticked" if age is None else f"last ticked {duration(age)} ago"
        summary = f"{tick.name} is switched on and {last}; it is due every {duration(tick.interval_seconds)}"
        return Finding(tick.name, severity, summary, details, because=(DAEMONS,))
    if tick.error:
        summary = f"the last tick of {tick.name} failed: {tick.error.splitlines()[0][:200]}"
        return Finding(tick.name, severity, summary, details)
    return None


def _is_late(context: Context, tick: TickState) -> bool:
    """A schedule is late one interval after it was due, a sensor after several intervals without a tick. Neither is
    late if it is unknown when it last ticked or was switched on.
    """
    if tick.due_at is not None:
        overdue = context.age(tick.due_at) or 0.0
        return overdue > tick.interval_seconds + _SCHEDULE_LATE_SECONDS
    silence = context.age(tick.last_tick_at or tick.since)
    alerts = context.settings.alerts
    limit = max(alerts.silent_intervals * tick.interval_seconds, alerts.silent_seconds)
    return silence is not None and silence > limit


def watcher_silent(context: Context) -> Assessment:
    """The alerts sensor did not evaluate. Only an evaluation from outside sees this: a dead daemon runs no sensor."""
    seen = context.sensor_seen_at
    age = None if seen is None else context.now - seen
    if age is None or age <= context.settings.alerts.silent_seconds:
        return Assessment()
    summary = (
        f"{ALERTS_SENSOR} has not evaluated for {duration(age)}: daemon, code location or sensor are down"
    )
    details = {"silentSeconds": round(age)}
    return Assessment(
        (Finding(ALERTS_SENSOR, context.severity.watcher, summary, details, because=(DAEMONS,)),)
    )


def blind(context: Context) -> Assessment:
    """The sources that the other conditions could not read for too long, as `blind_findings` returned them."""
    return Assessment(context.blind)


@dataclass(frozen=True, slots=True)
class Gap:
    """What could not be assessed: a condition (`key` is its name) or one of its subjects (`key` is the alert's).
    `severity` is the highest of its condition, `first` that of its first step, None: it has one.
    """

    key: str
    severity: Severity
    unread: Unread
    first: Severity | None = None

    def severity_after(self, seconds: float) -> Severity:
        """How urgent it is when it has lasted for so long."""
        return (self.first or self.severity) if seconds < self.unread.slack_seconds else self.severity

    @property
    def cause(self) -> str:
        """The dependency, or the condition if no dependency failed."""
        return self.unread.dependency or _condition(self.key)


def gaps_of(
    table: Iterable[Condition], assessed: Mapping[str, Assessment | Unread], limits: AlertSettings
) -> tuple[Gap, ...]:
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
            *((f"{DEPENDENCY}:{_provider(cause)}",) if cause in AWS else ()),
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


RENEWED = "kafka"


def certificates(context: Context) -> Assessment | Unread:
    """One finding for each certificate that expires soon, and one for each that has a problem."""
    read = context.snapshot.certificates
    if isinstance(read, Unread):
        return read
    return Assessment(tuple(finding for each in read for finding in _of_certificate(context, each)))


def _of_certificate(context: Context, found: CertificateState) -> Iterator[Finding]:
    limits, days = context.settings.certificates, found.days_left
    mild = context.severity.certificates
    severe = Severity.worst((mild, context.severity.certificates_critical))
    if days is not None and days < limits.warn_days:
        expires = "has expired" if days < 0 else f"expires in {days:.1f} days"
        yield Finding(
            f"{found.environment}-ends",
            severe if days < limits.critical_days else mild,
            f"the Kafka certificate of {found.environment} {expires}, under {limits.warn_days:g}: "
            "`regworkers certs generate` issues a new one",
            {"daysLeft": round(days, 2), "subject": found.subject},
        )
    if found.trouble:
        yield Finding(
            f"{found.environment}-trouble",
            severe if found.unusable else mild,
            f"the Kafka certificate of {found.environment}: {found.trouble}",
            {"subject": found.subject},
        )


def renewal(_: Context) -> Assessment:
    """Leaves the incident as it is: a snapshot does not show what brokers refuse. A running producer opens and closes
    it (`evaluate.watch_renewals`).
    """
    return Assessment(early=frozenset({RENEWED}))


def eligibility(context: Context) -> Assessment | Unread:
    """One finding each for errors, throttled calls, UNKNOWN verdicts, and calls that take too long."""
    read = context.snapshot.function
    if isinstance(read, Unread):
        # An outage of CloudWatch hides no outage of ours by itself.
        return replace(read, slack_seconds=inf)
    return Assessment(tuple(_of_function(context, read)) if read else ())


def _of_function(context: Context, read: FunctionState) -> Iterator[Finding]:
    limits, because = context.settings.alerts, outages_of(_VERDICT_NEEDS)
    for subject, number, what in (
        ("errors", read.errors, "calls of checkEligibility ended in an error"),
        ("throttles", read.throttles, "calls of checkEligibility were throttled: callers got no answer"),
        (
            "unknown",
            read.unknown,
            "verdicts of checkEligibility were UNKNOWN: a dependency did not answer it",
        ),
    ):
        # A throttled call is no invocation, and one invocation may answer several checks.
        of = max(read.calls, number)
        if number >= limits.error_items and number / of > limits.error_rate:
            summary = f"{number} of {of} {what} within {duration(read.window_seconds)}"
            details = {subject: number, "calls": read.calls}
            causes = because if subject == "unknown" else ()
            yield Finding(subject, context.severity.eligibility_failing, summary, details, causes)
    p95, limit = read.duration_p95_seconds, limits.batch_share * read.limit_seconds
    if p95 is not None and p95 > limit:
        yield Finding(
            "duration",
            context.severity.eligibility,
            f"calls of checkEligibility take {p95:.1f} s (p95), of {read.limit_seconds:g} s that they may",
            {"p95Seconds": round(p95, 3), "limitSeconds": read.limit_seconds},
            because,
        )


def lines(context: Context) -> Assessment | Unread:
    """At most one finding: no line of a pod arrived for long."""
    read = context.snapshot.lines
    if isinstance(read, Unread):
        return read
    if read is None or read.arrived:
        return Assessment()
    summary = (
        f"no line of a pod came to {read.log_group} for {duration(read.window_seconds)}: the log agent does not "
        "run, or may not write"
    )
    return Assessment(
        (Finding("log-group", context.severity.log_lines, summary, {"logGroup": read.log_group}),)
    )
