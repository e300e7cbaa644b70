"""CloudWatch metrics: one call at the end of a drain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from regworkers_core.engine.dependency import Dependency
from regworkers_core.engine.drain import DrainReport
from regworkers_core.observability.logs import describe

log = structlog.get_logger(__name__)
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
        data = [
            {"MetricName": name, "Value": value, "Unit": unit, "Dimensions": dimensions}
            for name, (value, unit) in values.items()
            if value is not None
        ]
        try:
            self._dependency.call(
                lambda: self._client.put_metric_data(Namespace=self._namespace, MetricData=data), retry=False
            )
        except Exception as error:
            log.warning("metrics not published", error=describe(error))
