"""Dependencies that do not answer, a scheduler that does not run, sources that cannot be read, Kafka's certificate,
checkEligibility, which fans wait for, and the lines of pods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf
from typing import TypeVar

from regworkers_core.domain.snapshot import (
    CertificateState,
    FunctionState,
    LinesState,
    Pattern,
    SchedulerState,
    Severity,
    TickState,
)
from regworkers_core.domain.timestamps import duration
from regworkers_core.engine.queue import QUEUE_SERVICE
from regworkers_core.operations.alerts.conditions.condition import (
    DAEMONS,
    DEPENDENCY,
    LIMITS,
    MONGO_AWAY,
    SEVERAL,
    Check,
    Context,
    Finding,
    Unknown,
    outages_of,
    some,
)
from regworkers_core.operations.dependency_status import AWS, NO_ANSWER, too_busy
from regworkers_core.operations.health.sources import LINES_SECONDS
from regworkers_core.reporting import counted
from regworkers_core.settings import CertificatesSettings

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
# Smaller differences between two periods are normal.
_MORE, _FEW_LINES = 2, 10
# The dependencies without which a verdict is UNKNOWN.
_VERDICT_NEEDS = ("dynamodb", "mongo", "service-user", "service-campaign")
_SEVERITY, _CERTIFICATES = LIMITS.severity, CertificatesSettings()


@Check(
    name=MONGO_AWAY,
    key="mongo",
    runbook="time-outs.md",
    several="outages of MongoDB",
)
def mongo_down(_: Context) -> tuple[()]:
    """Fires when MongoDB, which stores the incidents, does not answer at two evaluations; every channel is notified
    directly.

    Never finds anything: it runs only once MongoDB has answered. `outage` opens this incident.
    """
    return ()


@Check(
    name=DEPENDENCY,
    section="dependencies",
    severities=f"{_SEVERITY.dependency_down}: DynamoDB, its streams, SQS, S3, MongoDB; "
    f"{_SEVERITY.dependency_down_others} (`dependencyDownOthers`): the others, unless they have a "
    "critical consequence",
    key="dependency",
    runbook="time-outs.md",
    several="dependencies do not answer",
    patient=True,
)
def down(context: Context) -> Iterator[Finding | Unknown]:
    """Fires when a dependency does not answer at two evaluations, `patienceSeconds` ({alerts.patience_seconds:.0f} s)
    apart.

    Grouped by provider.
    """
    severity = context.severity
    for name, trouble in context.snapshot.dependencies.items():
        if trouble is not None:
            yield Finding(
                name,
                severity.dependency_down if name in ESSENTIAL else severity.dependency_down_others,
                f"{name} {trouble}" if trouble == NO_ANSWER else f"{name} cannot be used: {trouble}",
                {"dependency": name, "trouble": trouble},
                group=provider_of(name),
                page=_PAGES.get(name, ""),
            )
    yield from (Unknown(name, too_busy()) for name in context.snapshot.unjudged)


def provider_of(name: str) -> str:
    if name in AWS:
        return "aws"
    return "services" if name.startswith("service-") else SEVERAL


@Check(
    name="scheduler",
    section="sensors",
    severities=f"{_SEVERITY.scheduler}: daemons; {_SEVERITY.scheduler_ticks} (`schedulerTicks`): ticks",
    key="`daemons`, or the sensor or schedule",
    runbook="scheduler.md",
    several="sensors and schedules do not tick as they should",
    reads=("scheduler",),
    timed=True,
    patient=True,
)
def silent(context: Context, read: SchedulerState) -> Iterator[Finding | Unknown]:
    """Fires when a daemon of Dagster is silent, a sensor that is switched on did not tick for `silentIntervals`
    ({alerts.silent_intervals:g}) of its intervals and `silentSeconds` ({alerts.silent_seconds!d}), a schedule one
    interval and 60 s after it was due, or its last tick failed; at two evaluations.

    One finding for all daemons, since they share a process.
    """
    limit = context.settings.alerts.silent_seconds
    ages = {name: context.age(at) for name, at in sorted(read.daemons.items())}
    late = {name: age for name, age in ages.items() if age is None or age > limit}
    if late:
        beats = [f"{name} {'never' if age is None else duration(age) + ' ago'}" for name, age in late.items()]
        yield Finding(
            DAEMONS.partition(":")[2],
            context.severity.scheduler,
            f"{len(late)} of {len(ages)} Dagster daemons are silent, last heartbeat: {some(beats)}",
            {"silentSeconds": {name: age and round(age) for name, age in late.items()}},
            section="daemons",
        )
    for tick in read.ticks:
        yield from _of_tick(context, tick)
        if tick.last_tick_at is None and tick.since is None:
            # It is unknown when it was switched on: its first tick may be due tomorrow.
            yield Unknown(tick.name)


def _of_tick(context: Context, tick: TickState) -> Iterator[Finding]:
    age, severity = context.age(tick.last_tick_at), context.severity.scheduler_ticks
    details = {
        "intervalSeconds": tick.interval_seconds,
        "silentSeconds": None if age is None else round(age),
    }
    if _is_late(context, tick):
        last = "never ticked" if age is None else f"last ticked {duration(age)} ago"
        summary = f"{tick.name} is switched on and {last}; it is due every {duration(tick.interval_seconds)}"
        yield Finding(tick.name, severity, summary, details, because=(DAEMONS,))
    elif tick.error:
        summary = f"the last tick of {tick.name} failed: {tick.error.splitlines()[0][:200]}"
        yield Finding(tick.name, severity, summary, details)


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


@Check(
    name="watcher",
    section="sensors",
    key="alerts_sensor",
    runbook="scheduler.md",
    several="alert sensors are silent",
    timed=True,
)
def watcher_silent(context: Context) -> Iterator[Finding]:
    """Fires when an evaluation from outside of Dagster finds that the sensor did not evaluate for `silentSeconds`
    ({alerts.silent_seconds!d}).

    Only an evaluation from outside sees this: a dead daemon runs no sensor.
    """
    seen = context.sensor_seen_at
    age = None if seen is None else context.now - seen
    if age is not None and age > context.settings.alerts.silent_seconds:
        yield Finding(
            ALERTS_SENSOR,
            context.severity.watcher,
            f"{ALERTS_SENSOR} has not evaluated for {duration(age)}: daemon, code location or sensor are down",
            {"silentSeconds": round(age)},
            because=(DAEMONS,),
        )


RENEWED = "kafka"


@Check(
    name="certificates",
    section="certificates",
    second=f"under `certificates.criticalDays` ({_CERTIFICATES.critical_days:g}), and when it cannot be used,",
    key="`<environment>-ends`, `<environment>-trouble`",
    runbook="certificates.md",
    several="certificates need attention",
    reads=("certificates",),
    timed=True,
)
def certificates(context: Context, read: Sequence[CertificateState]) -> Iterator[Finding]:
    """Fires when Kafka's client certificate expires in less than `certificates.warnDays` ({certificates.warn_days:g}),
    or cannot be used.

    Each certificate that expires soon, and each that has a problem.
    """
    limits, mild = context.settings.certificates, context.severity.certificates
    severe = Severity.worst((mild, context.severity.certificates_critical))
    for found in read:
        name, days = found.environment, found.days_left
        if days is not None and days < limits.warn_days:
            expires = "has expired" if days < 0 else f"expires in {days:.1f} days"
            yield Finding(
                f"{name}-ends",
                severe if days < limits.critical_days else mild,
                f"the Kafka certificate of {name} {expires}, under {limits.warn_days:g}: "
                "`regworkers certs generate` issues a new one",
                {"daysLeft": round(days, 2), "subject": found.subject},
                row=name,
            )
        if found.trouble:
            yield Finding(
                f"{name}-trouble",
                severe if found.unusable else mild,
                f"the Kafka certificate of {name}: {found.trouble}",
                {"subject": found.subject},
                row=name,
            )


@Check(
    name="certificate-renewal",
    section="certificates",
    key="kafka",
    runbook="certificates.md",
    several="renewed certificates are refused",
)
def renewal(_: Context) -> Iterator[Unknown]:
    """Fires when Kafka's brokers refuse a renewed certificate; opened and closed by a running producer, because a
    snapshot does not show it.

    Leaves the incident as it is: a snapshot does not show what brokers refuse. A running producer opens and closes it
    (`evaluate.watch_renewals`).
    """
    yield Unknown(RENEWED)


@Check(
    name="eligibility",
    section="eligibility",
    severities=f"{_SEVERITY.eligibility_failing} (`eligibilityFailing`); {_SEVERITY.eligibility}: duration",
    key="`errors`, `throttles`, `unknown`, `duration`",
    runbook="eligibility.md",
    several="things are wrong with checkEligibility",
    reads=("function",),
    # An outage of CloudWatch hides no outage of ours by itself.
    slack_seconds=inf,
)
def eligibility(context: Context, read: FunctionState | None) -> Iterator[Finding]:
    """Fires when of the calls of checkEligibility within 5 min, or of their verdicts, more than `errorRate`
    ({alerts.error_rate:.0%}) and at least `errorItems` ({alerts.error_items}) ended in an error, were throttled, or
    were UNKNOWN; or the p95 of their duration is above `batchShare` ({alerts.batch_share:.0%}) of its time-out.

    One finding each for errors, throttled calls, UNKNOWN verdicts, and calls that take too long.
    """
    if read is None:
        return
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
            yield Finding(
                subject,
                context.severity.eligibility_failing,
                f"{number} of {of} {what} within {duration(read.window_seconds)}",
                {subject: number, "calls": read.calls},
                because if subject == "unknown" else (),
                row="",
            )
    p95, limit = read.duration_p95_seconds, limits.batch_share * read.limit_seconds
    if p95 is not None and p95 > limit:
        yield Finding(
            "duration",
            context.severity.eligibility,
            f"calls of checkEligibility take {p95:.1f} s (p95), of {read.limit_seconds:g} s that they may",
            {"p95Seconds": round(p95, 3), "limitSeconds": read.limit_seconds},
            because,
            row="",
        )


@Check(
    name="log-lines",
    section="logs",
    fires=f"no line of a pod came to the log group for {duration(LINES_SECONDS)}, where an agent collects them "
    "(outside of local-dev); at two evaluations",
    key="log-group",
    runbook="log-lines.md",
    several="log groups get no lines",
    reads=("lines",),
    patient=True,
)
def lines(context: Context, read: LinesState | None) -> Iterator[Finding]:
    if read is not None and not read.arrived:
        yield Finding(
            "log-group",
            context.severity.log_lines,
            f"no line of a pod came to {read.log_group} for {duration(read.window_seconds)}: the log agent does not "
            "run, or may not write",
            {"logGroup": read.log_group},
            row="",
        )


@Check(
    name="error-lines",
    severities=f"{_SEVERITY.performance} (`performance`)",
    runbook="README.md",
    reads=("patterns", "patterns_before"),
)
def new_lines(context: Context, now: Counter[Pattern], before: Counter[Pattern]) -> Iterator[Finding]:
    """Fires when a pattern of error lines is new, or one of error or warning lines has twice as many as in the period
    before, and ten more.
    """
    for pattern, number in now.most_common():
        was, text = (
            before[pattern],
            " ".join(filter(None, (pattern.worker, f"`{pattern.event}`", pattern.about))),
        )
        lines = f"{text}, {counted(number, 'line')}"
        if not was and pattern.level == "ERROR":
            yield Finding(text, context.severity.performance, f"new this week: {lines}")
        elif was and number >= max(_MORE * was, was + _FEW_LINES):
            yield Finding(text, context.severity.performance, f"more than the week before ({was:,}): {lines}")
