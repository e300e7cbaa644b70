"""Reading Kafka topics as logs: by partition and offset, outside any consumer group.

Partitions are assigned, never subscribed to, and no offset is ever committed: the caller keeps its own position.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from confluent_kafka import (
    OFFSET_END,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from fairdraw import scheduling
from regworkers_core.adapters.kafka.admin import DEPENDENCY, classify_kafka, existing
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency
from regworkers_core.settings import KafkaSettings

_SILENT = logging.getLogger("regworkers.librdkafka")
# librdkafka fetches no more than this ahead, whatever the backlog.
_QUEUED_KIB = 16 * 1024
# The broker may hold back an empty answer for this long.
_FETCH_WAIT_MS = 50
# Where only the first record of each partition is wanted.
_PEEK: Mapping[str, int] = {"fetch.message.max.bytes": 64 * 1024, "queued.min.messages": 1}
_TAKEN = 500
_POLL_SECONDS = 0.1
# Connecting and finding the leaders precede the first answer.
_SILENT_TIMEOUTS = 2


class Partition(NamedTuple):
    topic: str
    number: int


class Span(NamedTuple):
    """Offsets from `start` up to `end` (exclusive)."""

    start: int
    end: int


class KafkaRecord(NamedTuple):
    """One record."""

    partition: Partition
    offset: int
    key: bytes | None  # may be None
    value: bytes | None  # may be None


class RecordChunk(NamedTuple):
    """Some records in the order of their partitions, and the position of each partition after them."""

    records: list[KafkaRecord]
    positions: dict[Partition, int]


class KafkaLog:
    """A reader. Every method raises TransientFailure when the broker does not answer. `security` are librdkafka's
    settings of the connection; `connect` makes a consumer from a configuration. With `peek` it fetches little ahead.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        dependency: Dependency,
        *,
        name: str,
        security: Mapping[str, Any],
        peek: bool = False,
        connect: Callable[..., Any] = Consumer,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        if settings.bootstrap is None:
            raise UsageError("no Kafka address: set REGWORKERS_KAFKA__BOOTSTRAP")
        self._dependency, self._clock = dependency, clock
        self._timeout = settings.timeout_seconds
        options = {
            "bootstrap.servers": settings.bootstrap,
            "log_level": 0,
            **security,
            # Required by the library; the group is never joined, and nothing is committed to it.
            "group.id": name,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            # Never continue silently at another offset.
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": _FETCH_WAIT_MS,
            "queued.max.messages.kbytes": _QUEUED_KIB,
            **(_PEEK if peek else {}),
        }
        try:
            self._consumer = connect(options, logger=_SILENT)
        except KafkaException as error:
            meaning = classify_kafka(error)
            if meaning is error:
                meaning = UsageError("Kafka's options cannot be used: check kafka.options")
            raise meaning from None

    def partitions(self, topics: Sequence[str]) -> dict[str, list[Partition]]:
        """The partitions of each topic that exists. Raises UsageError for one that is denied."""
        metadata = self._dependency.call(self._consumer.list_topics, timeout=self._timeout)
        return {
            topic: [Partition(topic, number) for number in sorted(found.partitions)]
            for topic, found in existing(topics, metadata).items()
        }

    def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Span]:
        """The oldest stored offset, and the offset of the next record."""
        if not partitions:
            return {}
        lows = {each: span.start for each, span in self.watermarks(partitions).items()}
        # The end from a fetch response, because some brokers list one that does not cover their last batch.
        self._assign(dict.fromkeys(partitions, OFFSET_END))
        ends: dict[Partition, int] = {}
        while len(ends) < len(lows):
            for message in self._take(lambda: f"{len(lows) - len(ends)} partitions"):
                partition = Partition(message.topic(), message.partition())
                ends[partition] = self._end(partition, message)
        self._consumer.unassign()
        return {each: Span(lows[each], max(lows[each], ends[each])) for each in partitions}

    def watermarks(self, partitions: Sequence[Partition]) -> dict[Partition, Span]:
        """What `bounds` gives, but the end may be that before the last batch. It reads nothing."""
        found = {}
        for each in partitions:
            place = TopicPartition(*each)
            offsets = self._dependency.call(
                self._consumer.get_watermark_offsets, place, timeout=self._timeout
            )
            if offsets is None:
                raise TransientFailure(DEPENDENCY, "no offsets within the time-out")
            found[each] = Span(*map(int, offsets))
        return found

    def first_times(self, spans: Mapping[Partition, Span]) -> dict[Partition, float]:
        """When the first record of each span was written (epoch seconds). Spans without a record are left out."""
        left = {partition: span for partition, span in spans.items() if span.start < span.end}
        found: dict[Partition, float] = {}
        if not left:
            return found
        self._assign({partition: span.start for partition, span in left.items()})
        while left:
            for message in self._take(lambda: f"{len(left)} partitions"):
                partition = Partition(message.topic(), message.partition())
                span = left.pop(partition, None)
                if span is None:
                    continue
                kind, milliseconds = message.timestamp()
                if (
                    message.error() is None
                    and message.offset() < span.end
                    and kind != TIMESTAMP_NOT_AVAILABLE
                ):
                    found[partition] = milliseconds / 1000
        self._consumer.unassign()
        return found

    def read(self, spans: Mapping[Partition, Span]) -> Iterator[RecordChunk]:
        """Every record of the spans, from all partitions in turn."""
        left = {partition: span for partition, span in spans.items() if span.start < span.end}
        if not left:
            return
        self._assign({partition: span.start for partition, span in left.items()})
        while left:
            chunk = RecordChunk([], {})
            for message in self._take(lambda: f"{len(left)} partitions"):
                partition = Partition(message.topic(), message.partition())
                if partition in left:
                    self._add(chunk, left, partition, message)
            if chunk.positions:
                yield chunk
        self._consumer.unassign()

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, partition: Partition, message: Any) -> int:
        if message.error() is not None:
            return int(message.offset())
        cached = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return max(int(cached[1]), int(message.offset()) + 1)

    def _add(
        self, chunk: RecordChunk, left: dict[Partition, Span], partition: Partition, message: Any
    ) -> None:
        offset, end = message.offset(), left[partition].end
        done = message.error() is not None or offset >= end
        if done:
            # At the end. Offsets before it that are not records are the brokers' own.
            chunk.positions[partition] = min(offset, end)
        else:
            chunk.records.append(KafkaRecord(partition, offset, message.key(), message.value()))
            chunk.positions[partition] = offset + 1
        if done or offset + 1 == end:
            del left[partition]
            self._consumer.pause([TopicPartition(*partition)])

    def _assign(self, places: Mapping[Partition, int]) -> None:
        wanted = [TopicPartition(*partition, offset) for partition, offset in places.items()]
        self._dependency.call(self._consumer.assign, wanted)

    def _take(self, awaited: Callable[[], str]) -> list[Any]:
        """Messages and ends of partitions, at least one. Raises TransientFailure when none comes."""

        def take() -> list[Any]:
            give_up = self._clock() + _SILENT_TIMEOUTS * self._timeout
            while not (messages := self._consumer.consume(_TAKEN, timeout=_POLL_SECONDS)):
                if self._clock() >= give_up:
                    raise TransientFailure(DEPENDENCY, f"no answer from {awaited()}")
            for message in messages:
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise _meaning(error)
            return list(messages)

        return self._dependency.once(take)


def _meaning(error: KafkaError) -> Exception:
    # The offset was trimmed or lost since it was read. The next read finds out which.
    if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        return TransientFailure(DEPENDENCY, "the offsets changed while they were read")
    return KafkaException(error)
