"""Metrics (our own, and those of AWS for queues and tables) and the alarms on them.

Alarms cover what the workers' own alerts cannot: an outage of the workers themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from regworkers_core.domain.snapshot import Severity
from regworkers_core.flows import DRAINS, RUN_JOBS, WATCHED_JOBS
from regworkers_core.infrastructure.desired import Facts, desired
from regworkers_core.observability.metrics import (
    DEPENDENCY_DOWN,
    EVALUATED,
    FAILED,
    ITERATOR_AGE,
    LAG,
    RETRIES,
    RUNS_FAILED,
    THROTTLES,
    UNKNOWN_VERDICTS,
    UNSENT,
    Instrument,
)
from regworkers_core.replication.drains import SAVE
from regworkers_core.settings import Settings


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of CloudWatch."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]  # (name, value), in CloudWatch's order
    statistic: str  # such as Sum or p95

    @property
    def is_percentile(self) -> bool:
        return self.statistic.startswith("p")

    def widget_row(self, label: str) -> list[Any]:
        flat = [part for pair in self.dimensions for part in pair]
        return [self.namespace, self.name, *flat, {"stat": self.statistic, "label": label}]


def own(settings: Settings, instrument: Instrument, statistic: str, **dimensions: str) -> Metric:
    """A metric that the workers publish."""
    named = (*dimensions.items(), ("Environment", settings.environment))
    return Metric(settings.observability.cloudwatch_namespace, instrument.name, named, statistic)


def of_queue(queue: str, name: str, statistic: str = "Maximum") -> Metric:
    return Metric("AWS/SQS", name, (("QueueName", queue),), statistic)


def of_table(table: str, name: str) -> Metric:
    return Metric("AWS/DynamoDB", name, (("TableName", table),), "Sum")


def of_function(settings: Settings, name: str, statistic: str = "Sum") -> Metric:
    return Metric("AWS/Lambda", name, (("FunctionName", desired(settings).function.name),), statistic)


Missing = Literal["breaching", "notBreaching", "ignore", "missing"]
_MINUTE, _FIVE_MINUTES = 60, 300
# More throttled calls than this in five minutes: a table or an account is too small.
_THROTTLES = 50
_RETRIES = 200
_AGE_SECONDS = 900.0
_DAY_SECONDS = 24 * 3600.0
# The alerts are evaluated about once a minute. A deployment is shorter than three silent periods.
_SILENT_PERIODS = 3


@dataclass(frozen=True, slots=True)
class Alarm:
    """It holds while the metric compares with the threshold in all of the periods."""

    name: str
    severity: Severity  # that of the corresponding condition, which decides the topics to notify
    description: str
    metric: Metric
    threshold: float  # in the unit of the metric
    seconds: int = _FIVE_MINUTES  # length of a period
    periods: int = 1  # how many in a row
    comparison: str = "GreaterThanThreshold"  # as CloudWatch writes it
    missing: Missing = "notBreaching"  # what a period without values counts as

    def request(self) -> dict[str, Any]:
        """The arguments of PutMetricAlarm. Terraform adds the topics."""
        return {
            "AlarmName": self.name,
            # With its severity, so that an alarm whose severity changed differs from the existing one.
            "AlarmDescription": f"{self.severity}: {self.description}",
            "Namespace": self.metric.namespace,
            "MetricName": self.metric.name,
            "Dimensions": [{"Name": name, "Value": value} for name, value in self.metric.dimensions],
            # A percentile has a parameter of its own.
            "ExtendedStatistic" if self.metric.is_percentile else "Statistic": self.metric.statistic,
            "Period": self.seconds,
            "EvaluationPeriods": self.periods,
            "Threshold": float(self.threshold),
            "ComparisonOperator": self.comparison,
            "TreatMissingData": self.missing,
        }

    @property
    def facts(self) -> Facts:
        return facts_of(self.request())


def facts_of(alarm: Mapping[str, Any]) -> Facts:
    """The facts of an alarm of CloudWatch's API. Its topics are not among them: each environment has its own."""
    dimensions = sorted(f"{each['Name']}={each['Value']}" for each in alarm.get("Dimensions") or ())
    statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic")
    return {
        "metric": f"{alarm.get('Namespace')} {alarm.get('MetricName')} {', '.join(dimensions)}".strip(),
        "holds": f"{statistic} {alarm.get('ComparisonOperator')} {float(alarm.get('Threshold', 0)):g}",
        "within": f"{alarm.get('EvaluationPeriods')} x {alarm.get('Period')} s",
        "missing": str(alarm.get("TreatMissingData") or "missing"),
        "description": str(alarm.get("AlarmDescription") or ""),
    }


def alarms(settings: Settings) -> list[Alarm]:
    """All alarms of one environment, in the order of the flow."""
    found = [
        *_of_evaluation(settings),
        *_of_stream(settings),
        *_of_queues(settings),
        *_of_drains(settings),
        *_of_runs(settings),
        *_of_tables(settings),
        *_of_function(settings),
        *_of_lines(settings),
    ]
    prefix = settings.names.prefix
    return [replace(each, name=f"{prefix}regworkers-{each.name}") for each in found]


def _of_evaluation(settings: Settings) -> Iterator[Alarm]:
    yield Alarm(
        "alerts-not-evaluated",
        settings.alerts.severity.watcher,
        "The alerts are not evaluated: Dagster's daemon or its sensors are down, so no other alert is sent either.",
        own(settings, EVALUATED, "Sum"),
        1,
        seconds=max(_MINUTE, _whole_minutes(settings.alerts.look_seconds * 2)),
        periods=_SILENT_PERIODS,
        comparison="LessThanThreshold",
        missing="breaching",
    )


def _of_stream(settings: Settings) -> Iterator[Alarm]:
    alerts = settings.alerts
    for name, severity, seconds in (
        ("stream-behind", alerts.severity.stream_lag, alerts.stream_lag_seconds),
        ("stream-far-behind", alerts.severity.worst_of("stream-lag"), alerts.stream_lag_critical_seconds),
    ):
        yield Alarm(
            name,
            severity,
            f"The oldest unread record of the stream is older than {seconds:g} s; after 24 h it is lost.",
            own(settings, ITERATOR_AGE, "Maximum", TableName=settings.names.demand_table),
            seconds * 1000,
            periods=2,
        )


def _of_queues(settings: Settings) -> Iterator[Alarm]:
    names, severity = settings.names, settings.alerts.severity
    for queue in names.queues:
        short = queue.removeprefix(names.prefix)
        depth = float(settings.alerts.queue_depth.of(short))
        yield Alarm(
            f"{short}-deep",
            severity.queue_depth,
            f"More than {depth:g} messages wait: run `regworkers doctor`, then see docs/operating.md.",
            of_queue(queue, "ApproximateNumberOfMessagesVisible"),
            depth,
            periods=2,
        )
        # Events wait for Kafka for days before it is urgent.
        age, level = _AGE_SECONDS, severity.performance
        if queue == names.analytics_queue:
            age, level = (14 - settings.analytics.warn_days_left) * _DAY_SECONDS, severity.data_loss
        yield Alarm(
            f"{short}-old",
            level,
            f"A message has waited for more than {age:g} s.",
            of_queue(queue, "ApproximateAgeOfOldestMessage"),
            age,
            periods=2,
        )
        yield Alarm(
            f"{short}-dlq-not-empty",
            severity.dead_letters,
            "Dead letters, each with its reason: see `regworkers dlq`.",
            of_queue(names.dead_letter_queue(queue), "ApproximateNumberOfMessagesVisible"),
            settings.alerts.dead_letters,
        )


_FAILS = "Items of this drain became dead letters or were given back, in three periods in a row."
_DOWN = "Runs of this drain end because a dependency is unavailable: run `regworkers doctor`."
_NOT_SENT = (
    "Dead letters could not be sent: their messages are received again until the queue's retention ends."
)
_THROTTLED = "AWS throttles calls of this drain: a table or an account is too small."
_RETRIED = "A dependency answers many calls only after a retry."


def _of_drains(settings: Settings) -> Iterator[Alarm]:
    severity = settings.alerts.severity
    for spec in DRAINS:
        down = severity.dependency_down_others if spec.can_wait else severity.dependency_down
        for name, level, description, instrument, threshold, periods in (
            ("fails", severity.performance, _FAILS, FAILED, 0, 3),
            ("without-a-dependency", down, _DOWN, DEPENDENCY_DOWN, 0, 2),
            ("dead-letters-not-sent", severity.dead_letters, _NOT_SENT, UNSENT, 0, 1),
            ("throttled", severity.performance, _THROTTLED, THROTTLES, _THROTTLES, 2),
            ("retries", severity.performance, _RETRIED, RETRIES, _RETRIES, 2),
        ):
            metric = own(settings, instrument, "Sum", Drain=spec.name)
            yield Alarm(f"{spec.name}-{name}", level, description, metric, threshold, periods=periods)
    objective = settings.replication.lag_objective_seconds
    yield Alarm(
        "replication-lags",
        severity.performance,
        f"The 95th percentile of the lag, from change to replica, is above {objective:g} s.",
        own(settings, LAG, "p95", Drain=SAVE.name),
        objective,
        periods=2,
    )


def _of_runs(settings: Settings) -> Iterator[Alarm]:
    for job in RUN_JOBS:
        draws = job in WATCHED_JOBS
        yield Alarm(
            f"{job.replace('_', '-')}-run-failed",
            settings.alerts.severity.selection_run if draws else settings.alerts.severity.performance,
            f"A run of {job} failed: its page in Dagster says why, and what to do.",
            own(settings, RUNS_FAILED, "Sum", Job=job),
            0,
        )


def _of_tables(settings: Settings) -> Iterator[Alarm]:
    for table in (settings.names.demand_table, settings.names.lease_table):
        short = table.removeprefix(settings.names.prefix)
        for what in ("Read", "Write"):
            yield Alarm(
                f"{short}-{what.lower()}s-throttled",
                settings.alerts.severity.performance,
                f"DynamoDB throttles {what.lower()}s of {table}, from any caller.",
                of_table(table, f"{what}ThrottleEvents"),
                _THROTTLES,
                periods=2,
            )


def _of_function(settings: Settings) -> Iterator[Alarm]:
    """Alarms of checkEligibility, with the limits of its condition as far as one metric shows them."""
    alerts, function = settings.alerts, desired(settings).function
    severity, most = alerts.severity.eligibility_failing, alerts.error_items - 1
    for name, level, description, metric, threshold, periods in (
        ("fails", severity, "Calls ended in an error.", of_function(settings, "Errors"), most, 1),
        (
            "throttled",
            severity,
            "Calls were throttled: callers got no answer.",
            of_function(settings, "Throttles"),
            most,
            1,
        ),
        (
            "answers-unknown",
            severity,
            "Verdicts were UNKNOWN: a dependency did not answer.",
            own(settings, UNKNOWN_VERDICTS, "Sum"),
            most,
            2,
        ),
        (
            "slow",
            alerts.severity.eligibility,
            "The 95th percentile of the duration, in ms, is close to the time-out.",
            of_function(settings, "Duration", "p95"),
            alerts.batch_share * function.timeout_seconds * 1000,
            2,
        ),
    ):
        text = f"checkEligibility: {description} See docs/runbooks/eligibility.md."
        yield Alarm(f"eligibility-{name}", level, text, metric, threshold, periods=periods)


def _of_lines(settings: Settings) -> Iterator[Alarm]:
    """Where an agent collects lines: every evaluation of the alerts writes one."""
    if settings.environment == "local-dev":
        return
    yield Alarm(
        "no-log-lines",
        settings.alerts.severity.log_lines,
        "No line came to the log group for 15 minutes: see docs/runbooks/log-lines.md.",
        Metric("AWS/Logs", "IncomingLogEvents", (("LogGroupName", settings.names.log_group),), "Sum"),
        1,
        periods=3,
        comparison="LessThanThreshold",
        missing="breaching",
    )


def _whole_minutes(seconds: float) -> int:
    return int(-(-seconds // _MINUTE) * _MINUTE)
