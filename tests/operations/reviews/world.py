"""A system with some history: minutes of drains, dead letters, incidents."""

from __future__ import annotations

import time
from typing import Any

from regworkers_core.adapters.mongo.activity import minute_of
from regworkers_core.adapters.mongo.dead_letters import RecordedFailure
from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.activity import DrainMinute, DrainWindow
from regworkers_core.domain.snapshot import Alert, Severity
from regworkers_core.domain.timestamps import iso
from regworkers_core.operation import Report
from regworkers_core.operations.health.activity import added_up
from regworkers_core.operations.reviews.sections import Section
from regworkers_core.runtime import Runtime

NOW = time.time()
DAY = 24 * 3600.0


def ago(days: float, *, now: float = NOW) -> str:
    return iso(now - days * DAY)


def minute(days_ago: float, **changes: Any) -> DrainMinute:
    """A minute in good health of the save drain."""
    values: dict[str, Any] = {
        "drain": "save",
        "run_id": "run-1",
        "minute": minute_of(NOW - days_ago * DAY),
        "counts": {"received": 1000, "applied": 1000, "cleared": 1000},
        "batches": 10,
        "batch_p95_seconds": 1.0,
        "batch_max_seconds": 2.0,
        "batch_limit_seconds": 60.0,
        "lag_p95_seconds": 3.0,
        "calls": {"sqs": 30, "dynamodb": 50, "mongo": 20},
        "waited_seconds": {"sqs": 2.0, "mongo": 9.0},
        **changes,
    }
    return DrainMinute(**values)


def day(days_ago: float = 1.0, **changes: Any) -> dict[str, dict[str, DrainWindow]]:
    """A day with that minute alone."""
    return {ago(days_ago)[:10]: added_up([minute(days_ago, **changes)], DAY)}


def failure(**changes: Any) -> RecordedFailure:
    values: dict[str, Any] = {
        "queue": "replication-queue",
        "reason": "INVALID_ENTRY",
        "error": "markets: expected a list, found a string",
        "fingerprint": "f1",
        "status": "open",
        "first_failed_at": ago(1),
        "last_failed_at": ago(1),
        "closed_at": None,
        **changes,
    }
    return RecordedFailure(**values)


def incident(key: str = "analytics:kafka", *, open: bool = True, **changes: Any) -> Incident:
    severity = changes.pop("severity", Severity.CRITICAL)
    values: dict[str, Any] = {
        "serial": 1,
        "opened_at": ago(0.5),
        "last_seen_at": ago(0),
        "resolved_at": None if open else ago(0.25),
        "notified": {},
        **changes,
    }
    return Incident(Alert(key, severity, "Kafka does not answer", "analytics.md"), open, **values)


def plant(runtime: Runtime) -> None:
    """The same on the servers: a week before and this one."""
    for days in (10.2, 9.2, 3.2, 2.2, 1.2):
        runtime.drain_log.put(minute(days, batch_p95_seconds=1.0 if days > 7 else 2.0))
        runtime.drain_log.put(minute(days, drain="enqueue", run_id="run-2", batch_p95_seconds=0.2))
    queue = runtime.names.replication_queue
    documents = [
        {
            "_id": f"failure-{number}",
            "queue": queue,
            "reason": "INVALID_ENTRY",
            "error": "markets: expected a list, found a string",
            "fingerprint": "f1",
            "status": "open" if number else "resolved",
            "firstFailedAt": ago(2),
            "lastFailedAt": ago(2),
            **({} if number else {"resolvedAt": ago(1)}),
        }
        for number in range(3)
    ]
    runtime.database["dead_letters"].insert_many(documents)
    runtime.sqs.send_message(
        QueueUrl=runtime.sqs.get_queue_url(QueueName=runtime.names.dead_letter_queue(queue))["QueueUrl"],
        MessageBody="{}",
    )
    alert = Alert("analytics:kafka", Severity.CRITICAL, "Kafka does not answer", "analytics.md")
    runtime.incidents.open(alert, ago(0.5), ["log"])


def said(section: Report | Section, level: str) -> list[str]:
    report = section.report if isinstance(section, Section) else section
    return [each.text for each in report.remarks if each.level == level]


def has(section: Report | Section, level: str, *words: str) -> bool:
    """Whether one remark of the level has all these words."""
    return any(all(word in text for word in words) for text in said(section, level))
