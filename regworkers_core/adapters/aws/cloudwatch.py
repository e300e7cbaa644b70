"""CloudWatch metrics: one call at the end of a drain, and of a check of a queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Strain:
    """Retried and throttled calls by dependency, and dead letters that their queue did not confirm."""

    retries: Mapping[str, int] = field(default_factory=dict)
    throttles: Mapping[str, int] = field(default_factory=dict)
    unsent_dead_letters: int = 0

    def since(self, before: Strain) -> Strain:
        """The difference to an earlier state, without dependencies at zero."""
        return Strain(
            _more(self.retries, before.retries),
            _more(self.throttles, before.throttles),
            self.unsent_dead_letters - before.unsent_dead_letters,
        )

    @property
    def any(self) -> bool:
        return bool(self.retries or self.throttles or self.unsent_dead_letters)


def _more(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {name: more for name, number in now.items() if (more := number - before.get(name, 0))}


class DrainMetrics:
    """Puts `Received`, `Done`, `Failed`, `Duration` (s), `LagP50|P95|P99` (s), `Retries`, `Throttles`,
    `FailedDeadLetterSends` and `DependencyDown` (1 for a drain that ended for it) with dimension `Drain`; the retries
    and throttles of a dependency that had any also with dimension `Dependency`.
    """

    def __init__(self, client: Any, dependency: Dependency, namespace: str, environment: str) -> None:
        self._client = client
        self._dependency = dependency
        self._namespace = namespace
        self._environment = environment

    def publish(self, report: DrainReport, strain: Strain | None = None) -> None:
        """A metric that cannot be put is logged and lost: it must never fail a drain."""
        strain = strain or Strain()
        values: Mapping[str, tuple[float | None, str]] = {
            "Received": (report.counts["received"], "Count"),
            "Done": (sum(report.counts[name] for name in DONE), "Count"),
            "Failed": (report.counts["dead_lettered"] + report.counts["returned"], "Count"),
            "Duration": (report.seconds, "Seconds"),
            **{f"Lag{name.upper()}": (value, "Seconds") for name, value in report.lag.summary().items()},
            "Retries": (sum(strain.retries.values()), "Count"),
            "Throttles": (sum(strain.throttles.values()), "Count"),
            "FailedDeadLetterSends": (strain.unsent_dead_letters, "Count"),
            "DependencyDown": (report.ended == "dependency_down", "Count"),
        }
        dimensions = [
            {"Name": "Drain", "Value": report.name},
            {"Name": "Environment", "Value": self._environment},
        ]
        data = _data(values, dimensions)
        for name, numbers in (("Retries", strain.retries), ("Throttles", strain.throttles)):
            for dependency, number in numbers.items():
                more = [*dimensions, {"Name": "Dependency", "Value": dependency}]
                data += _data({name: (number, "Count")}, more)
        self._put(data)

    def gauges(self, dimensions: Mapping[str, str], values: Mapping[str, tuple[float | None, str]]) -> None:
        """Put current values with their units, except None. Never raises, as `publish`."""
        named = {**dimensions, "Environment": self._environment}
        self._put(_data(values, [{"Name": name, "Value": value} for name, value in named.items()]))

    def oldest_message_seconds(self, queue: str, now: float) -> float | None:
        """SQS's own `ApproximateAgeOfOldestMessage`, the latest of the last quarter of an hour; None without one.

        Raises TransientFailure.
        """
        answer = self._dependency.once(
            self._client.get_metric_statistics,
            Namespace="AWS/SQS",
            MetricName="ApproximateAgeOfOldestMessage",
            Dimensions=[{"Name": "QueueName", "Value": queue}],
            StartTime=datetime.fromtimestamp(now - _LOOK_BACK_SECONDS, UTC),
            EndTime=datetime.fromtimestamp(now, UTC),
            Period=60,
            Statistics=["Maximum"],
        )
        latest = max(answer.get("Datapoints", ()), key=lambda point: point["Timestamp"], default=None)
        return None if latest is None else float(latest["Maximum"])

    def _put(self, data: Sequence[Mapping[str, Any]]) -> None:
        if not data:
            return
        try:
            self._dependency.once(self._client.put_metric_data, Namespace=self._namespace, MetricData=data)
        except Exception as error:
            log.warning("metrics not published", error=describe(error))


def _data(
    values: Mapping[str, tuple[float | None, str]], dimensions: Sequence[Mapping[str, str]]
) -> list[dict[str, Any]]:
    return [
        {"MetricName": name, "Value": float(value), "Unit": unit, "Dimensions": dimensions}
        for name, (value, unit) in values.items()
        if value is not None
    ]
