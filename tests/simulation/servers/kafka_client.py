"""confluent_kafka's producer, consumer and admin client over simulated brokers.

A gate loses requests and answers by raising KafkaException: with an error that librdkafka repeats, the request is
repeated until the time-out of the delivery; with another, that is the outcome; with a fatal one the producer is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import ConfigEntry

from tests.simulation.gate import Gate, alone
from tests.simulation.servers.kafka import (
    ClusterMetadata,
    Headers,
    Kafka,
    Partition,
    Record,
    Refusal,
    metadata,
)

# What librdkafka repeats by itself.
RETRIED = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)
_BACKOFF_SECONDS = 0.1
# The bytes of a record beside its key and value.
_OVERHEAD = 36


class Message:
    """A record, or with an error an event of its partition."""

    __slots__ = ("_error", "_number", "_record", "_topic")

    def __init__(self, topic: str, number: int, record: Record, error: KafkaError | None = None) -> None:
        self._topic, self._number, self._record, self._error = topic, number, record, error

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._number

    def offset(self) -> int:
        return self._record.offset

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes | None:
        return self._record.value

    def headers(self) -> Headers:
        return self._record.headers

    def timestamp(self) -> tuple[int, int]:
        if self._error is not None:
            return TIMESTAMP_NOT_AVAILABLE, -1
        return TIMESTAMP_CREATE_TIME, self._record.milliseconds

    def error(self) -> KafkaError | None:
        return self._error


class _Client:
    def __init__(self, server: Kafka, gate: Gate) -> None:
        self._server, self._gate = server, gate

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> ClusterMetadata:
        """Raises KafkaException."""
        return self._asked("Metadata", topic, timeout, lambda: metadata(self._server, self._gate, topic))

    def _asked(self, operation: str, request: Any, timeout: float, act: Callable[[], Any]) -> Any:
        gate = self._gate
        gate.before("kafka", operation, request)
        try:
            with alone(gate):
                answer = act()
        except Refusal as refusal:
            gate.after("kafka", operation, request)
            raise KafkaException(refusal.error) from None
        gate.after("kafka", operation, request)
        return answer

    def _wait(self, seconds: float) -> None:
        with alone(self._gate):
            self._gate.wait(seconds)

    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Pending:
    """A record on its way. `number` is the producer's, in its partition; None until that is known."""

    topic: str
    record: Record
    report: Callable[[KafkaError | None, Message], Any] | None
    queued_at: float
    partition: int = -1
    number: int | None = None

    @property
    def bytes(self) -> int:
        return _OVERHEAD + len(self.record.key or b"") + len(self.record.value or b"")


class Producer(_Client):
    """Sends when it is polled: a process that dies loses what it had not sent."""

    def __init__(self, server: Kafka, gate: Gate, options: Mapping[str, Any]) -> None:
        super().__init__(server, gate)
        self._id = server.producer_id()
        self._idempotent = bool(options.get("enable.idempotence", False))
        self._only_errors = bool(options.get("delivery.report.only.error", False))
        self._most_bytes = int(options.get("message.max.bytes", 1_000_000))
        self._room = int(options.get("queue.buffering.max.kbytes", 1_048_576)) * 1024
        self._delivery_seconds = int(options.get("delivery.timeout.ms", 300_000)) / 1000
        self._propagation_seconds = int(options.get("topic.metadata.propagation.max.ms", 30_000)) / 1000
        self._note: Callable[[KafkaError], Any] | None = options.get("error_cb")
        self._waiting: deque[_Pending] = deque()
        self._bytes = 0
        self._numbers: dict[tuple[str, int], int] = {}
        self._fatal: KafkaError | None = None
        self._again_at = 0.0
        # What a thread is sending; the others wait for it, because numbers must arrive in order.
        self._sending: list[_Pending] = []

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sending)

    def produce(
        self,
        topic: str,
        value: str | bytes | None = None,
        key: str | bytes | None = None,
        partition: int = -1,
        on_delivery: Any = None,
        timestamp: int = 0,
        headers: Any = None,
        callback: Any = None,
    ) -> None:
        """Raises BufferError and KafkaException."""
        if self._fatal is not None:
            raise KafkaException(KafkaError(KafkaError._FATAL, self._fatal.str(), fatal=True))
        now = self._gate.now()
        named = list(headers.items()) if isinstance(headers, Mapping) else headers
        fields = [(name, _bytes(each) or b"") for name, each in named] if named else None
        record = Record(-1, _bytes(key), _bytes(value), fields, timestamp or int(now * 1000))
        pending = _Pending(topic, record, on_delivery or callback, now, partition)
        if pending.bytes > self._most_bytes:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        if self._bytes + pending.bytes > self._room:
            raise BufferError("Local: Queue full")
        self._bytes += pending.bytes
        self._waiting.append(pending)

    def poll(self, timeout: float = -1) -> int:
        """Returns the number of reports."""
        reported = self._send()
        if not reported and timeout != 0:
            self._wait(1.0 if timeout < 0 else timeout)
        return reported

    def flush(self, timeout: float = -1) -> int:
        until = self._gate.now() + timeout
        while len(self) and (timeout < 0 or self._gate.now() <= until):
            if not self._send() and len(self):
                self._wait(_BACKOFF_SECONDS)
        return len(self)

    def purge(self, in_queue: bool = True, in_flight: bool = True, blocking: bool = True) -> None:
        error = KafkaError(KafkaError._PURGE_QUEUE)
        waiting, self._waiting = list(self._waiting), deque()
        for pending in waiting:
            self._report(pending, error)

    def _send(self) -> int:
        """Send what waits, by partition. Returns the number of reports."""
        now = self._gate.now()
        with alone(self._gate):
            if self._sending or not self._waiting:
                return 0
            if now < self._again_at and not self._is_late(self._waiting[0], now):
                return 0
            self._sending, self._waiting = list(self._waiting), deque()
        outcomes: list[tuple[_Pending, KafkaError | None]] = []
        try:
            outcomes = self._sent(self._sending, now)
        finally:
            done = {id(pending) for pending, _ in outcomes}
            with alone(self._gate):
                left = [pending for pending in self._sending if id(pending) not in done]
                self._waiting.extendleft(reversed(left))
                self._sending = []
        for pending, error in outcomes:
            self._report(pending, error)
        return len(outcomes)

    def _sent(self, waiting: Sequence[_Pending], now: float) -> list[tuple[_Pending, KafkaError | None]]:
        """Those that are done, with their outcome."""
        batches: dict[tuple[str, int], list[_Pending]] = {}
        outcomes: list[tuple[_Pending, KafkaError | None]] = []
        for pending in waiting:
            topic = self._server.topics.get(pending.topic)
            if topic is None or pending.partition >= len(topic.partitions):
                if now - pending.queued_at >= self._propagation_seconds:
                    outcomes.append((pending, KafkaError(KafkaError._UNKNOWN_TOPIC)))
                continue
            if pending.partition < 0:
                pending.partition = self._server.partition_of(topic, pending.record.key)
            batches.setdefault((pending.topic, pending.partition), []).append(pending)
        for (name, number), batch in batches.items():
            outcomes += self._produce(name, number, batch)
        return outcomes

    def _produce(
        self, name: str, number: int, batch: Sequence[_Pending]
    ) -> list[tuple[_Pending, KafkaError | None]]:
        gate, server = self._gate, self._server
        for pending in batch:
            if pending.number is None:
                pending.number = self._numbers[name, number] = self._numbers.get((name, number), -1) + 1
        limit = int(server.topics[name].settings["max.message.bytes"])
        large = [pending for pending in batch if pending.bytes > limit]
        batch = [pending for pending in batch if pending.bytes <= limit]
        outcomes: list[tuple[_Pending, KafkaError | None]] = [
            (pending, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)) for pending in large
        ]
        if not batch:
            return outcomes
        request = {"topic": name, "partition": number, "records": len(batch)}
        # Without idempotence a repeat is another record.
        identity = self._id if self._idempotent else server.producer_id()
        try:
            gate.before("kafka", "Produce", request)
            # Of one producer, the brokers take no number before the one that it follows.
            end = min(gate.fails("kafka", "Produce", len(batch)), default=len(batch))
            batch, refused = batch[:end], batch[end:]
            outcomes += self._failed(refused, KafkaError(KafkaError.NOT_ENOUGH_REPLICAS)) if refused else []
            made = [(pending.number or 0, pending.record) for pending in batch]
            with alone(gate):
                server.append(name, number, made, identity, gate.now())
            gate.after("kafka", "Produce", request)
        except (KafkaException, Refusal) as why:
            error = why.error if isinstance(why, Refusal) else why.args[0]
            return outcomes + self._failed(batch, error)
        return outcomes + [(pending, None) for pending in batch]

    def _failed(
        self, batch: Sequence[_Pending], error: KafkaError
    ) -> list[tuple[_Pending, KafkaError | None]]:
        if error.fatal():
            self._fatal = error
            return [(pending, error) for pending in batch]
        if error.code() not in RETRIED and not error.retriable():
            return [(pending, error) for pending in batch]
        now = self._gate.now()
        self._again_at = now + _BACKOFF_SECONDS
        if self._note is not None and error.code() < 0:
            self._note(error)
        late = KafkaError(KafkaError._MSG_TIMED_OUT)
        return [(pending, late) for pending in batch if self._is_late(pending, now)]

    def _is_late(self, pending: _Pending, now: float) -> bool:
        return now - pending.queued_at >= self._delivery_seconds

    def _report(self, pending: _Pending, error: KafkaError | None) -> None:
        self._bytes -= pending.bytes
        if pending.report is not None and (error is not None or not self._only_errors):
            pending.report(error, Message(pending.topic, pending.partition, pending.record, error))


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


class Consumer(_Client):
    """Of assigned partitions, outside any group."""

    def __init__(self, server: Kafka, gate: Gate, options: Mapping[str, Any]) -> None:
        super().__init__(server, gate)
        self._tells_ends = bool(options.get("enable.partition.eof", False))
        self._reset = str(options.get("auto.offset.reset", "latest"))
        self._places: dict[tuple[str, int], int] = {}
        self._paused: set[tuple[str, int]] = set()
        # Partitions whose end was reported, by the position where it was.
        self._notified: dict[tuple[str, int], int] = {}
        self._ends: dict[tuple[str, int], tuple[int, int]] = {}

    def assign(self, places: Sequence[TopicPartition]) -> None:
        self._places = {(each.topic, each.partition): each.offset for each in places}
        self._paused.clear()
        self._notified.clear()

    def unassign(self) -> None:
        self.assign(())

    def pause(self, places: Sequence[TopicPartition]) -> None:
        self._paused |= {(each.topic, each.partition) for each in places}

    def get_watermark_offsets(
        self, place: TopicPartition, timeout: float = -1, cached: bool = False
    ) -> tuple[int, int] | None:
        """Raises KafkaException."""
        known = (place.topic, place.partition)
        if cached:
            return self._ends.get(known, (-1001, -1001))

        def offsets() -> tuple[int, int]:
            partition = self._partition(*known)
            return partition.low, partition.high

        found: tuple[int, int] = self._asked("ListOffsets", known, timeout, offsets)
        return found

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        """Records and events of the assigned partitions; none when no answer comes in time."""
        until = self._gate.now() + timeout
        while True:
            found = self._fetched(num_messages)
            left = until - self._gate.now()
            if found or (timeout >= 0 and left <= 0):
                return found
            self._wait(1.0 if timeout < 0 else left)
            if timeout >= 0 and self._gate.now() >= until:
                return self._fetched(num_messages)

    def _fetched(self, most: int) -> list[Message]:
        if not self._places:
            return []
        try:
            found: list[Message] = self._asked("Fetch", dict(self._places), 0, lambda: self._fetch(most))
        except KafkaException as error:
            (cause,) = error.args
            if cause.code() in RETRIED or cause.retriable():
                return []
            (topic, number), offset = next(iter(self._places.items()))
            return [Message(topic, number, Record(offset, None, None, None, -1), cause)]
        # Positions move when the answer is there.
        for message in found:
            known = (message.topic(), message.partition())
            if message.error() is None:
                self._places[known] = message.offset() + 1
            else:
                self._notified[known] = message.offset()
        return found

    def _fetch(self, most: int) -> list[Message]:
        found: list[Message] = []
        for topic, number in list(self._places):
            if (topic, number) in self._paused or len(found) >= most:
                continue
            try:
                partition = self._partition(topic, number)
            except Refusal as refusal:
                if refusal.error.code() not in RETRIED and self._notified.get((topic, number)) is None:
                    found.append(Message(topic, number, Record(-1, None, None, None, -1), refusal.error))
                continue
            self._ends[topic, number] = (partition.low, partition.high)
            found += self._of(partition, topic, number, most - len(found))
        return found

    def _of(self, partition: Partition, topic: str, number: int, most: int) -> list[Message]:
        known = (topic, number)
        offset = self._places[known]
        if offset in (OFFSET_BEGINNING, OFFSET_END):
            offset = self._places[known] = partition.low if offset == OFFSET_BEGINNING else partition.high
        elif not partition.low <= offset <= partition.high:
            if self._reset in ("earliest", "smallest", "beginning"):
                offset = partition.low
            elif self._reset == "error":
                if self._notified.get(known) == offset:
                    return []
                gone = KafkaError(KafkaError._AUTO_OFFSET_RESET, "no previously committed offset available")
                return [Message(topic, number, Record(offset, None, None, None, -1), gone)]
            else:
                offset = partition.high
            self._places[known] = offset
        found = [Message(topic, number, record) for record in islice(partition.behind(offset, most), most)]
        end = found[-1].offset() + 1 if found else offset
        if (
            self._tells_ends
            and end >= partition.high
            and len(found) < most
            and self._notified.get(known) != end
        ):
            at_end = KafkaError(KafkaError._PARTITION_EOF, "No more messages")
            found.append(Message(topic, number, Record(end, None, None, None, -1), at_end))
        return found

    def _partition(self, topic: str, number: int) -> Partition:
        partition = self._server.partition(topic, number)
        self._server.retain(self._server.topics[topic], self._gate.now())
        return partition

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class AdminClient(_Client):
    """Answers with futures that are done."""

    def poll(self, timeout: float = -1) -> int:
        return 0

    def create_topics(self, new_topics: Sequence[Any], **options: Any) -> dict[str, Future[None]]:
        return {
            each.topic: self._future(
                "CreateTopics",
                each.topic,
                lambda each=each: self._server.create(  # type: ignore[misc]
                    each.topic, each.num_partitions, each.replication_factor, each.config or {}
                ),
                answers=False,
            )
            for each in new_topics
        }

    def delete_topics(self, topics: Sequence[str], **options: Any) -> dict[str, Future[None]]:
        def delete(name: str) -> None:
            self._server.topic(name)
            del self._server.topics[name]

        return {
            name: self._future("DeleteTopics", name, lambda name=name: delete(name))  # type: ignore[misc]
            for name in topics
        }

    def create_partitions(self, new_partitions: Sequence[Any], **options: Any) -> dict[str, Future[None]]:
        return {
            each.topic: self._future(
                "CreatePartitions",
                each.topic,
                lambda each=each: self._server.grow(each.topic, each.new_total_count),  # type: ignore[misc]
            )
            for each in new_partitions
        }

    def describe_topics(self, topics: Any, **options: Any) -> dict[str, Future[Any]]:
        return {
            name: self._future("DescribeTopics", name, lambda name=name: self._server.topic(name))  # type: ignore[misc]
            for name in topics.topic_names
        }

    def describe_configs(self, resources: Sequence[Any], **options: Any) -> dict[Any, Future[Any]]:
        def entries(name: str) -> dict[str, ConfigEntry]:
            settings = self._server.topic(name).settings
            return {each: ConfigEntry(each, value) for each, value in settings.items()}

        return {
            each: self._future("DescribeConfigs", each.name, lambda each=each: entries(each.name))  # type: ignore[misc]
            for each in resources
        }

    def incremental_alter_configs(self, resources: Sequence[Any], **options: Any) -> dict[Any, Future[None]]:
        def alter(resource: Any) -> None:
            config = {entry.name: entry.value for entry in resource.incremental_configs}
            self._server.configure(config, self._server.topic(resource.name).config)

        return {
            each: self._future("IncrementalAlterConfigs", each.name, lambda each=each: alter(each))  # type: ignore[misc]
            for each in resources
        }

    def _future(
        self, operation: str, request: Any, act: Callable[[], Any], *, answers: bool = True
    ) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            answer = self._asked(operation, request, 0, act)
            future.set_result(answer if answers else None)
        except KafkaException as error:
            future.set_exception(error)
        return future
