"""Alarms of CloudWatch. They hold where the workers' own alerts cannot: when the workers themselves are away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from regworkers_core.domain.alert import Severity
from regworkers_core.infrastructure.dashboards.metrics import (
    DRAINS,
    HEARTBEAT,
    ITERATOR_AGE,
    Metric,
    of_drain,
    of_environment,
    of_queue,
    of_stream,
    of_table,
)
from regworkers_core.infrastructure.desired import Facts
from regworkers_core.settings import Settings

Missing = Literal["breaching", "notBreaching", "ignore", "missing"]
_MINUTE, _FIVE_MINUTES = 60, 300
# Calls that AWS refused for now, within five minutes, above which a table or an account is too small.
_THROTTLES = 50
_RETRIES = 200
_AGE_SECONDS = 900.0
_DAY_SECONDS = 24 * 3600.0
# The alerts are evaluated every minute or so: three silent periods are no deployment.
_SILENT_PERIODS = 3


@dataclass(frozen=True, slots=True)
class Alarm:
    """Holds while `metric` is `comparison` the threshold in all of `periods` periods of `seconds` each. `severity` is
    that of the condition which sees the same, and says whom it tells.
    """

    name: str
    severity: Severity
    description: str
    metric: Metric
    threshold: float
    seconds: int = _FIVE_MINUTES
    periods: int = 1
    comparison: str = "GreaterThanThreshold"
    missing: Missing = "notBreaching"

    def request(self, actions: Sequence[str] = ()) -> dict[str, Any]:
        """What PutMetricAlarm takes. `actions` are told when it begins and when it ends."""
        return {
            "AlarmName": self.name,
            # With its level, so that an alarm whose level was changed differs from the one that stands.
            "AlarmDescription": f"{self.severity}: {self.description}",
            "Namespace": self.metric.namespace,
            "MetricName": self.metric.name,
            "Dimensions": [{"Name": name, "Value": value} for name, value in self.metric.dimensions],
            "Statistic": self.metric.statistic,
            "Period": self.seconds,
            "EvaluationPeriods": self.periods,
            "Threshold": float(self.threshold),
            "ComparisonOperator": self.comparison,
            "TreatMissingData": self.missing,
            "AlarmActions": list(actions),
            "OKActions": list(actions),
        }

    @property
    def facts(self) -> Facts:
        return facts_of(self.request())


def facts_of(alarm: Mapping[str, Any]) -> Facts:
    """Of an alarm in the terms of CloudWatch's API; whom it tells is left to each environment."""
    dimensions = sorted(f"{each['Name']}={each['Value']}" for each in alarm.get("Dimensions") or ())
    return {
        "metric": f"{alarm.get('Namespace')} {alarm.get('MetricName')} {', '.join(dimensions)}".strip(),
        "holds": f"{alarm.get('Statistic')} {alarm.get('ComparisonOperator')} {float(alarm.get('Threshold', 0)):g}",
        "within": f"{alarm.get('EvaluationPeriods')} x {alarm.get('Period')} s",
        "missing": str(alarm.get("TreatMissingData") or "missing"),
        "description": str(alarm.get("AlarmDescription") or ""),
    }


def alarms(settings: Settings) -> list[Alarm]:
    """All of one environment, in the order of the flow."""
    found = [
        *_of_the_watch(settings),
        *_of_the_stream(settings),
        *_of_queues(settings),
        *_of_drains(settings),
        *_of_tables(settings),
    ]
    prefix = settings.names.prefix
    return [replace(each, name=f"{prefix}regworkers-{each.name}") for each in found]


def _of_the_watch(settings: Settings) -> Iterator[Alarm]:
    yield Alarm(
        "nobody-watches",
        settings.alerts.severity.watcher,
        "The alerts are not evaluated: Dagster's daemon or its sensors are down, so no other alert is sent either.",
        of_environment(settings, HEARTBEAT, "Sum"),
        1,
        seconds=max(_MINUTE, _whole_minutes(settings.alerts.look_seconds * 2)),
        periods=_SILENT_PERIODS,
        comparison="LessThanThreshold",
        missing="breaching",
    )


def _of_the_stream(settings: Settings) -> Iterator[Alarm]:
    alerts = settings.alerts
    for name, severity, seconds in (
        ("stream-behind", alerts.severity.stream_lag, alerts.stream_lag_seconds),
        ("stream-far-behind", alerts.severity.worst_of("stream-lag"), alerts.stream_lag_critical_seconds),
    ):
        yield Alarm(
            name,
            severity,
            f"The oldest unread record of the stream is older than {seconds:g} s; after 24 h it is lost.",
            of_stream(settings, ITERATOR_AGE, "Maximum"),
            seconds,
            periods=2,
        )


def _of_queues(settings: Settings) -> Iterator[Alarm]:
    names, severity = settings.names, settings.alerts.severity
    for queue in names.queues:
        short = queue.removeprefix(names.prefix)
        depth = float(getattr(settings.alerts.queue_depth, short.removesuffix("-queue")))
        yield Alarm(
            f"{short}-deep",
            severity.queue_depth,
            f"More than {depth:g} messages wait: `regworkers doctor`, then docs/operating.md.",
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
            f"A message waits for more than {age:g} s.",
            of_queue(queue, "ApproximateAgeOfOldestMessage"),
            age,
            periods=2,
        )
        yield Alarm(
            f"{short}-dlq-not-empty",
            severity.dead_letters,
            "Dead letters: each says its reason; `regworkers dlq`.",
            of_queue(names.dead_letter_queue(queue), "ApproximateNumberOfMessagesVisible"),
            settings.alerts.dead_letters,
        )


def _of_drains(settings: Settings) -> Iterator[Alarm]:
    severity = settings.alerts.severity
    for drain in DRAINS:
        yield Alarm(
            f"{drain}-fails",
            severity.performance,
            "Items of this drain became dead letters or went back, in three periods in a row.",
            of_drain(settings, drain, "Failed", "Sum"),
            0,
            periods=3,
        )
        yield Alarm(
            f"{drain}-without-a-dependency",
            # Events wait for Kafka, and nothing else does.
            severity.dependency_down_others if drain == "publish" else severity.dependency_down,
            "Runs of this drain end because a dependency is away: `regworkers doctor`.",
            of_drain(settings, drain, "DependencyDown", "Sum"),
            0,
            periods=2,
        )
        yield Alarm(
            f"{drain}-dead-letters-not-sent",
            severity.dead_letters,
            "Dead letters could not be sent: their messages come again until the queue's retention is over.",
            of_drain(settings, drain, "FailedDeadLetterSends", "Sum"),
            0,
        )
        yield Alarm(
            f"{drain}-throttled",
            severity.performance,
            "AWS refuses calls of this drain for now: a table or an account is too small.",
            of_drain(settings, drain, "Throttles", "Sum"),
            _THROTTLES,
            periods=2,
        )
        yield Alarm(
            f"{drain}-retries",
            severity.performance,
            "A dependency answers many calls only when they are repeated.",
            of_drain(settings, drain, "Retries", "Sum"),
            _RETRIES,
            periods=2,
        )
    objective = settings.replication.lag_objective_seconds
    yield Alarm(
        "replication-lags",
        severity.performance,
        f"A change took longer than {objective:g} s to the replica, at the 95th percentile of a drain.",
        of_drain(settings, "save", "LagP95", "Maximum"),
        objective,
        periods=2,
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


def _whole_minutes(seconds: float) -> int:
    return int(-(-seconds // _MINUTE) * _MINUTE)
