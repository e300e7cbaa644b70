"""CloudWatch metrics: one call at the end of a drain, and of a look at a queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from regworkers_core.engine.dependency import Dependency
from regworkers_core.engine.drain import DrainReport
from regworkers_core.observability.logs import describe

log = structlog.get_logger(__name__)
# SQS reports every minute or five, some minutes late.
_LOOK_BACK_SECONDS = 900.0
DONE = ("applied", "removed", "unchanged", "sent")


class DrainMetrics:
    """Puts `Received`, `Done`, `Failed`, `Duration` (s) and `LagP50|P95|P99` (s) with dimension `Drain`."""

    def __init__(self, client: Any, dependency: Dependency, namespace: str, environment: str) -> None:
        self._client = client
        self._dependency = dependency
        self._namespace = namespace
        self._environment = environment

    def publish(self, report: DrainReport) -> None:
        """A metric that cannot be put is logged and lost: it must never fail a drain."""
        values: Mapping[str, tuple[float | None, str]] = {
            "Received": (report.counts["received"], "Count"),
            "Done": (sum(report.counts[name] for name in DONE), "Count"),
            "Failed": (report.counts["dead_lettered"] + report.counts["returned"], "Count"),
            "Duration": (report.seconds, "Seconds"),
            **{f"Lag{name.upper()}": (value, "Seconds") for name, value in report.lag.summary().items()},
        }
        dimensions = [
            {"Name": "Drain", "Value": report.name},
            {"Name": "Environment", "Value": self._environment},
        ]
        self._put(values, dimensions)

    def gauges(self, dimensions: Mapping[str, str], values: Mapping[str, tuple[float | None, str]]) -> None:
        """Put values with their units as they are now; None is left out. Never raises, as `publish`."""
        named = {**dimensions, "Environment": self._environment}
        self._put(values, [{"Name": name, "Value": value} for name, value in named.items()])

    def oldest_message_seconds(self, queue: str, now: float) -> float | None:
        """SQS's own `ApproximateAgeOfOldestMessage`, the latest of the last quarter of an hour; None without one.

        Raises TransientFailure.
        """
        answer = self._dependency.call(
            lambda: self._client.get_metric_statistics(
                Namespace="AWS/SQS",
                MetricName="ApproximateAgeOfOldestMessage",
                Dimensions=[{"Name": "QueueName", "Value": queue}],
                StartTime=datetime.fromtimestamp(now - _LOOK_BACK_SECONDS, UTC),
                EndTime=datetime.fromtimestamp(now, UTC),
                Period=60,
                Statistics=["Maximum"],
            ),
            retry=False,
        )
        latest = max(answer.get("Datapoints", ()), key=lambda point: point["Timestamp"], default=None)
        return None if latest is None else float(latest["Maximum"])

    def _put(
        self, values: Mapping[str, tuple[float | None, str]], dimensions: Sequence[Mapping[str, str]]
    ) -> None:
        data = [
            {"MetricName": name, "Value": value, "Unit": unit, "Dimensions": dimensions}
            for name, (value, unit) in values.items()
            if value is not None
        ]
        if not data:
            return
        try:
            self._dependency.call(
                lambda: self._client.put_metric_data(Namespace=self._namespace, MetricData=data), retry=False
            )
        except Exception as error:
            log.warning("metrics not published", error=describe(error))
