"""Reads the topics of a runtime from their beginning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from regworkers_core.runtime import Runtime
from tests.support.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Published:
    topic: str
    key: str
    value: bytes
    headers: Mapping[str, str]

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.value)
        return found


def published(runtime: Runtime) -> list[Published]:
    """All records, repeats included."""
    consumer = Consumer(
        {
            "bootstrap.servers": str(runtime.settings.kafka.bootstrap),
            "group.id": "test",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
        }
    )
    try:
        known = consumer.list_topics(timeout=10).topics
        places = [
            TopicPartition(topic, number, OFFSET_BEGINNING)
            for topic in runtime.names.topics
            for number in known[topic].partitions
        ]
        consumer.assign(places)
        found: list[Published] = []
        ended: set[tuple[str, int]] = set()

        def all_read() -> bool:
            for message in consumer.consume(500, timeout=0.1):
                error = message.error()
                if error is None:
                    headers = {name: value.decode() for name, value in message.headers() or ()}
                    found.append(Published(message.topic(), message.key().decode(), message.value(), headers))
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add((message.topic(), message.partition()))
            return len(ended) == len(places)

        wait_until(all_read, what="the end of every partition")
        return found
    finally:
        consumer.close()
