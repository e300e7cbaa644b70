"""The dashboard, in the order of the flow, and the saved queries of Logs Insights over the workers' JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from regworkers_core.infrastructure.dashboards.alarms import (
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
from regworkers_core.settings import Settings

# CloudWatch's grid is 24 wide.
_WIDTH, _HEIGHT = 8, 6
_PERIOD_SECONDS = 300
_Row = Sequence[tuple[str, Metric]]


def board_name(settings: Settings) -> str:
    return f"{settings.names.prefix}regworkers-overview"


def board(settings: Settings) -> dict[str, Any]:
    """The body of the dashboard."""
    region, names = settings.aws.region, settings.names
    queues = [(queue.removeprefix(names.prefix), queue) for queue in names.queues]
    tables = (names.demand_table, names.lease_table)

    def of_drains(metric: str, statistic: str) -> _Row:
        return [(drain, of_drain(settings, drain, metric, statistic)) for drain in DRAINS]

    charts: list[tuple[str, _Row]] = [
        ("Alerts evaluated", [("evaluations", of_environment(settings, HEARTBEAT, "Sum"))]),
        ("Stream: oldest unread, s", [("iterator age", of_stream(settings, ITERATOR_AGE, "Maximum"))]),
        ("Lag p95, s", of_drains("LagP95", "Maximum")),
        (
            "Queue depth",
            [(short, of_queue(queue, "ApproximateNumberOfMessagesVisible")) for short, queue in queues],
        ),
        (
            "Oldest message, s",
            [(short, of_queue(queue, "ApproximateAgeOfOldestMessage")) for short, queue in queues],
        ),
        (
            "Dead letters",
            [
                (short, of_queue(names.dead_letter_queue(queue), "ApproximateNumberOfMessagesVisible"))
                for short, queue in queues
            ],
        ),
        ("Received", of_drains("Received", "Sum")),
        ("Done", of_drains("Done", "Sum")),
        ("Failed", of_drains("Failed", "Sum")),
        ("Retries", of_drains("Retries", "Sum")),
        ("Throttled calls", of_drains("Throttles", "Sum")),
        ("Dead letters not sent", of_drains("FailedDeadLetterSends", "Sum")),
        ("Ended: dependency unavailable", of_drains("DependencyDown", "Sum")),
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
        ("Duration of drains, s", of_drains("Duration", "Maximum")),
    ]
    widgets = [_chart(number, title, row, region) for number, (title, row) in enumerate(charts)]
    widgets.append(_failures(len(charts), settings))
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


@dataclass(frozen=True, slots=True)
class SavedQuery:
    name: str
    text: str
    log_group: str

    def request(self) -> dict[str, Any]:
        """The arguments of PutQueryDefinition."""
        return {"name": self.name, "queryString": self.text, "logGroupNames": [self.log_group]}


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


def saved_queries(settings: Settings) -> list[SavedQuery]:
    """The queries of the operations manual, with its limits, and one that counts; a folder for each environment.

    Our lines have no `@duration` as Lambda's do: batches, slow calls and checks log `durationMs`.
    """
    group = settings.names.log_group
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
    return [
        SavedQuery(f"{settings.names.prefix}regworkers/{name}", text, group) for name, text in texts.items()
    ]


def _lines(*parts: str) -> str:
    return "\n| ".join(parts)
