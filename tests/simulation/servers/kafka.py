"""Kafka's brokers: topics with partitions, offsets, retention and settings, which keep no record twice that an
idempotent producer repeats."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

from confluent_kafka import KafkaError

from tests.simulation.gate import Gate

_CLUSTER_ID = "simulated-cluster-0001"
# What the brokers list of a topic without settings of its own.
DEFAULTS: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "compression.type": "producer",
    "delete.retention.ms": "86400000",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "min.insync.replicas": "1",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "segment.ms": "604800000",
    "unclean.leader.election.enable": "false",
}
Headers = list[tuple[str, bytes]] | None


class Record(NamedTuple):
    """`milliseconds` is when it was made."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    milliseconds: int


@dataclass(slots=True, eq=False)
class Partition:
    """Offsets from `low` up to `high` (exclusive)."""

    records: deque[Record] = field(default_factory=deque)
    low: int = 0
    high: int = 0
    # Of each idempotent producer, the last number that it sent, and its offset.
    numbers: dict[int, tuple[int, int]] = field(default_factory=dict)
    # While an election goes on there is none.
    has_leader: bool = True
    in_sync: bool = True

    def trim(self, low: int) -> None:
        """Drop records before this offset."""
        self.low = max(self.low, min(low, self.high))
        while self.records and self.records[0].offset < self.low:
            self.records.popleft()

    def behind(self, offset: int, most: int) -> list[Record]:
        """Up to `most` records from this offset on."""
        first = offset - self.records[0].offset if self.records else 0
        number = len(self.records)
        return [self.records[at] for at in range(max(first, 0), min(max(first, 0) + most, number))]


@dataclass(slots=True, eq=False)
class Topic:
    name: str
    partitions: list[Partition]
    replicas: int
    config: dict[str, str]

    @property
    def settings(self) -> dict[str, str]:
        return {**DEFAULTS, **self.config}


class Refusal(Exception):
    """A code of KafkaError and a text."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.error = KafkaError(code, text or None)


class Kafka:
    """The brokers of one cluster. Records have the time of the gate through which they came."""

    def __init__(self, *, brokers: int = 3, random: Random | None = None) -> None:
        self.brokers, self.random = brokers, random or Random(0)
        self.topics: dict[str, Topic] = {}
        self.cluster_id = _CLUSTER_ID
        self._producers = 0

    def producer(self, gate: Gate, options: Mapping[str, Any]) -> Any:
        """A process's producer with librdkafka's settings."""
        return self._clients.Producer(self, gate, options)

    def consumer(self, gate: Gate, options: Mapping[str, Any]) -> Any:
        return self._clients.Consumer(self, gate, options)

    def admin(self, gate: Gate) -> Any:
        return self._clients.AdminClient(self, gate)

    @property
    def _clients(self) -> Any:
        from tests.simulation.servers import kafka_client

        return kafka_client

    def producer_id(self) -> int:
        self._producers += 1
        return self._producers

    def create(self, name: str, partitions: int, replicas: int, config: Mapping[str, str]) -> Topic:
        """Raises Refusal."""
        if name in self.topics:
            raise Refusal(KafkaError.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
        if partitions < 1:
            raise Refusal(KafkaError.INVALID_PARTITIONS)
        if not 1 <= replicas <= self.brokers:
            raise Refusal(KafkaError.INVALID_REPLICATION_FACTOR)
        self.configure(config, {})
        topic = Topic(name, [Partition() for _ in range(partitions)], replicas, dict(config))
        self.topics[name] = topic
        return topic

    @staticmethod
    def configure(config: Mapping[str, str], into: dict[str, str]) -> None:
        """Raises Refusal for a setting that the brokers do not have."""
        unknown = sorted(config.keys() - DEFAULTS.keys())
        if unknown:
            raise Refusal(KafkaError.INVALID_CONFIG, f"Unknown topic config name: {unknown[0]}")
        into.update(config)

    def topic(self, name: str) -> Topic:
        """Raises Refusal."""
        found = self.topics.get(name)
        if found is None:
            raise Refusal(KafkaError.UNKNOWN_TOPIC_OR_PART)
        return found

    def partition(self, topic: str, number: int) -> Partition:
        """Raises Refusal."""
        partitions = self.topic(topic).partitions
        if not 0 <= number < len(partitions):
            raise Refusal(KafkaError.UNKNOWN_TOPIC_OR_PART)
        if not partitions[number].has_leader:
            raise Refusal(KafkaError.LEADER_NOT_AVAILABLE)
        return partitions[number]

    def partition_of(self, topic: Topic, key: bytes | None) -> int:
        """As librdkafka's default, `consistent_random`."""
        number = len(topic.partitions)
        return crc32(key) % number if key else self.random.randrange(number)

    def append(
        self, topic: str, number: int, made: Iterable[tuple[int, Record]], producer: int, now: float
    ) -> dict[int, int]:
        """Store records by the producer's numbers; one that is stored already keeps its place. Returns the offsets.
        Raises Refusal.
        """
        partition = self.partition(topic, number)
        settings = self.topics[topic].settings
        if not partition.in_sync and int(settings["min.insync.replicas"]) > 1:
            raise Refusal(KafkaError.NOT_ENOUGH_REPLICAS)
        offsets: dict[int, int] = {}
        last, last_offset = partition.numbers.get(producer, (-1, -1))
        for sequence, record in made:
            if sequence <= last:
                # A repeat of what was stored, whose answer was lost.
                offsets[sequence] = last_offset
                continue
            offset = partition.high
            partition.high += 1
            partition.records.append(record._replace(offset=offset))
            offsets[sequence] = last_offset = offset
            partition.numbers[producer] = (sequence, offset)
        self.retain(self.topics[topic], now)
        return offsets

    def retain(self, topic: Topic, now: float) -> None:
        """Drop what is older than the topic keeps it."""
        keep = int(topic.settings["retention.ms"])
        if keep < 0 or "delete" not in topic.settings["cleanup.policy"]:
            return
        oldest = int(now * 1000) - keep
        for partition in topic.partitions:
            while partition.records and partition.records[0].milliseconds < oldest:
                partition.low = partition.records.popleft().offset + 1

    def grow(self, name: str, partitions: int) -> None:
        """Raises Refusal."""
        topic = self.topic(name)
        if partitions <= len(topic.partitions):
            raise Refusal(KafkaError.INVALID_PARTITIONS)
        topic.partitions += [Partition() for _ in range(partitions - len(topic.partitions))]


class BrokerMetadata(NamedTuple):
    id: int
    host: str
    port: int


class PartitionMetadata(NamedTuple):
    id: int
    leader: int
    replicas: list[int]
    isrs: list[int]
    error: KafkaError | None = None


class TopicMetadata(NamedTuple):
    topic: str
    partitions: dict[int, PartitionMetadata]
    error: KafkaError | None = None


class ClusterMetadata(NamedTuple):
    cluster_id: str
    controller_id: int
    brokers: dict[int, BrokerMetadata]
    topics: dict[str, TopicMetadata]


def metadata(server: Kafka, gate: Gate, name: str | None) -> ClusterMetadata:
    """The answer of `list_topics`."""
    names = server.topics if name is None else (name,)
    topics = {}
    for each in names:
        topic = server.topics.get(each)
        if topic is None:
            topics[each] = TopicMetadata(each, {}, KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
            continue
        server.retain(topic, gate.now())
        replicas = list(range(1, topic.replicas + 1))
        topics[each] = TopicMetadata(
            each,
            {
                number: PartitionMetadata(
                    number,
                    1 if partition.has_leader else -1,
                    replicas,
                    replicas if partition.in_sync else replicas[:1],
                )
                for number, partition in enumerate(topic.partitions)
            },
        )
    brokers = {number: BrokerMetadata(number, "simulated", 9092) for number in range(1, server.brokers + 1)}
    return ClusterMetadata(server.cluster_id, 1, brokers, topics)
