"""Who is measured: two floors of bare clients (`both.py` has them at once), the drain, and what it replaces. Each takes
every message off its queue or puts every event on its topics; it connects and prepares before the clock starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol
from unittest.mock import patch

import boto3
import orjson
from confluent_kafka import Producer

from benchmarks.analytics.data import PER_MESSAGE, event, message, signer
from regworkers_core.analytics import publishing
from regworkers_core.analytics.publishing import PUBLISH, publisher
from regworkers_core.domain.messages import MAX_ITEMS, MessageType
from regworkers_core.drains.runner import drain_limits, run_drain
from regworkers_core.engine.handling import Requested
from regworkers_core.engine.queue import Received
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime

_RECEIVE = 10
_VISIBILITY_SECONDS = 600
Headers = list[tuple[str, str | bytes | None]]
_OPTIONS = {"enable.idempotence": True, "acks": "all", "compression.type": "lz4", "log_level": 0}


class Contestant(Protocol):
    name: str

    def load(self, first: int, messages: int) -> None: ...

    def run(self) -> float:
        """Seconds that all of it took. Raises RuntimeError when not all was done."""
        ...


class BareQueue:
    """Receive and delete in full batches, by as many threads as the drain has, through unmodified boto3."""

    name = "sqs"

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        aws = runtime.settings.aws
        session = boto3.Session(
            region_name=aws.region, aws_access_key_id="test", aws_secret_access_key="test"
        )
        self._client = session.client("sqs", endpoint_url=aws.endpoint_url)
        self._url = self._client.get_queue_url(QueueName=runtime.names.analytics_queue)["QueueUrl"]
        self._messages = 0

    def load(self, first: int, messages: int) -> None:
        fill(self._runtime, first, messages)
        self.expect(messages)

    def expect(self, messages: int) -> None:
        """The number of messages on the queue."""
        self._messages = messages

    def run(self) -> float:
        def work(_: int) -> int:
            done = 0
            while batch := self._receive():
                entries = [
                    {"Id": str(index), "ReceiptHandle": each["ReceiptHandle"]}
                    for index, each in enumerate(batch)
                ]
                self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
                done += len(batch)
            return done

        threads = self._runtime.settings.analytics.concurrency
        with ThreadPoolExecutor(threads) as pool:
            started = time.monotonic()
            done = sum(pool.map(work, range(threads)))
            seconds = time.monotonic() - started
        return checked(done, self._messages, seconds)

    def _receive(self) -> list[dict[str, Any]]:
        answer = self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=_RECEIVE,
            VisibilityTimeout=_VISIBILITY_SECONDS,
            MessageAttributeNames=["All"],
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages


class BareProducer:
    """The same bytes under the same keys and headers; idempotent, all replicas, one callback for all."""

    name = "kafka"

    def __init__(self, runtime: Runtime) -> None:
        self._topic = runtime.names.topic("entries")
        self._producer = Producer({"bootstrap.servers": runtime.settings.kafka.bootstrap, **_OPTIONS})
        self._records: list[tuple[bytes, str, Headers]] = []

    def load(self, first: int, messages: int) -> None:
        start = first * PER_MESSAGE
        self._records = [record(event(start + number)) for number in range(messages * PER_MESSAGE)]
        # Connect and get a producer id first, which takes half a second.
        self._producer.produce(self._topic, b"warm-up")
        self._producer.flush()

    def run(self) -> float:
        delivered = 0

        def report(error: Any, _message: Any) -> None:
            nonlocal delivered
            delivered += error is None

        started = time.monotonic()
        for value, key, headers in self._records:
            while True:
                try:
                    self._producer.produce(self._topic, value, key, headers=headers, on_delivery=report)
                    break
                except BufferError:
                    self._producer.poll(0.01)
            self._producer.poll(0)
        self._producer.flush()
        return checked(delivered, len(self._records), time.monotonic() - started)


class Drain:
    """The product."""

    name = "drain"

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._messages = 0

    def load(self, first: int, messages: int) -> None:
        fill(self._runtime, first, messages)
        self._messages = messages
        handler = publisher(self._runtime)
        handler.handle(
            [Requested(handler.parse(event(first * PER_MESSAGE), MessageType.PUBLISH), "warm-up", "warm-up")]
        )

    def run(self) -> float:
        limits = drain_limits(self._runtime.settings, PUBLISH, idle_seconds=0.0, max_seconds=3600)
        steps: list[float] = []
        started = time.monotonic()
        report = run_drain(
            self._runtime,
            PUBLISH,
            limits,
            stop=StopSignal(),
            on_step=lambda _step: steps.append(time.monotonic()),
        )
        # Until its last batch: the idle wait at the end of a drain is not work.
        return checked(report.counts["sent"], self._messages * PER_MESSAGE, steps[-1] - started)


class Unchecked(Drain):
    """The product without its validation, which shows what that costs."""

    name = "unchecked"

    def run(self) -> float:
        with patch.object(publishing, "refusal", lambda _event: None):
            return super().run()


class OldShape:
    """A legacy worker: produces and flushes each record alone, then deletes its message."""

    name = "old"

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queue = runtime.queue(runtime.names.analytics_queue)
        self._topic = runtime.names.topic("entries")
        self._producer = Producer({"bootstrap.servers": runtime.settings.kafka.bootstrap, **_OPTIONS})
        self._messages = 0

    def load(self, first: int, messages: int) -> None:
        fill(self._runtime, first, messages)
        self._messages = messages
        self._producer.produce(self._topic, b"warm-up")
        self._producer.flush()

    def run(self) -> float:
        done = 0
        started = time.monotonic()
        while batch := self._queue.receive(1, 0, _VISIBILITY_SECONDS):
            for value, key, headers in _records_of(batch[0]):
                self._producer.produce(self._topic, value, key, headers=headers)
                self._producer.flush()
                done += 1
            self._queue.delete(batch)
        return checked(done, self._messages * PER_MESSAGE, time.monotonic() - started)


def fill(runtime: Runtime, first: int, messages: int) -> None:
    """Messages `first` and following onto the analytics queue."""
    queue, sign = runtime.queue(runtime.names.analytics_queue), signer(runtime)
    for start in range(first, first + messages, MAX_ITEMS):
        batch = [message(number, sign) for number in range(start, min(start + MAX_ITEMS, first + messages))]
        if queue.send(batch):
            raise RuntimeError("the queue did not take every message")


def record(made: dict[str, Any]) -> tuple[bytes, str, Headers]:
    headers: Headers = [
        ("content-type", b"application/cloudevents+json"),
        ("ce_id", made["id"].encode()),
        ("ce_type", made["type"].encode()),
        ("correlationId", made["correlationid"].encode()),
    ]
    return orjson.dumps(made), made["partitionkey"], headers


def checked(done: int, wanted: int, seconds: float) -> float:
    if done != wanted:
        raise RuntimeError(f"{done} of {wanted} done")
    return seconds


def _records_of(received: Received) -> Iterator[tuple[bytes, str, Headers]]:
    for made in orjson.loads(received.body)["items"]:
        yield record(made)
