"""What only AWS knows: how checkEligibility does, which is a Lambda function, and whether lines of pods arrive."""

from __future__ import annotations

from regworkers_core.domain.snapshot import FunctionState, LinesState
from regworkers_core.infrastructure.desired import desired
from regworkers_core.observability.metrics import UNKNOWN_VERDICTS
from regworkers_core.operations.logs import any_line
from regworkers_core.runtime import Runtime

WINDOW_SECONDS = 300.0
# Each evaluation of the alerts writes a line, about once a minute.
LINES_SECONDS = 900.0
# The agent of deploy/kubernetes/logs.yaml begins the name of each of its streams with it.
POD_STREAMS = "pods-"
# CloudWatch has the numbers of a minute up to two minutes later.
_LATE_SECONDS = 120.0


def read_function(runtime: Runtime) -> FunctionState | None:
    """checkEligibility within the last minutes that CloudWatch knows; None where CloudWatch is off. Raises
    TransientFailure.
    """
    metrics, settings = runtime.metrics, runtime.settings
    if not metrics.enabled:
        return None
    function = desired(settings).function
    now, seconds = runtime.clock(), WINDOW_SECONDS + _LATE_SECONDS

    def of_lambda(metric: str, statistic: str = "Sum") -> list[float]:
        where = {"FunctionName": function.name}
        return metrics.values("AWS/Lambda", metric, where, statistic, now, seconds)

    durations = of_lambda("Duration", "p95")
    return FunctionState(
        WINDOW_SECONDS,
        calls=round(sum(of_lambda("Invocations"))),
        errors=round(sum(of_lambda("Errors"))),
        throttles=round(sum(of_lambda("Throttles"))),
        unknown=round(sum(metrics.own_values(UNKNOWN_VERDICTS, now, seconds))),
        # The worst minute: percentiles of minutes cannot be combined.
        duration_p95_seconds=max(durations) / 1000 if durations else None,
        limit_seconds=float(function.timeout_seconds),
    )


def read_lines(runtime: Runtime) -> LinesState | None:
    """Whether a line of a pod has arrived; None where no agent collects them. Raises TransientFailure."""
    if runtime.settings.observability.cloudwatch_logs != "commands":
        return None
    arrived = any_line(runtime, runtime.clock() - LINES_SECONDS, POD_STREAMS)
    return LinesState(runtime.names.log_group, LINES_SECONDS, arrived)
