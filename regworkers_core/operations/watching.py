"""What CloudWatch itself knows of this environment: states of alarms, patterns of error lines, and what it costs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from fairdraw import scheduling
from fairdraw.documents import as_document
from regworkers_core.adapters.aws.answers import AwsRefusal, all_pages
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.logs import parse
from regworkers_core.runtime import Runtime


class AlarmState(NamedTuple):
    """An alarm of CloudWatch."""

    name: str
    severity: str
    # OK, ALARM or INSUFFICIENT_DATA.
    state: str
    # An ISO time.
    since: str


def _alarms(runtime: Runtime) -> list[Mapping[str, Any]]:
    """The alarms of this environment, as CloudWatch describes them. Raises TransientFailure."""
    return all_pages(
        partial(runtime.dependency("cloudwatch").call, runtime.aws.client("cloudwatch").describe_alarms),
        "MetricAlarms",
        ("NextToken", "NextToken"),
        AlarmNamePrefix=f"{runtime.names.prefix}regworkers-",
    )


def alarm_states(runtime: Runtime) -> list[AlarmState]:
    """The alarms of this environment that exist. Raises TransientFailure."""
    return [
        AlarmState(
            each["AlarmName"],
            # Its description begins with it.
            str(each.get("AlarmDescription") or "").partition(":")[0],
            str(each.get("StateValue") or "INSUFFICIENT_DATA"),
            iso(each["StateUpdatedTimestamp"].timestamp()) if "StateUpdatedTimestamp" in each else "",
        )
        for each in _alarms(runtime)
    ]


class Pattern(NamedTuple):
    """Lines that say the same."""

    # That of the log.
    level: str
    # Who wrote them.
    worker: str
    # What they say.
    event: str
    # The dependency, reason or error, with `#` for ids and numbers.
    about: str


class ErrorLines(NamedTuple):
    """Numbers by pattern. `lines` is the number of all lines; of more than `MOST_LINES`, the newest were read."""

    patterns: Counter[Pattern]
    lines: int

    @property
    def cut(self) -> bool:
        return self.lines > self.patterns.total()


# The limit of a query of Logs Insights.
MOST_LINES = 10_000
_QUERY = (
    "fields @timestamp, @message"
    r' | filter @message like /"level":"(ERROR|WARNING)"| - ERROR - |Traceback/'
    f" | sort @timestamp desc | limit {MOST_LINES}"
)
_QUERY_SECONDS, _LOOK_SECONDS = 60.0, 0.5
# Ids, hashes, numbers and what is quoted.
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|[0-9a-fA-F-]{12,}|\d+")
_LONGEST = 100


def error_lines(runtime: Runtime, since: float, until: float) -> ErrorLines:
    """The error and warning lines between two times (epoch seconds), grouped. Insights scans the whole time, which AWS
    bills by the GB. Raises TransientFailure, and UsageError without the log group.
    """
    client, call = runtime.aws.client("logs"), runtime.dependency("logs").call
    try:
        query_id = call(
            client.start_query,
            logGroupNames=[runtime.names.log_group],
            startTime=int(since),
            endTime=int(until),
            queryString=_QUERY,
        )["queryId"]
    except AwsRefusal as error:
        if error.code == "ResourceNotFoundException":
            missing = f"there is no log group {runtime.names.log_group}: run `regworkers provision`"
            raise UsageError(missing) from None
        raise
    for _ in range(int(_QUERY_SECONDS / _LOOK_SECONDS)):
        answer = call(client.get_query_results, queryId=query_id)
        if answer["status"] not in ("Scheduled", "Running"):
            break
        scheduling.sleep(_LOOK_SECONDS)
    if answer["status"] != "Complete":
        raise TransientFailure("logs", f"the query for error lines is {answer['status'].lower()}")
    rows = answer.get("results", ())
    texts = (field["value"] for row in rows for field in row if field["field"] == "@message")
    matched = int(answer.get("statistics", {}).get("recordsMatched", 0))
    return ErrorLines(Counter(map(pattern_of, texts)), max(matched, len(rows)))


def pattern_of(text: str) -> Pattern:
    line = parse(text, "")
    if line is None:
        # Dagster's own lines. Their text may contain anything.
        return Pattern("ERROR", "", "a line of Dagster or Python", "")
    fields = line.fields
    about = [str(fields[name]) for name in ("dependency", "reason", "outcome", "error") if fields.get(name)]
    return Pattern(
        str(fields.get("level", "")).upper(),
        str(fields.get("worker") or ""),
        str(fields.get("event") or ""),
        _VARIABLE.sub("#", " ".join(about))[:_LONGEST],
    )


# List prices in dollars: see runbooks/cost.py for date and region. By month, beyond free tiers.
ALARM_MONTH, METRIC_MONTH, DASHBOARD_MONTH = 0.10, 0.30, 3.00
INGESTED_GB, STORED_GB_MONTH = 0.50, 0.03
_MONTH_DAYS = 30.0
_GB = 1e9


@dataclass(frozen=True, slots=True)
class WatchingCost:
    """What CloudWatch has of this environment."""

    # The period of `ingested_bytes`.
    days: float
    # How many there are.
    alarms: int
    # How many there are.
    metrics: int
    # What is stored.
    stored_bytes: int
    # None: not known.
    ingested_bytes: float | None
    retention_days: int | None
    # The setting.
    log_level: str
    entry_log_rate: float

    def standing_dollars(self, days: float) -> float:
        """The cost of alarms, metrics, dashboard and stored lines in `days`, however many entries there are."""
        month = self.alarms * ALARM_MONTH + self.metrics * METRIC_MONTH + DASHBOARD_MONTH
        month += self.stored_bytes / _GB * STORED_GB_MONTH
        return month * days / _MONTH_DAYS

    def line_dollars(self, days: float) -> float:
        """The cost of the lines that came in `days`."""
        return (self.ingested_bytes or 0.0) / self.days * days / _GB * INGESTED_GB

    def facts(self) -> dict[str, object]:
        known = self.ingested_bytes is not None
        return {
            "alarms": self.alarms,
            "customMetrics": self.metrics,
            "ingestedGb": round((self.ingested_bytes or 0.0) / _GB, 3) if known else None,
            "storedGb": round(self.stored_bytes / _GB, 3),
            "logRetentionDays": self.retention_days,
            **as_document(self, "log_level", "entry_log_rate"),
        }


def watching_cost(runtime: Runtime, days: float) -> WatchingCost:
    """Raises TransientFailure, and AwsRefusal where AWS refuses a call."""
    observability, now = runtime.settings.observability, runtime.clock()
    cloudwatch, call = runtime.aws.client("cloudwatch"), runtime.dependency("cloudwatch").call
    metrics = all_pages(
        partial(call, cloudwatch.list_metrics),
        "Metrics",
        ("NextToken", "NextToken"),
        Namespace=observability.cloudwatch_namespace,
    )
    ours = [each for each in metrics if _is_of(each, runtime.settings.environment)]
    group = log_group(runtime) or {}
    points = call(
        cloudwatch.get_metric_statistics,
        Namespace="AWS/Logs",
        MetricName="IncomingBytes",
        Dimensions=[{"Name": "LogGroupName", "Value": runtime.names.log_group}],
        StartTime=datetime.fromtimestamp(now - days * 24 * 3600, UTC),
        EndTime=datetime.fromtimestamp(now, UTC),
        Period=24 * 3600,
        Statistics=["Sum"],
    ).get("Datapoints", ())
    return WatchingCost(
        days,
        alarms=len(alarm_states(runtime)),
        metrics=len(ours),
        stored_bytes=int(group.get("storedBytes", 0)),
        ingested_bytes=sum(point["Sum"] for point in points) if points else None,
        retention_days=group.get("retentionInDays"),
        log_level=observability.log_level,
        entry_log_rate=observability.entry_log_rate,
    )


def _is_of(metric: Mapping[str, Any], environment: str) -> bool:
    return any((each["Name"], each["Value"]) == ("Environment", environment) for each in metric["Dimensions"])


def log_group(runtime: Runtime) -> Mapping[str, Any] | None:
    """The log group as CloudWatch describes it; None if it is missing. Raises TransientFailure."""
    client, name = runtime.aws.client("logs"), runtime.names.log_group
    found = runtime.dependency("logs").call(client.describe_log_groups, logGroupNamePrefix=name)["logGroups"]
    return next((group for group in found if group["logGroupName"] == name), None)
