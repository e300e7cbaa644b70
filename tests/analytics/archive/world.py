"""Events on real topics, and what the archive made of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import orjson
from confluent_kafka import Producer

from regworkers_core.analytics.archive.archiver import ArchiveReport, archive_events
from regworkers_core.analytics.archive.manifest import ArchiveManifest, read_manifest
from regworkers_core.analytics.archive.reading import frame
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime

DAY = "2026-11-20"


def event(number: int, **changes: Any) -> dict[str, Any]:
    """A whole event; `field=None` leaves the field out."""
    subject = f"summer:e{number}"
    fields = {
        "specversion": "1.0",
        "id": hashlib.sha256(f"event-{number}".encode()).hexdigest(),
        "source": "regworkers/replication",
        "type": "entry.replicated",
        "subject": subject,
        "time": f"{DAY}T08:00:{number % 60:02d}.123Z",
        "datacontenttype": "application/json",
        "partitionkey": subject,
        "correlationid": "corr-1",
        "data": {"campaignId": "summer", "entryId": f"e{number}", "markets": ["berlin"]},
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def produce(runtime: Runtime, *values: dict[str, Any] | bytes | None, topic: int = 0) -> None:
    """In this order onto one topic, acknowledged."""
    producer = Producer({"bootstrap.servers": str(runtime.settings.kafka.bootstrap), "acks": "all"})
    for value in values:
        body = orjson.dumps(value) if isinstance(value, dict) else value
        producer.produce(runtime.names.topics[topic], key=b"summer:e", value=body)
    assert producer.flush(10) == 0


def archived(runtime: Runtime, *, on_step: OnStep = no_step, **options: Any) -> ArchiveReport:
    """One run of the archive; its numbers must add up."""
    report = archive_events(runtime, run_id="test-run", on_step=on_step, **options)
    assert report.adds_up, report.as_dict()
    return report


def manifest_of(runtime: Runtime) -> ArchiveManifest:
    return read_manifest(runtime.objects)[0]


def ids_of(runtime: Runtime) -> Counter[str]:
    """Every row of the archive by its event's id."""
    return Counter(frame(runtime.objects, "SELECT id FROM events")["id"])


def wanted(*numbers: int) -> Counter[str]:
    """One row for each of these events."""
    return Counter(event(number)["id"] for number in numbers)
