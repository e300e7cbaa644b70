"""What CloudWatch has of this environment: log lines of an entry, patterns of errors, states of alarms, and costs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import orjson

from fairdraw import scheduling
from fairdraw.documents import as_document
from regworkers_core.adapters.aws.answers import AwsRefusal, all_pages
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import Pattern
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime

# Fields that the workers write, without a fan's data. A line may come from anywhere: no other field is shown.
_SHOWN = (
    "level",
    "event",
    "worker",
    "runId",
    "correlationId",
    "messageId",
    "campaignId",
    "entryId",
    "trace_id",
    "outcome",
    "type",
    "queue",
    "reason",
    "error",
    "dependency",
    "attempt",
    "drain",
    "ended",
    "seconds",
    "durationMs",
    "batchItemFailures",
    "items",
    "checks",
)


@dataclass(frozen=True, slots=True)
class LogLine:
    """`at` is an ISO time, `where` a log stream."""

    at: str
    where: str
    fields: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        shown = {name: self.fields[name] for name in _SHOWN if name in self.fields}
        if "level" in shown:
            # Older lines have it in lower case.
            shown["level"] = str(shown["level"]).upper()
        return {"at": self.at, "where": self.where, **shown}


@dataclass(frozen=True, slots=True)
class Sought:
    """What to search for: lines with the correlation id, of the entry or of one of the messages, and the last line of
    each run."""

    # An ISO time.
    since: str
    correlation_id: str = ""
    message_ids: frozenset[str] = field(default_factory=frozenset)
    run_ids: frozenset[str] = field(default_factory=frozenset)
    # Campaign and entry id.
    entry: tuple[str, str] | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """Every matching line contains one of these."""
        entry_id = self.entry[1] if self.entry else ""
        found = (self.correlation_id, entry_id, *sorted(self.message_ids), *sorted(self.run_ids))
        return tuple(term for term in found if term)

    def wants(self, line: LogLine) -> bool:
        fields = line.fields
        if line.at < self.since:
            return False
        ids = fields.get("correlationIds")
        if self.correlation_id and (
            fields.get("correlationId") == self.correlation_id
            or (isinstance(ids, list) and self.correlation_id in ids)
        ):
            return True
        if fields.get("messageId") in self.message_ids:
            return True
        if self.entry is not None and (fields.get("campaignId"), fields.get("entryId")) == self.entry:
            return True
        return fields.get("runId") in self.run_ids and fields.get("event") == "drain ended"


def parse(text: str | bytes, where: str) -> LogLine | None:
    """None for a line that is not a JSON line of the workers."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("timestamp"), str):
        return None
    return LogLine(document["timestamp"], where, document)


MOST_LINES = 1000
_MOST_PAGES = 200
# CloudWatch's own patterns take the characters of ids as they are; these would end a quoted term.
_UNQUOTABLE = re.compile(r'["\\]')


@dataclass(frozen=True, slots=True)
class Lines:
    """Matching lines, oldest first. `source` is the log group; `cut`: there may be more."""

    source: str
    lines: tuple[LogLine, ...]
    cut: bool = False


def any_line(runtime: Runtime, since: float, streams: str) -> bool:
    """Whether a line came after `since` (epoch seconds) to a stream whose name begins with `streams`. Raises
    TransientFailure, also if CloudWatch has found none and is not at the end yet, and UsageError if the group is
    missing.
    """
    request: dict[str, Any] = {"startTime": int(since * 1000), "logStreamNamePrefix": streams, "limit": 1}
    for _ in range(_MOST_PAGES):
        answer = _page(runtime, **request)
        if answer.get("events"):
            return True
        if not answer.get("nextToken"):
            return False
        request["nextToken"] = answer["nextToken"]
    raise TransientFailure("logs", "CloudWatch searched for long and found no line so far")


def _page(runtime: Runtime, **request: Any) -> Mapping[str, Any]:
    group = runtime.names.log_group
    try:
        found: Mapping[str, Any] = runtime.dependency("logs").call(
            runtime.aws.client("logs").filter_log_events, logGroupName=group, **request
        )
    except AwsRefusal as error:
        if error.code == "ResourceNotFoundException":
            raise UsageError(f"there is no log group {group}: run `regworkers provision`") from None
        raise
    return found


def look_up(runtime: Runtime, sought: Sought) -> Lines:
    """Search the log group of this environment. Raises TransientFailure, and UsageError if the group is missing."""
    group = runtime.names.log_group
    started = int(datetime.fromisoformat(sought.since).timestamp() * 1000)
    found: dict[tuple[str, str], LogLine] = {}
    cut = False
    for term in sought.terms:
        if _UNQUOTABLE.search(term):
            if sought.entry is not None and term == sought.entry[1]:
                continue
            raise UsageError("CloudWatch cannot search for an id with a quotation mark or a backslash")
        request: dict[str, Any] = {"startTime": started, "filterPattern": f'"{term}"'}
        for _ in range(_MOST_PAGES):
            answer = _page(runtime, **request)
            for event in answer.get("events", ()):
                line = parse(event["message"], event.get("logStreamName", group))
                if line is not None and sought.wants(line):
                    found[line.at, event["message"]] = line
            if not answer.get("nextToken") or len(found) > MOST_LINES:
                break
            request["nextToken"] = answer["nextToken"]
        else:
            cut = True
    lines = sorted(found.values(), key=lambda line: line.at)
    return Lines(group, tuple(lines[-MOST_LINES:]), cut=cut or len(lines) > MOST_LINES)


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


class ErrorLines(NamedTuple):
    """Numbers by pattern. `lines` is the number of all lines; of more than `MOST_ERROR_LINES`, the newest were read."""

    patterns: Counter[Pattern]
    lines: int

    @property
    def cut(self) -> bool:
        return self.lines > self.patterns.total()


# The limit of a query of Logs Insights.
MOST_ERROR_LINES = 10_000
_QUERY = (
    "fields @timestamp, @message"
    r' | filter @message like /"level":"(ERROR|WARNING)"| - ERROR - |Traceback/'
    f" | sort @timestamp desc | limit {MOST_ERROR_LINES}"
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
