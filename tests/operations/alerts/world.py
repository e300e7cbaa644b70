"""Snapshots in which all is well, and one thing less so."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.snapshot import (
    Alert,
    BeaconState,
    CampaignState,
    CertificateState,
    FunctionState,
    LinesState,
    ParityState,
    QueueState,
    SchedulerState,
    Snapshot,
    StreamState,
    TickState,
    Unread,
)
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.alerts.conditions import TABLE
from regworkers_core.operations.alerts.conditions.condition import Assessment, Check, Context
from regworkers_core.settings import Settings

NOW = 1_790_000_000.0
DAY = 86_400.0
SETTINGS = Settings(resource_prefix="qa-")
UNREAD = Unread("no answer")


def queue(name: str, waiting: int = 0, **facts: Any) -> QueueState:
    dead = name.endswith("-dlq")
    days = 14 if dead or name.startswith("analytics") else 4
    found = QueueState(f"qa-{name}", waiting, 0, 0, dead, days * DAY, oldest_seconds=0.0)
    return replace(found, **facts)


def drain(
    name: str,
    *,
    received: int = 0,
    failed: int = 0,
    dead_lettered: int = 0,
    batch_p95_seconds: float | None = None,
    **facts: Any,
) -> DrainWindow:
    counts = Counter(received=received, dead_lettered=dead_lettered, returned=failed - dead_lettered)
    p95s = [] if batch_p95_seconds is None else [batch_p95_seconds]
    return DrainWindow(name, 300.0, counts=counts, batch_p95s=p95s, **facts)


def ago(seconds: float) -> str:
    return iso(NOW - seconds)


WELL = Snapshot(
    at=iso(NOW),
    environment="qa",
    dependencies=dict.fromkeys(("dynamodb", "streams", "sqs", "mongo", "redis", "kafka", "s3")),
    queues=tuple(
        queue(f"{name}-queue{end}")
        for name in ("replication", "selection", "notification", "analytics")
        for end in ("", "-dlq")
    ),
    stream=StreamState(1, 0.0),
    leases=(),
    drains=tuple(drain(name) for name in ("enqueue", "save", "selections", "notifications", "publish")),
    campaigns=(CampaignState("spring", "OPEN", ago(DAY), None),),
    certificates=(CertificateState("qa", 90.0, "CN=regworkers"),),
    scheduler=SchedulerState({"SENSOR": ago(5)}, (TickState("save_entries_sensor", 3.0, ago(4)),)),
    parity=ParityState(ago(3600), {"not_yet": 3}),
    function=FunctionState(300.0, 5000, 2, 0, 1, 0.4, 29.0),
    lines=LinesState("/qa-regworkers", 900.0, arrived=True),
    beacon=BeaconState("quicknet", 1000, ago(2), 2.0, 600, 600),
)
_PARTS = (
    "queues",
    "stream",
    "archive",
    "leases",
    "drains",
    "fuses",
    "acknowledged",
    "messages_due",
    "pauses",
    "campaigns",
    "registrations",
    "certificates",
    "scheduler",
    "parity",
    "forged",
    "function",
    "lines",
    "beacon",
)
BLIND = replace(WELL, **dict.fromkeys(_PARTS, UNREAD))


def condition(name: str) -> Check:
    return next(each for each in TABLE if each.name == name)


def given(snapshot: Snapshot, **facts: Any) -> Context:
    return Context(snapshot, facts.pop("settings", SETTINGS), **facts)


def assessed(name: str, snapshot: Snapshot, **facts: Any) -> Assessment | Unread:
    return condition(name).assess(given(snapshot, **facts))


def found(name: str, snapshot: Snapshot, **facts: Any) -> list[tuple[str, str, str]]:
    """Subject, severity and line of each finding."""
    assessment = assessed(name, snapshot, **facts)
    assert isinstance(assessment, Assessment), assessment
    return [(each.subject, each.severity.value, each.summary) for each in assessment.findings]


def incident(alert: Alert, *, open: bool = True, resolved_at: str | None = None) -> Incident:
    return Incident(alert, open, 1, ago(600), ago(30), resolved_at, {})
