"""Metrics on their way to CloudWatch and to OpenTelemetry, and what AWS measures of a queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from regworkers_core.engine.dependency import Dependency
from regworkers_core.observability.logs import describe
from regworkers_core.observability.metrics import Histogram, Instrument, Metering, export

log = structlog.get_logger(__name__)
# SQS reports every minute or five, some minutes late.
_LOOK_BACK_SECONDS = 900.0
# Limits of PutMetricData: metrics of a call, different values of a metric.
_CALL_METRICS, _VALUES = 1000, 150


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


class Metrics:
    """Puts readings. With `client` None, CloudWatch gets none."""

    def __init__(self, client: Any, dependency: Dependency, namespace: str, environment: str) -> None:
        self._client = client
        self._dependency = dependency
        self._namespace = namespace
        self._environment = environment

    def put(self, readings: Sequence[Metering]) -> None:
        """CloudWatch adds the dimension `Environment`. A metric that cannot be put is logged and lost: it must never
        fail a drain.
        """
        for reading in readings:
            export(reading)
        if self._client is None:
            return
        data = [self._datum(reading) for reading in readings]
        for begin in range(0, len(data), _CALL_METRICS):
            some = data[begin : begin + _CALL_METRICS]
            try:
                self._dependency.once(
                    self._client.put_metric_data, Namespace=self._namespace, MetricData=some
                )
            except Exception as error:
                log.warning("metrics not published", error=describe(error))

    @property
    def enabled(self) -> bool:
        return self._client is not None

    def _datum(self, reading: Metering) -> dict[str, Any]:
        named = {**reading.dimensions, "Environment": self._environment}
        value = reading.value
        return {
            "MetricName": reading.instrument.name,
            "Unit": reading.instrument.unit,
            "Dimensions": [{"Name": name, "Value": text} for name, text in named.items()],
            **({"Value": float(value)} if isinstance(value, int | float) else _distribution(value)),
        }

    def oldest_message_seconds(self, queue: str, now: float) -> float | None:
        """SQS's own `ApproximateAgeOfOldestMessage`, the latest of the last quarter of an hour; None without one.

        Raises TransientFailure.
        """
        if self._client is None:
            return None
        where = {"QueueName": queue}
        ages = self.values(
            "AWS/SQS", "ApproximateAgeOfOldestMessage", where, "Maximum", now, _LOOK_BACK_SECONDS
        )
        return ages[-1] if ages else None

    def own_values(self, instrument: Instrument, now: float, seconds: float) -> list[float]:
        """What `values` gives, for a counter of ours."""
        where = {"Environment": self._environment}
        return self.values(self._namespace, instrument.name, where, "Sum", now, seconds)

    def values(
        self,
        namespace: str,
        metric: str,
        where: Mapping[str, str],
        statistic: str,
        now: float,
        seconds: float,
    ) -> list[float]:
        """The value of each minute until `now` (epoch seconds) that has one, oldest first; `statistic` is `Sum`,
        `Maximum` or a percentile (`p95`). Raises TransientFailure.
        """
        percentile = statistic.startswith("p")
        answer = self._dependency.once(
            self._client.get_metric_statistics,
            Namespace=namespace,
            MetricName=metric,
            Dimensions=[{"Name": name, "Value": value} for name, value in where.items()],
            StartTime=datetime.fromtimestamp(now - seconds, UTC),
            EndTime=datetime.fromtimestamp(now, UTC),
            Period=60,
            **{"ExtendedStatistics" if percentile else "Statistics": [statistic]},
        )
        points = sorted(answer.get("Datapoints", ()), key=lambda point: point["Timestamp"])
        return [
            float(point["ExtendedStatistics"][statistic] if percentile else point[statistic])
            for point in points
        ]


def _distribution(value: Histogram) -> dict[str, list[float]]:
    """All values with their counts, of which CloudWatch computes percentiles; neighbours are joined above its limit."""
    found = list(value.buckets().items())
    size = -(-len(found) // _VALUES) or 1
    groups = [found[begin : begin + size] for begin in range(0, len(found), size)]
    return {
        "Values": [group[-1][0] for group in groups],
        "Counts": [float(sum(number for _, number in group)) for group in groups],
    }
