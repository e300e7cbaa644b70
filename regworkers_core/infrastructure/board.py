"""The dashboard, in the order of the flow, and the saved queries of Logs Insights over the workers' JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from regworkers_core.domain.snapshot import OBJECTIVES
from regworkers_core.flows import DRAIN, RUN_JOBS
from regworkers_core.infrastructure.alarms import (
    Metric,
    of_function,
    of_queue,
    of_table,
    own,
)
from regworkers_core.observability.metrics import (
    BATCH_DURATION,
    BUDGET_LEFT,
    CONCURRENCY,
    DEPENDENCY_DOWN,
    DONE,
    DRAIN_SECONDS,
    EVALUATED,
    FAILED,
    INVOCATIONS,
    ITERATOR_AGE,
    LAG,
    RECEIVED,
    RETRIES,
    RUN_SECONDS,
    RUNS_FAILED,
    RUNS_SUCCEEDED,
    THROTTLES,
    UNKNOWN_VERDICTS,
    UNSENT,
    Instrument,
)
from regworkers_core.settings import Settings

# CloudWatch's grid is 24 wide.
_WIDTH, _HEIGHT = 8, 6
_PERIOD_SECONDS = 300
_Row = Sequence[tuple[str, Metric]]


def board_name(settings: Settings) -> str:
    return f"{settings.names.prefix}regworkers-overview"


def board(settings: Settings) -> dict[str, Any]:
    region, names = settings.aws.region, settings.names
    queues = [(queue.removeprefix(names.prefix), queue) for queue in names.queues]
    tables = (names.demand_table, names.lease_table)

    def of_drains(instrument: Instrument, statistic: str) -> _Row:
        return [(drain, own(settings, instrument, statistic, Drain=drain)) for drain in DRAIN]

    def of_batches(drain: str) -> _Row:
        return [(p, own(settings, BATCH_DURATION, p, Drain=drain)) for p in ("p50", "p95", "p99")]

    def of_queues(metric: str, statistic: str) -> _Row:
        return [(short, of_queue(queue, metric, statistic)) for short, queue in queues]

    def of_runs(instrument: Instrument, statistic: str) -> _Row:
        return [(job, own(settings, instrument, statistic, Job=job)) for job in RUN_JOBS]

    age = own(settings, ITERATOR_AGE, "Maximum", TableName=names.demand_table)
    charts: list[tuple[str, _Row]] = [
        ("Alerts evaluated", [("evaluations", own(settings, EVALUATED, "Sum"))]),
        (
            "Error budget left, %",
            [(each, own(settings, BUDGET_LEFT, "Minimum", Objective=each)) for each in OBJECTIVES],
        ),
        ("Stream: iterator age, ms", [("iterator age", age)]),
        ("Lag p95, s", of_drains(LAG, "p95")),
        ("Invocations (batches)", of_drains(INVOCATIONS, "Sum")),
        *((f"Batches of {drain}, s", of_batches(drain)) for drain in DRAIN),
        ("Concurrent executions (drains)", of_drains(CONCURRENCY, "Maximum")),
        ("Received", of_drains(RECEIVED, "Sum")),
        ("Done", of_drains(DONE, "Sum")),
        ("Failed", of_drains(FAILED, "Sum")),
        ("Queue depth", of_queues("ApproximateNumberOfMessagesVisible", "Maximum")),
        ("Messages in flight", of_queues("ApproximateNumberOfMessagesNotVisible", "Maximum")),
        ("Messages sent", of_queues("NumberOfMessagesSent", "Sum")),
        ("Messages deleted", of_queues("NumberOfMessagesDeleted", "Sum")),
        ("Oldest message, s", of_queues("ApproximateAgeOfOldestMessage", "Maximum")),
        (
            "Dead letters",
            [
                (short, of_queue(names.dead_letter_queue(queue), "ApproximateNumberOfMessagesVisible"))
                for short, queue in queues
            ],
        ),
        ("Runs succeeded", of_runs(RUNS_SUCCEEDED, "Sum")),
        ("Runs failed", of_runs(RUNS_FAILED, "Sum")),
        ("Runs: duration, s", of_runs(RUN_SECONDS, "Maximum")),
        ("Retries", of_drains(RETRIES, "Sum")),
        ("Throttled calls", of_drains(THROTTLES, "Sum")),
        ("Dead letters not sent", of_drains(UNSENT, "Sum")),
        ("Ended: dependency unavailable", of_drains(DEPENDENCY_DOWN, "Sum")),
        (
            "Tables: throttled",
            [
                (
                    f"{table.removeprefix(names.prefix)} {what.lower()}s",
                    of_table(table, f"{what}ThrottleEvents"),
                )
                for table in tables
                for what in ("Read", "Write")
            ],
        ),
        ("Duration of drains, s", of_drains(DRAIN_SECONDS, "Maximum")),
        (
            "checkEligibility: calls",
            [
                *((name, of_function(settings, name)) for name in ("Invocations", "Errors", "Throttles")),
                ("concurrent", of_function(settings, "ConcurrentExecutions", "Maximum")),
                ("UNKNOWN verdicts", own(settings, UNKNOWN_VERDICTS, "Sum")),
            ],
        ),
        (
            "checkEligibility: duration, ms",
            [(p, of_function(settings, "Duration", p)) for p in ("p50", "p95", "p99")],
        ),
        (
            "Lines in the log group",
            [("lines", Metric("AWS/Logs", "IncomingLogEvents", (("LogGroupName", names.log_group),), "Sum"))],
        ),
    ]
    widgets = [_chart(number, title, row, region) for number, (title, row) in enumerate(charts)]
    widgets.append(_get_records(len(charts), names.demand_table, region))
    widgets.append(_failures(len(charts) + 1, settings))
    return {"widgets": widgets}


def board_body(settings: Settings) -> str:
    return orjson.dumps(board(settings), option=orjson.OPT_SORT_KEYS).decode()


def _place(number: int) -> dict[str, int]:
    across = 24 // _WIDTH
    return {
        "x": number % across * _WIDTH,
        "y": number // across * _HEIGHT,
        "width": _WIDTH,
        "height": _HEIGHT,
    }


def _chart(number: int, title: str, row: _Row, region: str) -> dict[str, Any]:
    return {
        "type": "metric",
        **_place(number),
        "properties": {
            "title": title,
            "region": region,
            "view": "timeSeries",
            "period": _PERIOD_SECONDS,
            "metrics": [metric.widget_row(label) for label, metric in row],
        },
    }


def _get_records(number: int, table: str, region: str) -> dict[str, Any]:
    """What AWS counts of GetRecords. Searched for, because the label of a stream is not known before there is one;
    user errors have no dimensions, so they are those of the whole account.
    """

    def search(metric: str, statistic: str, label: str) -> list[Any]:
        terms = f'Namespace="AWS/DynamoDB" TableName="{table}" Operation="GetRecords" MetricName="{metric}"'
        return [{"expression": f"SEARCH('{terms}', '{statistic}', {_PERIOD_SECONDS})", "label": label}]

    chart = _chart(number, "GetRecords: success, records, errors", [], region)
    chart["properties"]["metrics"] = [
        search("SuccessfulRequestLatency", "SampleCount", "GetRecords.Success"),
        search("ReturnedRecordsCount", "Sum", "records"),
        search("SystemErrors", "Sum", "system errors"),
        Metric("AWS/DynamoDB", "UserErrors", (), "Sum").widget_row("UserErrors (account)"),
    ]
    return chart


def _failures(number: int, settings: Settings) -> dict[str, Any]:
    """The newest warnings and errors."""
    group = settings.names.log_group
    query = (
        f"SOURCE '{group}' | fields @timestamp, level, worker, event, error"
        ' | filter level in ["WARNING", "ERROR"] | sort @timestamp desc | limit 50'
    )
    return {
        "type": "log",
        **_place(number),
        "width": 24,
        "properties": {
            "title": "Warnings and errors",
            "region": settings.aws.region,
            "query": query,
            "view": "table",
        },
    }


# Also the placeholder of the saved query.
ANY_CORRELATION_ID = "<correlation id>"
SLOW_MS = 5000


def by_correlation_id(correlation_id: str) -> str:
    """The query for all lines of one entry. Characters that could end the literal are removed from the id."""
    literal = correlation_id.replace("\\", "").replace('"', "")
    return _lines(
        "fields @timestamp, level, worker, event, campaignId, entryId, outcome, runId, trace_id, dependency, error",
        # The second part finds lines of several entries: a call's `correlationIds`.
        f'filter correlationId = "{literal}" or @message like "{literal}"',
        "sort @timestamp asc",
        "limit 1000",
    )


def saved_queries(settings: Settings) -> dict[str, str]:
    """The queries of the operations manual by name, with its limits, and one that counts; a folder for each
    environment.

    Our lines have no `@duration` as Lambda's do: batches, slow calls and checks log `durationMs`.
    """
    texts = {
        "failed invocations": _lines(
            "fields @timestamp, worker, event, runId, drain, ended, dependency, error, @message",
            "filter @message like /ERROR/",
            "sort @timestamp desc",
            "limit 100",
        ),
        "by correlation id": by_correlation_id(ANY_CORRELATION_ID),
        "SQS batch failures": _lines(
            "fields @timestamp, worker, runId, batchItemFailures, messages, durationMs",
            'filter batchItemFailures != "[]"',
            "sort @timestamp desc",
            "limit 100",
        ),
        "slow requests": _lines(
            "fields @timestamp, worker, event, dependency, durationMs, correlationId",
            f"filter durationMs > {SLOW_MS}",
            "sort durationMs desc",
            "limit 50",
        ),
        "batch failures per 5 min": _lines(
            'filter event in ["batch given back", "dead letters not confirmed", '
            '"the work failed without settling what it got", "receive failed"]',
            "stats count(*) as failures by bin(5m), worker, event",
            "sort @timestamp desc",
        ),
    }
    return {f"{settings.names.prefix}regworkers/{name}": text for name, text in texts.items()}


def _lines(*parts: str) -> str:
    return "\n| ".join(parts)
