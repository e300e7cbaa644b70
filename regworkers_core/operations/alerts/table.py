"""The table of all conditions, which `make docs` writes into docs/alerts.md."""

from __future__ import annotations

from collections.abc import Sequence

from regworkers_core.domain.alert import Severity
from regworkers_core.domain.snapshot import (
    CORRECTNESS,
    DELIVERY,
    DRAWS,
    FRESHNESS,
    PAUSE_SECONDS,
    SELECTION_JOBS,
)
from regworkers_core.domain.timestamps import duration
from regworkers_core.engine.defects import MOST_DEFECTS, WINDOW_ITEMS
from regworkers_core.flows import DRAINS
from regworkers_core.operations.alerts.conditions import availability, campaigns, waiting, work
from regworkers_core.operations.alerts.conditions.condition import (
    BLIND,
    DEPENDENCY,
    FUSE,
    MONGO_AWAY,
    STALLED,
    Condition,
)
from regworkers_core.operations.alerts.conditions.objectives import or_burns
from regworkers_core.operations.health.sources import LINES_SECONDS
from regworkers_core.replication.drains import ENQUEUE
from regworkers_core.settings import AlertSettings, AnalyticsSettings, CertificatesSettings
from regworkers_core.settings.documents import snake

_LIMITS, _CERTIFICATES, _ANALYTICS = AlertSettings(), CertificatesSettings(), AnalyticsSettings()
_SEVERITY = _LIMITS.severity


def _link(objective: str) -> str:
    return f"[{objective}](#objectives)"


def _two_steps(first: Severity, where: str, second: Severity) -> str:
    """`warning; above 600 s critical`, of which the worse one counts."""
    return first.value if first is second else f"{first}; {where} {second}"


def _and(names: Sequence[str]) -> str:
    """`a`, `b` and `c`."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} and {last}" if others else last


def _stalled() -> str:
    """After how long which drains stand still."""
    by_setting: dict[str, list[str]] = {}
    for spec in DRAINS:
        if spec is not ENQUEUE:
            by_setting.setdefault(spec.stalled.partition(".")[2], []).append(spec.name)
    return ", ".join(
        f"{_and(names)} for `{setting}` ({duration(getattr(_LIMITS, snake(setting)))})"
        for setting, names in by_setting.items()
    )


MONGO_DOWN = Condition(
    name=MONGO_AWAY,
    fires="MongoDB, which stores the incidents, does not answer at two evaluations; every channel is notified directly",
    severity=_SEVERITY.mongo_away.value,
    key="mongo",
    runbook="time-outs.md",
    several="outages of MongoDB",
    assess=availability.mongo_down,
)
RENEWAL = Condition(
    name="certificate-renewal",
    fires="Kafka's brokers refuse a renewed certificate; opened and closed by a running producer, because a snapshot "
    "does not show it",
    severity=_SEVERITY.certificate_renewal.value,
    key="kafka",
    runbook="certificates.md",
    several="renewed certificates are refused",
    assess=availability.renewal,
)
TABLE: tuple[Condition, ...] = (
    MONGO_DOWN,
    Condition(
        name=DEPENDENCY,
        fires="a dependency does not answer at two evaluations, `patienceSeconds` "
        f"({_LIMITS.patience_seconds:.0f} s) apart",
        severity=f"{_SEVERITY.dependency_down}: DynamoDB, its streams, SQS, S3, MongoDB; "
        f"{_SEVERITY.dependency_down_others} (`dependencyDownOthers`): the others, unless they have a "
        "critical consequence",
        key="dependency",
        runbook="time-outs.md",
        several="dependencies do not answer",
        assess=availability.down,
        patient=True,
    ),
    Condition(
        name=BLIND,
        fires="the source of a condition, or of one of its subjects, could not be read for `blindSeconds` "
        f"({duration(_LIMITS.blind_seconds)}); one incident for each dependency that fails",
        severity="the highest of the affected conditions; of events that the archive has not read, that of the "
        "first step of `data-loss` until its second step may be near",
        key="dependency, `clock`, `machine` (too busy to judge), or the condition if no dependency failed",
        runbook="time-outs.md",
        several="causes keep conditions from being judged",
        assess=availability.blind,
        # A dependency that answers again but still cannot be read is a problem by itself.
        recovery=lambda limits: limits.blind_seconds,
    ),
    Condition(
        name="scheduler",
        fires="a daemon of Dagster is silent, a sensor that is switched on did not tick for `silentIntervals` "
        f"({_LIMITS.silent_intervals:g}) of its intervals and `silentSeconds` ({duration(_LIMITS.silent_seconds)}), a "
        "schedule one interval and 60 s after it was due, or its last tick failed; at two evaluations",
        severity=f"{_SEVERITY.scheduler}: daemons; {_SEVERITY.scheduler_ticks} (`schedulerTicks`): ticks",
        key="`daemons`, or the sensor or schedule",
        runbook="scheduler.md",
        several="sensors and schedules do not tick as they should",
        assess=availability.silent,
        timed=True,
        patient=True,
    ),
    Condition(
        name="watcher",
        fires="an evaluation from outside of Dagster finds that the sensor did not evaluate for `silentSeconds` "
        f"({duration(_LIMITS.silent_seconds)})",
        severity=_SEVERITY.watcher.value,
        key="alerts_sensor",
        runbook="scheduler.md",
        several="alert sensors are silent",
        assess=availability.watcher_silent,
        timed=True,
    ),
    Condition(
        name=FUSE,
        fires=f"a drain has stopped itself: one defect made more than {MOST_DEFECTS} of its last {WINDOW_ITEMS} items "
        "dead letters; closes when another code version runs, or after `regworkers drain resume`",
        severity=_SEVERITY.drain_fuse.value,
        key="drain",
        runbook="dead-letters.md",
        several="drains have stopped themselves",
        assess=work.blown_fuses,
    ),
    Condition(
        name="drain-paused",
        fires="a drain is still paused after the end of its pause (`drain pause --for`, "
        f"{duration(PAUSE_SECONDS)} if nothing is said); closes after `regworkers drain resume`",
        severity=_SEVERITY.drain_paused.value,
        key="drain",
        runbook="stream-lag.md",
        several="drains are paused",
        assess=work.overdue_pauses,
        timed=True,
    ),
    Condition(
        name=STALLED,
        fires=f"work is due and a drain acknowledges nothing of it, between two evaluations at least: {_stalled()}; "
        f"not while an operator keeps it paused, and of `{ENQUEUE.name}` it is `stream-lag`",
        severity=f"{_SEVERITY.drain_stalled}; {_SEVERITY.drain_stalled_analytics} (`drainStalledAnalytics`): "
        + _and([spec.name for spec in DRAINS if spec.can_wait]),
        key="drain",
        runbook="stream-lag.md",
        several="drains work nothing off",
        assess=waiting.not_worked_off,
    ),
    Condition(
        name="error-rate",
        fires=f"more than `errorRate` ({_LIMITS.error_rate:.0%}) of what a drain received within 5 min failed, and at "
        f"least `errorItems` ({_LIMITS.error_items}) items; or the budget of {_link(DELIVERY)} burns",
        severity=_SEVERITY.error_rate.value,
        key="drain",
        runbook="dead-letters.md",
        several="drains fail",
        assess=or_burns(DELIVERY, work.error_rate, same_events=True),
        timed=True,
    ),
    Condition(
        name="batch-time",
        fires=f"the p95 of a drain's batches is above `batchShare` ({_LIMITS.batch_share:.0%}) of the time that it "
        "owns a batch",
        severity=_SEVERITY.batch_time.value,
        key="drain",
        runbook="time-outs.md",
        several="drains are close to their time limit",
        assess=work.batch_time,
        timed=True,
    ),
    Condition(
        name="stream-lag",
        fires="the oldest unread record of the demand table's stream is older than `streamLagSeconds` "
        f"({_LIMITS.stream_lag_seconds:.0f} s); or records are unread and `enqueue` acknowledges nothing, as in "
        f"`{STALLED}`; or the budget of {_link(FRESHNESS)} burns",
        severity=_two_steps(
            _SEVERITY.stream_lag,
            f"above `streamLagCriticalSeconds` ({duration(_LIMITS.stream_lag_critical_seconds)})",
            _SEVERITY.stream_lag_critical,
        ),
        key="demand-table",
        runbook="stream-lag.md",
        several="streams lag",
        assess=or_burns(FRESHNESS, work.stream_lag),
        timed=True,
    ),
    Condition(
        name="queue-depth",
        fires="more messages wait than `queueDepth` of that queue: "
        + ", ".join(f"{name} {limit:,}" for name, limit in _LIMITS.queue_depth.model_dump().items()),
        severity=_SEVERITY.queue_depth.value,
        key="queue",
        runbook="stream-lag.md",
        several="queues are deep",
        assess=work.queue_depth,
    ),
    Condition(
        name="dead-letters",
        fires=f"more than `deadLetters` ({_LIMITS.dead_letters}) messages are on a dead-letter queue; or the budget "
        f"of {_link(CORRECTNESS)} burns",
        severity=_SEVERITY.dead_letters.value,
        key="dead-letter queue",
        runbook="dead-letters.md",
        several="dead-letter queues are not empty",
        assess=or_burns(CORRECTNESS, work.dead_letters),
    ),
    Condition(
        name="forged-events",
        fires="events on the analytics queue were signed by no role that may send them; closes when their dead letters "
        "are dropped or published",
        severity=_SEVERITY.forged_events.value,
        key="`analytics-queue`",
        runbook="dead-letters.md",
        several="events are forged",
        assess=work.forged_events,
    ),
    Condition(
        name="data-loss",
        fires="less of the retention is left than `lossShareLeft` "
        f"({_LIMITS.loss_share_left:.0%}) for the oldest item of the stream (24 h), of a queue, or of a topic before "
        "the archive reads it; of the analytics queue "
        f"`analytics.warnDaysLeft` ({_ANALYTICS.warn_days_left:g} days)",
        severity=_two_steps(
            _SEVERITY.data_loss,
            f"under `lossCriticalShareLeft` ({_LIMITS.loss_critical_share_left:.0%}), `analytics.criticalDaysLeft` "
            f"({_ANALYTICS.critical_days_left:g} days)",
            _SEVERITY.data_loss_critical,
        ),
        key="queue, topic, or `demand-table-stream`",
        runbook="stream-lag.md",
        several="queues are about to lose something",
        assess=work.data_loss,
        timed=True,
    ),
    Condition(
        name="analytics",
        fires="the analytics queue was not seen empty for so long that `analytics.warnDaysLeft` "
        f"({_ANALYTICS.warn_days_left:g} days) or less of its retention may be left: messages may be stuck",
        severity=f"{_SEVERITY.analytics_age} (`analyticsAge`)",
        key="age",
        runbook="kafka.md",
        several="analytics queues are never empty",
        assess=work.never_empty,
        timed=True,
    ),
    Condition(
        name=campaigns.RUNS,
        fires="the last run of a selection job failed, a day ago at most, for another reason than a config that is "
        "missing or wrong: "
        + ", ".join(f"`{job}`" for job in SELECTION_JOBS)
        + "; of a draw a week ago at most; unless its work was done since in another way: the phase is drawn, the "
        "markets are complete, the drain acknowledges again",
        severity=_SEVERITY.selection_run.value,
        key="job, or `<job>/<campaignId>`",
        runbook="selection-failures.md",
        several="selection runs failed",
        assess=campaigns.failed_runs,
    ),
    Condition(
        name="campaign-stuck",
        fires=f"a campaign is in PROCESSING for `stuckSeconds` ({duration(_LIMITS.stuck_seconds)}) and no run holds "
        "the lease of its draw, or the lease is not renewed; or codes for its winners are missing; or the budget of "
        f"{_link(DRAWS)} burns",
        severity=_SEVERITY.campaign_stuck.value,
        key="campaignId, or `all`",
        runbook="selection-failures.md",
        several="campaigns are stuck in PROCESSING",
        assess=or_burns(DRAWS, campaigns.stuck),
        timed=True,
    ),
    Condition(
        name="messages-waiting",
        fires="messages to fans wait for `messagesWaitSeconds` "
        f"({duration(_LIMITS.messages_wait_seconds)}) for a further phase that changes what they say, is drawn, and is "
        "not confirmed",
        severity=_SEVERITY.messages_waiting.value,
        key="campaignId",
        runbook="selection-failures.md",
        several="campaigns have messages that wait for a further phase",
        assess=campaigns.messages_waiting,
        timed=True,
    ),
    Condition(
        name="messages-failed",
        fires="a message to a fan raised an exception and is not retried",
        severity=_SEVERITY.messages_failed.value,
        key="campaignId",
        runbook="selection-failures.md",
        several="campaigns have messages that failed",
        assess=campaigns.messages_failed,
    ),
    Condition(
        name="selection-not-judged",
        fires="a phase is complete, and for `notJudgedSeconds` "
        f"({duration(_LIMITS.not_judged_seconds)}) evaluations saw that `check_selection` has not checked its codes "
        "and messages; closes when it has",
        severity=_SEVERITY.selection_not_judged.value,
        key="campaignId",
        runbook="selection-failures.md",
        several="campaigns completed and were not checked",
        assess=campaigns.not_judged,
    ),
    Condition(
        name=campaigns.INPUT_DIFFERS,
        fires="a file of a draw in the artefacts' bucket is not the one that the draw wrote, or is missing; the draw "
        "has stopped; closes when the step that found it succeeds",
        severity=_SEVERITY.draw_input_differs.value,
        key="campaignId",
        runbook="selection-failures.md",
        several="draws have stopped at a file that differs",
        assess=campaigns.input_differs,
    ),
    Condition(
        name="drift",
        fires=f"the last reconcile found that the replica differs from its source in `driftEntries` "
        f"({_LIMITS.drift_entries}) entries or more; or the second look of the drain `save` found that number "
        "within 5 min",
        severity=_two_steps(
            _SEVERITY.drift,
            f"from `driftCritical` ({_LIMITS.drift_critical}) entries on",
            _SEVERITY.drift_critical,
        ),
        key="`replica`, `save`",
        runbook="out-of-sync.md",
        several="replicas differ",
        assess=work.drift,
    ),
    Condition(
        name="certificates",
        fires="Kafka's client certificate expires in less than `certificates.warnDays` "
        f"({_CERTIFICATES.warn_days:g}), or cannot be used",
        severity=_two_steps(
            _SEVERITY.certificates,
            f"under `certificates.criticalDays` ({_CERTIFICATES.critical_days:g}), and when it cannot be used,",
            _SEVERITY.certificates_critical,
        ),
        key="`<environment>-ends`, `<environment>-trouble`",
        runbook="certificates.md",
        several="certificates need attention",
        assess=availability.certificates,
        timed=True,
    ),
    RENEWAL,
    Condition(
        name="eligibility",
        fires="of the calls of checkEligibility within 5 min, or of their verdicts, more than `errorRate` "
        f"({_LIMITS.error_rate:.0%}) and at least `errorItems` ({_LIMITS.error_items}) ended in an error, were "
        "throttled, or were UNKNOWN; or the p95 of their duration is above `batchShare` "
        f"({_LIMITS.batch_share:.0%}) of its time-out",
        severity=f"{_SEVERITY.eligibility_failing} (`eligibilityFailing`); {_SEVERITY.eligibility}: duration",
        key="`errors`, `throttles`, `unknown`, `duration`",
        runbook="eligibility.md",
        several="things are wrong with checkEligibility",
        assess=availability.eligibility,
    ),
    Condition(
        name="log-lines",
        fires=f"no line of a pod came to the log group for {duration(LINES_SECONDS)}, where an agent collects them "
        "(`observability.cloudwatchLogs` is `commands`); at two evaluations",
        severity=_SEVERITY.log_lines.value,
        key="log-group",
        runbook="log-lines.md",
        several="log groups get no lines",
        assess=availability.lines,
        patient=True,
    ),
)
