"""The metrics that dashboards and alarms look at: our own, and those that AWS makes of queues and tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regworkers_core.settings import Settings

DRAINS = ("enqueue", "save", "selections", "notifications", "publish")
# Put by whoever evaluates the alerts, at every look: its absence is the alarm.
HEARTBEAT = "AlertsEvaluated"
ITERATOR_AGE = "IteratorAge"


@dataclass(frozen=True, slots=True)
class Metric:
    """`dimensions` by name, in CloudWatch's own order of appearance."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    statistic: str

    def widget_row(self, label: str) -> list[Any]:
        """As a dashboard has it."""
        flat = [part for pair in self.dimensions for part in pair]
        return [self.namespace, self.name, *flat, {"stat": self.statistic, "label": label}]


def of_drain(settings: Settings, drain: str, name: str, statistic: str) -> Metric:
    dimensions = (("Drain", drain), ("Environment", settings.environment))
    return Metric(settings.observability.cloudwatch_namespace, name, dimensions, statistic)


def of_environment(settings: Settings, name: str, statistic: str) -> Metric:
    dimensions = (("Environment", settings.environment),)
    return Metric(settings.observability.cloudwatch_namespace, name, dimensions, statistic)


def of_stream(settings: Settings, name: str, statistic: str) -> Metric:
    dimensions = (("Table", settings.names.demand_table), ("Environment", settings.environment))
    return Metric(settings.observability.cloudwatch_namespace, name, dimensions, statistic)


def of_queue(queue: str, name: str, statistic: str = "Maximum") -> Metric:
    return Metric("AWS/SQS", name, (("QueueName", queue),), statistic)


def of_table(table: str, name: str, statistic: str = "Sum") -> Metric:
    return Metric("AWS/DynamoDB", name, (("TableName", table),), statistic)
