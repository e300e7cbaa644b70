"""Searches logs, Dagster's storage, queues, artefacts, Kafka and metrics for fans' data and secrets.

A fan's data belongs into the demand table, the `entries` of the replica and the platform's own services, which are not
searched. A leak is reported by place and kind, never by its value.
"""

from __future__ import annotations

import io
import json
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from confluent_kafka import Consumer, TopicPartition

from regworkers_core.runtime import Runtime
from regworkers_local.dagster_server import DagsterProcess
from tools.demo.life import Console

# Patterns that must not be found, by kind.
Planted = Mapping[str, re.Pattern[bytes]]
Place = tuple[str, bytes]

# Files are read in pieces of this size, which overlap by more than the longest planted value.
_PIECE_BYTES = 8 * 1024 * 1024
_OVERLAP_BYTES = 4096
_QUEUE_ROUNDS = 2000
# Received messages stay hidden this long, so that each is read once. Nothing is deleted.
_HIDDEN_SECONDS = 120
_KAFKA_SILENT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, order=True)
class Leak:
    place: str
    kind: str


def exactly(values: Mapping[str, str]) -> Planted:
    """Patterns for these values, also as JSON in ASCII and URLs write them."""
    return {
        kind: re.compile(b"|".join(re.escape(form.encode()) for form in sorted(_forms(value))))
        for kind, value in values.items()
    }


def _forms(value: str) -> set[str]:
    return {value, json.dumps(value)[1:-1], urllib.parse.quote(value, safe=""), urllib.parse.quote(value)}


def find_leaks(places: Iterable[Place], planted: Planted) -> list[Leak]:
    """The leaks in `places`, each place and kind once."""
    return sorted(
        {
            Leak(name, kind)
            for name, content in places
            for kind, pattern in planted.items()
            if pattern.search(content)
        }
    )


def everywhere(runtime: Runtime, *folders: Path) -> Iterator[Place]:
    """Every place of a runtime's namespace, and every file in the folders."""
    for folder in folders:
        yield from in_files(folder)
    yield from in_queues(runtime)
    yield from in_objects(runtime)
    yield from in_kafka(runtime)
    yield from in_mongo(runtime)
    yield from in_redis(runtime)
    yield from in_leases(runtime)
    yield from in_metrics(runtime)


def in_files(folder: Path) -> Iterator[Place]:
    """The bytes of all files in a folder (logs, compute logs, Dagster's databases), or of one file.

    A file that is removed during the search, as SQLite does with its side files, is skipped.
    """
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        name = f"file {path.relative_to(folder) if path != folder else path.name}"
        with suppress(FileNotFoundError), path.open("rb") as file:
            before = b""
            while piece := file.read(_PIECE_BYTES):
                yield name, before + piece
                before = piece[-_OVERLAP_BYTES:]


def in_queues(runtime: Runtime) -> Iterator[Place]:
    """Every waiting message with its attributes."""
    for base in runtime.names.queues:
        for name in (base, runtime.names.dead_letter_queue(base)):
            url = runtime.sqs.get_queue_url(QueueName=name)["QueueUrl"]
            for _ in range(_QUEUE_ROUNDS):
                messages = runtime.sqs.receive_message(
                    QueueUrl=url,
                    MaxNumberOfMessages=10,
                    VisibilityTimeout=_HIDDEN_SECONDS,
                    MessageAttributeNames=["All"],
                ).get("Messages", ())
                if not messages:
                    break
                for message in messages:
                    yield f"queue {name}", message["Body"].encode()
                    yield f"queue {name}", repr(message).encode()


def in_objects(runtime: Runtime) -> Iterator[Place]:
    """Every object and its key; Parquet files by their values."""
    for key in runtime.objects.list(""):
        yield f"object {key}", key.encode()
        content = runtime.objects.get_bytes(key)
        if key.endswith(".parquet"):
            rows = pq.read_table(io.BytesIO(content)).to_pylist()
            content = "\n".join(map(repr, rows)).encode()
        yield f"object {key}", content


def in_kafka(runtime: Runtime) -> Iterator[Place]:
    """Every record with its key and headers."""
    consumer = Consumer(
        {
            "bootstrap.servers": str(runtime.settings.kafka.bootstrap),
            "group.id": "leaks",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        known = consumer.list_topics(timeout=_KAFKA_SILENT_SECONDS).topics
        parts = [
            TopicPartition(topic, number, 0)
            for topic in runtime.names.topics
            if topic in known
            for number in known[topic].partitions
        ]
        consumer.assign(parts)
        left = len(parts)
        while left:
            message = consumer.poll(_KAFKA_SILENT_SECONDS)
            if message is None:
                raise RuntimeError("Kafka does not answer: its records were not searched")
            if message.error() is not None:
                left -= 1
                continue
            where = f"topic {message.topic()}"
            yield where, message.key() or b""
            yield where, repr(message.headers()).encode()
            yield where, message.value() or b""
    finally:
        consumer.close()


def in_mongo(runtime: Runtime) -> Iterator[Place]:
    """Every collection but the entries themselves."""
    for name in sorted(runtime.database.list_collection_names()):
        if name != "entries":
            for document in runtime.database[name].find():
                yield f"collection {name}", repr(document).encode()


def in_redis(runtime: Runtime) -> Iterator[Place]:
    client = runtime.redis_client
    for key in client.scan_iter():
        name = key if isinstance(key, bytes) else str(key).encode()
        yield "redis", name
        if client.type(key) in (b"string", "string"):
            yield "redis", bytes(client.get(key) or b"")


def in_leases(runtime: Runtime) -> Iterator[Place]:
    pages = runtime.dynamodb.get_paginator("scan").paginate(TableName=runtime.names.lease_table)
    for page in pages:
        for item in page["Items"]:
            yield "lease table", repr(item).encode()


def in_metrics(runtime: Runtime) -> Iterator[Place]:
    """Names and dimensions of all metrics, and every line in our log groups."""
    cloudwatch = runtime.aws.client("cloudwatch")
    for page in cloudwatch.get_paginator("list_metrics").paginate():
        for metric in page["Metrics"]:
            yield "metrics", repr(metric).encode()
    logs = runtime.aws.client("logs")
    groups: list[dict[str, Any]] = logs.describe_log_groups(logGroupNamePrefix=runtime.names.log_group)[
        "logGroups"
    ]
    for group in groups:
        for event in logs.filter_log_events(logGroupName=group["logGroupName"])["events"]:
            yield "log group", str(event.get("message")).encode()


# As `load` makes them. Names are recognised by their field, because they are too many.
FANS: Planted = {
    "mail": re.compile(rb"[\w.+-]+@example\.com"),
    "name": re.compile(rb"""["'](?:first|last)Name\\*["']\s*:\s*\\*["']\w"""),
    "globalUserId": re.compile(rb"\bgu-[0-9a-f]{10}\b"),
    "memberId": re.compile(rb"(?<![\w-])m-[0-9a-f]{8}\b"),
    "unit": re.compile(rb"\bhousehold-\d+\b"),
}
# A leaf of a draw has its unit, which is not personal data by contract.
_DRAW_OBJECTS = ("object draws/", "object pipeline/")


def unexpected(leak: Leak) -> bool:
    return not (leak.kind == "unit" and leak.place.startswith(_DRAW_OBJECTS))


def nothing_leaked(runtime: Runtime, dagster: DagsterProcess, console: Console) -> bool:
    """Search for demo fans' data and print each leak. True if there is none. Waiting messages are hidden for two
    minutes.
    """
    searched: Counter[str] = Counter()

    def places() -> Iterator[Place]:
        for name, content in everywhere(runtime, dagster.storage, *dagster.folder.glob("dagster-*.log")):
            searched[name.partition(" ")[0]] += 1
            yield name, content

    leaks = [leak for leak in find_leaks(places(), FANS) if unexpected(leak)]
    counted = ", ".join(f"{number:,} of {what}" for what, number in sorted(searched.items()))
    console.print(f"searched for fans' data in {counted}: {'found' if leaks else 'none'}")
    for leak in leaks:
        console.print(f"a fan's {leak.kind} is in {leak.place}", markup=False)
    return not leaks
