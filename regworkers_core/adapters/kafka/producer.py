"""Sending records to Kafka: an idempotent producer, and one that renews its certificate while it runs.

The renewal: a thread checks for new material every `checkSeconds`; if the brokers accept it, a new producer is made,
new sends wait, current sends end, the producers are swapped, sends continue, and the old one is closed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeAlias

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from fairdraw import scheduling
from regworkers_core.adapters.kafka.admin import DEPENDENCY, classify_kafka
from regworkers_core.adapters.kafka.security import Credentials
from regworkers_core.domain.reasons import Failure, PermanentFailure, Reason, TransientFailure, UsageError

log = structlog.get_logger(__name__)
# The longest record. By default, brokers refuse more than 1 MiB.
MAX_RECORD_BYTES = 1_000_000
_SILENT = logging.getLogger("regworkers.librdkafka")
# Delivery reports come within the delivery time-out, plus this margin.
_MARGIN_SECONDS = 1.0
# How long a send waits for room at a time.
_POLL_SECONDS = 0.02
# The caller's options may change these.
_DEFAULTS: Mapping[str, str | int | bool] = {
    "compression.type": "lz4",
    # A send ends with a flush, which does not wait for this. Fewer and fuller requests save a quarter of the CPU time.
    "linger.ms": 50,
    "message.max.bytes": MAX_RECORD_BYTES,
    # Waiting and in flight. A send waits for room; the number of messages is no further limit.
    "queue.buffering.max.kbytes": 32 * 1024,
    "queue.buffering.max.messages": 1_000_000,
    "reconnect.backoff.max.ms": 1000,
    "log_level": 0,
}
_FIXED: Mapping[str, str | int | bool] = {
    "enable.idempotence": True,
    "acks": "all",
    # A client has the records of one send. Once it is flushed, those without an error are delivered, and no report has
    # to be made and handed over for each of them: a third of the CPU time.
    "delivery.report.only.error": True,
    # `provision` creates topics, with the settings' partitions and replicas.
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
# The record was purged, or found no room.
_UNREPORTED = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._QUEUE_FULL})
_REFUSED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


# Topic, key, value and headers of a message. Records with equal keys share a partition. The client accepts headers only
# as a list. No class: one is made for every event, and a named tuple takes fifteen times as long.
OutgoingRecord: TypeAlias = tuple[str, str, bytes, list[tuple[str, bytes]] | None]


class RecordProducer(Protocol):
    """A producer as the flows need it. Shared by all threads of a process."""

    def send(self, records: Sequence[OutgoingRecord]) -> list[Failure | None]:
        """Send, and return for each record in order: None if all in-sync replicas acknowledged it, else its failure.

        Blocks for at most the delivery time-out plus a second. A record with a TransientFailure may have been written,
        so sending it again may repeat it. Once every record has its report, raises UsageError for a missing topic,
        refused access and wrong options.
        """
        ...

    def close(self) -> None:
        """Disconnect once the current sends have ended. A later send connects again."""
        ...


class KafkaProducer:
    """`RecordProducer` over librdkafka, whose settings are `options` (`bootstrap.servers`, security, ...).

    It connects at the first send, and has as many clients as sends at once. If the brokers fence one (for instance
    after a restart with records in flight), a new client replaces it, and undelivered records are sent once more.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        delivery_seconds: float = 10.0,
        make: Callable[..., Any] = Producer,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._options = {
            **_DEFAULTS,
            **options,
            **_FIXED,
            "delivery.timeout.ms": round(delivery_seconds * 1000),
            "request.timeout.ms": round(delivery_seconds * 1000),
            # A missing topic is recognised before the delivery times out.
            "topic.metadata.propagation.max.ms": round(delivery_seconds * 500),
            "error_cb": self._note,
        }
        self._delivery_seconds = delivery_seconds
        self._make, self._clock = make, clock
        # Clients between two sends; appending and taking are atomic. None of a send that began before a close.
        self._idle: list[Any] = []
        self._trouble, self._trouble_at = "", -math.inf

    def send(self, records: Sequence[OutgoingRecord]) -> list[Failure | None]:
        give_up = self._clock() + self._delivery_seconds + _MARGIN_SECONDS
        idle = self._idle
        try:
            client = idle.pop()
        except IndexError:
            client = self._new()
        errors = self._deliver(client, records, range(len(records)), give_up)
        fenced = [index for index, error in errors.items() if error.fatal() or error.code() in _FENCED]
        if fenced:
            client = self._new()
            for index in fenced:
                del errors[index]
            errors |= self._deliver(client, records, fenced, give_up)
        # One that did not report in time may be stuck.
        if _UNREPORTED.isdisjoint(error.code() for error in errors.values()):
            idle.append(client)
        outcomes: list[Failure | None] = [None] * len(records)
        for index in sorted(errors):
            outcomes[index] = self._meaning(errors[index], records[index][0])
        return outcomes

    def close(self) -> None:
        # A send that has not ended keeps the list of its begin.
        self._idle = []

    def _deliver(
        self, client: Any, records: Sequence[OutgoingRecord], indexes: Sequence[int], give_up: float
    ) -> dict[int, KafkaError]:
        """Send these records and wait until each is delivered or has failed. Returns the errors by index."""
        failed: dict[int, KafkaError] = {}
        reports: list[tuple[tuple[str, bytes], KafkaError]] = []

        # One for all: a function for each record would double the time of `produce`.
        def report(error: KafkaError, message: Any) -> None:
            reports.append(((message.topic(), message.value()), error))

        produce = client.produce
        for index in indexes:
            topic, key, value, headers = records[index]
            while True:
                try:
                    produce(topic, value, key, headers=headers, on_delivery=report)
                except BufferError:
                    # The local queue is full: wait for records in flight.
                    if self._clock() < give_up:
                        client.poll(_POLL_SECONDS)
                        continue
                    failed[index] = KafkaError(KafkaError._QUEUE_FULL)
                except KafkaException as error:
                    failed[index] = error.args[0]
                break
        if client.flush(max(0.0, give_up - self._clock())):
            # Each record without a report gets one.
            client.purge()
            if client.flush(_MARGIN_SECONDS):
                failed = dict.fromkeys(indexes, KafkaError(KafkaError._PURGE_INFLIGHT)) | failed
        if reports:
            same: dict[tuple[str, bytes], list[int]] = {}
            for index in indexes:
                same.setdefault((records[index][0], records[index][2]), []).append(index)
            failed.update((same[content].pop(), error) for content, error in reports)
        return failed

    def _new(self) -> Any:
        try:
            return self._make(self._options, logger=_SILENT)
        except KafkaException as error:
            raise UsageError(f"Kafka's options are refused ({_name(error)}): check kafka.options") from None

    def _note(self, error: KafkaError) -> None:
        """Remember a connection error, because the reports only say that the time-out passed."""
        self._trouble, self._trouble_at = error.name(), self._clock()

    def _meaning(self, error: KafkaError, topic: str) -> Failure:
        code = error.code()
        if code in _UNREPORTED:
            return TransientFailure(DEPENDENCY, "no report of the delivery" + self._why())
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
        # A problem that ended long before this delivery began did not cause its failure.
        recent = self._clock() - self._trouble_at <= 2 * (self._delivery_seconds + _MARGIN_SECONDS)
        return f" (last trouble: {self._trouble})" if recent else ""


def _name(error: KafkaException) -> str:
    cause = error.args[0] if error.args else None
    return cause.name() if isinstance(cause, KafkaError) else type(error).__name__


class _Held:
    """A producer and the number of its current sends."""

    def __init__(self, producer: RecordProducer, fingerprint: str) -> None:
        self.producer, self.fingerprint = producer, fingerprint
        self.sends = 0
        self.retired = False


class RotatingProducer:
    """`RecordProducer` that renews its certificate. `make` builds a producer from librdkafka's settings, at the first
    send and for every renewal.
    """

    def __init__(
        self,
        credentials: Credentials,
        make: Callable[[Mapping[str, Any]], RecordProducer],
        *,
        wait_seconds: float,
    ) -> None:
        self._credentials, self._make = credentials, make
        self._wait_seconds = wait_seconds
        self._state = scheduling.condition()
        self._held: _Held | None = None
        self._swapping = False
        # Set to end the thread that checks; None while there is none.
        self._ended: scheduling.Event | None = None

    def send(self, records: Sequence[OutgoingRecord]) -> list[Failure | None]:
        with self._borrowed() as producer:
            return producer.send(records)

    def close(self) -> None:
        with self._state:
            held, self._held = self._held, None
            if self._ended is not None:
                self._ended.set()
                self._ended = None
        if held is not None:
            held.producer.close()

    def renew(self) -> bool:
        """Adopt new material if there is any that the brokers accept. Returns whether there was."""
        accepted = self._credentials.check()
        with self._state:
            old = self._held
        if old is None or accepted.fingerprint == old.fingerprint:
            return False
        return self._swap(old, _Held(self._make(accepted.options), accepted.fingerprint))

    def _swap(self, old: _Held, new: _Held) -> bool:
        with self._state:
            if self._held is not old:
                # Closed meanwhile, and possibly reopened with the material that is accepted now.
                return False
            self._swapping = True
            try:
                self._state.wait_for(lambda: old.sends == 0, self._wait_seconds)
            finally:
                self._swapping = False
                self._state.notify_all()
            swapped = self._held is old
            if swapped:
                self._held = new
            old.retired, idle = True, old.sends == 0
        if idle:
            old.producer.close()
        return swapped

    @contextmanager
    def _borrowed(self) -> Iterator[RecordProducer]:
        with self._state:
            self._state.wait_for(lambda: not self._swapping)
            held = self._held
            if held is None:
                accepted = self._credentials.accepted()
                held = self._held = _Held(self._make(accepted.options), accepted.fingerprint)
                self._watch()
            held.sends += 1
        try:
            yield held.producer
        finally:
            with self._state:
                held.sends -= 1
                last = held.retired and held.sends == 0
                self._state.notify_all()
            if last:
                held.producer.close()

    def _watch(self) -> None:
        if self._credentials.may_change and self._ended is None:
            self._ended = scheduling.event()
            # A daemon: it holds nothing that the process would have to release at its end.
            scheduling.start(partial(self._renew_on, self._ended), "certificates")

    def _renew_on(self, ended: scheduling.Event) -> None:
        while not ended.wait(self._credentials.check_seconds):
            try:
                self.renew()
            except (UsageError, TransientFailure) as error:
                log.warning("certificate not renewed", error=str(error))
            except Exception as error:
                # The thread survives unexpected errors; the current producer stays in use.
                log.warning("certificate not renewed", exc_info=error)
