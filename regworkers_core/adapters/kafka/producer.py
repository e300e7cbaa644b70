"""Records to Kafka: an idempotent producer that says of each record whether the brokers have it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer

from regworkers_core.adapters.kafka.admin import DEPENDENCY, classify_kafka
from regworkers_core.domain.reasons import Failure, PermanentFailure, Reason, TransientFailure, UsageError

# Of one record; by default, brokers refuse more than 1 MiB.
MAX_RECORD_BYTES = 1_000_000
_SILENT = logging.getLogger("regworkers.librdkafka")
# Reports come within the delivery time-out; this much later a missing one is given up.
_MARGIN_SECONDS = 1.0
# Another thread's poll may serve this one's reports: how late it notices.
_POLL_SECONDS = 0.02
# What the caller's options may change.
_DEFAULTS: Mapping[str, str | int | bool] = {
    "compression.type": "lz4",
    # A send waits for its reports once. Fewer and fuller requests take a quarter off what all processes do.
    "linger.ms": 50,
    "message.max.bytes": MAX_RECORD_BYTES,
    # What waits or is in flight; a send waits for room instead of growing. The number is no limit beside it.
    "queue.buffering.max.kbytes": 32 * 1024,
    "queue.buffering.max.messages": 1_000_000,
    "reconnect.backoff.max.ms": 1000,
    "log_level": 0,
}
_FIXED: Mapping[str, str | int | bool] = {
    "enable.idempotence": True,
    "acks": "all",
    # Topics are for `provision` to make, with the partitions and replicas that the settings ask for.
    "allow.auto.create.topics": False,
}
# The broker no longer knows the producer's sequence numbers, and only a new producer helps.
_FENCED = frozenset(
    {
        KafkaError._FATAL,
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.UNKNOWN_PRODUCER_ID,
    }
)
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
_NO_TOPIC = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
)
_REFUSED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


class Record(NamedTuple):
    """One message of a topic; records of equal keys share a partition. The client takes headers as a list only."""

    topic: str
    key: str
    value: bytes
    headers: list[tuple[str, bytes]] | None = None


class RecordProducer(Protocol):
    """What the flows need of a producer. Shared by all threads of a process."""

    def send(self, records: Sequence[Record]) -> list[Failure | None]:
        """In the order of `records`: None for each that is acknowledged by all in-sync replicas, else why not.

        Returns within the delivery time-out and a second. A TransientFailure may be a record that was written all
        the same, so sending it again may repeat it. Raises UsageError for a topic that is missing, access that is
        refused and options that are wrong, once every record has its report.
        """
        ...

    def flush(self, seconds: float) -> int:
        """Wait for what was handed over; returns how many records are still without a report."""
        ...

    def close(self) -> None:
        """Let go of the connections, and of what has no report yet. A later send connects again."""
        ...


class KafkaProducer:
    """`RecordProducer` over librdkafka, whose settings are `options` (`bootstrap.servers`, security, ...).

    It connects at the first send. One that the brokers have fenced (they were restarted while records were in
    flight, say) is replaced by a new one, and the records that it could not deliver are sent once more.
    """

    def __init__(
        self,
        options: Mapping[str, str | int | bool],
        *,
        delivery_seconds: float = 10.0,
        make: Callable[..., Any] = Producer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = {
            **_DEFAULTS,
            **options,
            **_FIXED,
            "delivery.timeout.ms": round(delivery_seconds * 1000),
            "request.timeout.ms": round(delivery_seconds * 1000),
            # A topic that the brokers do not know is known to be missing before the delivery times out.
            "topic.metadata.propagation.max.ms": round(delivery_seconds * 500),
            "error_cb": self._note,
        }
        self._delivery_seconds = delivery_seconds
        self._make, self._clock = make, clock
        self._lock = threading.Lock()
        self._client: Any = None
        self._trouble, self._trouble_at = "", -math.inf

    def send(self, records: Sequence[Record]) -> list[Failure | None]:
        """See `RecordProducer`."""
        give_up = self._clock() + self._delivery_seconds + _MARGIN_SECONDS
        client = self._connected()
        errors = self._deliver(client, list(enumerate(records)), give_up)
        fenced = [(index, records[index]) for index, error in errors.items() if error and _is_fence(error)]
        if fenced:
            client = self._replaced(client)
            for index, _ in fenced:
                del errors[index]
            errors |= self._deliver(client, fenced, give_up)
        outcomes: list[Failure | None] = [None] * len(records)
        for index in sorted(errors):
            outcomes[index] = self._meaning(errors[index], records[index].topic)
        return outcomes

    def flush(self, seconds: float) -> int:
        """See `RecordProducer`."""
        client = self._client
        return 0 if client is None else int(client.flush(seconds))

    def close(self) -> None:
        """See `RecordProducer`."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.purge()
            # Serves the reports of what was purged.
            client.flush(_MARGIN_SECONDS)

    def _deliver(
        self, client: Any, records: Sequence[tuple[int, Record]], give_up: float
    ) -> dict[int, KafkaError | None]:
        """Hand over and wait for the reports. The failed ones by their number; None: no report came."""
        # Threads that poll serve each other's reports; appending and setting are atomic.
        arrived: list[int] = []
        failed: dict[int, KafkaError | None] = {}

        # Called for every record, so it is no method.
        def report(index: int, error: KafkaError | None, _message: object) -> None:
            if error is not None:
                failed[index] = error
            arrived.append(index)

        produce = client.produce
        for index, (topic, key, value, headers) in records:
            while True:
                try:
                    produce(topic, value, key, headers=headers, on_delivery=partial(report, index))
                except BufferError:
                    # The local queue is full: what is in flight makes room.
                    if self._clock() < give_up:
                        client.poll(_POLL_SECONDS)
                        continue
                except KafkaException as error:
                    report(index, error.args[0], None)
                break
        while len(arrived) < len(records) and self._clock() < give_up:
            client.poll(_POLL_SECONDS)
        if len(arrived) < len(records):
            return dict(failed) | dict.fromkeys({index for index, _ in records} - set(arrived))
        return failed

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._new()
            return self._client

    def _replaced(self, client: Any) -> Any:
        """A new client in place of this one, or the one with which another thread has replaced it."""
        with self._lock:
            if self._client is client:
                self._client = self._new()
            return self._client or client

    def _new(self) -> Any:
        try:
            return self._make(self._options, logger=_SILENT)
        except KafkaException as error:
            raise UsageError(f"Kafka's options are refused ({_name(error)}): check kafka.options") from None

    def _note(self, error: KafkaError) -> None:
        """Connection errors: the reports say only that the time was over."""
        self._trouble, self._trouble_at = error.name(), self._clock()

    def _meaning(self, error: KafkaError | None, topic: str) -> Failure:
        if error is None:
            return TransientFailure(DEPENDENCY, "no report of the delivery" + self._why())
        code = error.code()
        if code in _TOO_LARGE:
            return PermanentFailure(
                Reason.INVALID_EVENT,
                f"larger than Kafka takes ({self._options['message.max.bytes']} bytes)",
            )
        if code in _NO_TOPIC:
            raise UsageError(f"topic {topic} does not exist: run `regworkers provision`")
        if code in _REFUSED:
            raise UsageError(f"Kafka refuses to write to topic {topic}: check the rights of this client")
        if code == KafkaError._MSG_TIMED_OUT:
            return TransientFailure(DEPENDENCY, "the delivery timed out" + self._why())
        meaning = classify_kafka(KafkaException(error))
        if isinstance(meaning, UsageError):
            raise meaning
        # An unexpected answer is no reason to give an event up.
        return (
            meaning if isinstance(meaning, TransientFailure) else TransientFailure(DEPENDENCY, error.name())
        )

    def _why(self) -> str:
        # What was over long before this delivery began did not cause its failure.
        recent = self._clock() - self._trouble_at <= 2 * (self._delivery_seconds + _MARGIN_SECONDS)
        return f" (last trouble: {self._trouble})" if recent else ""


def _is_fence(error: KafkaError) -> bool:
    return error.fatal() or error.code() in _FENCED


def _name(error: KafkaException) -> str:
    cause = error.args[0] if error.args else None
    return cause.name() if isinstance(cause, KafkaError) else type(error).__name__
