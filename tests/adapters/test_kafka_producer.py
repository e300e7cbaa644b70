"""The producer on a client that plays the brokers: what each report means, and when a client is replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from regworkers_core.adapters.kafka.producer import KafkaProducer, OutgoingRecord
from regworkers_core.domain.reasons import Failure, PermanentFailure, Reason, TransientFailure, UsageError

# The fate of a record: delivered, refused, no report before a purge, or none at all.
Fate = KafkaError | None | str
Report = Callable[[KafkaError | None, object], None]
SILENT, STUCK = "silent", "stuck"


class Clock:
    """Every look takes a tenth of a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.1
        return self.now


class Reported:
    """What a report shows of its record."""

    def __init__(self, topic: str, value: bytes) -> None:
        self.topic, self.value = lambda: topic, lambda: value


class Client:
    """Reports at the next poll or flush the error that `fates` has for the record's value, and at a purge what is left.
    Holds at most `room` records.
    """

    def __init__(self, fates: Mapping[str, Fate], room: int = 1000) -> None:
        self.fates, self.room = fates, room
        self.taken: list[str] = []
        self.waiting: list[tuple[Fate, Report, Reported]] = []
        self.on_flush: Callable[[], object] = list

    def produce(self, topic: str, value: bytes, key: str, *, headers: object, on_delivery: Report) -> None:
        if len(self.waiting) >= self.room:
            raise BufferError("queue full")
        fate = self.fates.get(value.decode())
        if isinstance(fate, KafkaError) and fate.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            raise KafkaException(fate)
        self.taken.append(value.decode())
        self.waiting.append((fate, on_delivery, Reported(topic, value)))

    def poll(self, _seconds: float) -> int:
        reported, self.waiting = self.waiting, [each for each in self.waiting if isinstance(each[0], str)]
        for fate, report, record in reported:
            if isinstance(fate, KafkaError):
                report(fate, record)
        return len(reported)

    def flush(self, seconds: float) -> int:
        self.on_flush()
        self.poll(seconds)
        return len(self.waiting)

    def purge(self) -> None:
        for fate, report, record in self.waiting:
            if fate != STUCK:
                report(error(KafkaError._PURGE_INFLIGHT), record)
        self.waiting = [each for each in self.waiting if each[0] == STUCK]


class Brokers:
    """Hands out the clients in order and keeps their options."""

    def __init__(self, *clients: Client) -> None:
        self.clients, self.made = list(clients), list[dict[str, Any]]()

    def __call__(self, options: dict[str, Any], *, logger: object) -> Client:
        self.made.append(options)
        return self.clients[len(self.made) - 1]


def records(*values: str) -> list[OutgoingRecord]:
    return [("topic", "key", value.encode(), None) for value in values]


def send(brokers: Brokers, *values: str) -> Sequence[Failure | None]:
    producer = KafkaProducer({"bootstrap.servers": "b"}, delivery_seconds=2, make=brokers, clock=Clock())
    return producer.send(records(*values))


def error(code: int, *, fatal: bool = False) -> KafkaError:
    return KafkaError(code, fatal=fatal)


def test_each_record_has_its_own_outcome_in_their_order() -> None:
    refused, busy = error(KafkaError.MSG_SIZE_TOO_LARGE), error(KafkaError.NOT_ENOUGH_REPLICAS)
    first, second, third = send(Brokers(Client({"b": refused, "c": busy})), "a", "b", "c")
    assert first is None
    assert isinstance(second, PermanentFailure) and second.reason is Reason.INVALID_EVENT
    assert second.error == "larger than Kafka takes (1000000 bytes)"
    assert isinstance(third, TransientFailure) and third.dependency == "kafka"


def test_records_of_equal_content_have_an_outcome_each() -> None:
    outcomes = send(Brokers(Client({"b": error(KafkaError.NOT_ENOUGH_REPLICAS)})), "b", "a", "b")
    assert [type(each) for each in outcomes] == [TransientFailure, type(None), TransientFailure]


@pytest.mark.parametrize(
    "code",
    [
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        # Unforeseen: no reason to give an event up.
        KafkaError.UNKNOWN,
    ],
)
def test_what_a_repeat_may_cure_is_transient(code: int) -> None:
    (outcome,) = send(Brokers(Client({"a": error(code)})), "a")
    assert isinstance(outcome, TransientFailure)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "topic topic does not exist: run `regworkers provision`"),
        (KafkaError._UNKNOWN_TOPIC, "topic topic does not exist"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "check the rights of this client"),
        (KafkaError._AUTHENTICATION, "refuses the login or the certificate"),
    ],
)
def test_what_an_operator_has_to_fix_is_raised_once_all_reports_are_there(code: int, said: str) -> None:
    client = Client({"a": error(code)})
    with pytest.raises(UsageError, match=said):
        send(Brokers(client), "a", "b")
    assert client.taken == ["a", "b"] and not client.waiting


@pytest.mark.parametrize(
    "fence",
    [
        error(KafkaError.PRODUCER_FENCED),
        error(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER),
        error(KafkaError.UNKNOWN_PRODUCER_ID),
        error(KafkaError._FATAL),
        error(KafkaError.CLUSTER_AUTHORIZATION_FAILED, fatal=True),
    ],
)
def test_a_fenced_client_is_replaced_and_only_what_it_left_is_sent_again(fence: KafkaError) -> None:
    first, second = Client({"b": fence}), Client({})
    assert send(Brokers(first, second), "a", "b", "c") == [None, None, None]
    assert second.taken == ["b"]


def test_a_client_that_is_fenced_again_at_once_leaves_it_to_the_next_send() -> None:
    fence = error(KafkaError.PRODUCER_FENCED)
    brokers = Brokers(Client({"a": fence}), Client({"a": fence}))
    (outcome,) = send(brokers, "a")
    assert isinstance(outcome, TransientFailure) and len(brokers.made) == 2


@pytest.mark.parametrize(("fate", "failed"), [(SILENT, 1), (STUCK, 2)])
def test_a_report_that_never_comes_is_waited_for_as_long_as_a_delivery_takes_and_ends_the_client(
    fate: str, failed: int
) -> None:
    clock, brokers = Clock(), Brokers(Client({"a": fate}), Client({}))
    producer = KafkaProducer({}, delivery_seconds=2, make=brokers, clock=clock)
    outcomes = producer.send(records("a", "b"))
    assert [type(each) for each in outcomes] == [TransientFailure] * failed + [type(None)] * (2 - failed)
    assert "no report" in str(outcomes[0]) and clock.now < 4
    # What is not known to be delivered counts as failed. The next send has another client.
    assert producer.send(records("a")) == [None]


def test_a_failed_delivery_names_the_trouble_of_its_own_time_and_none_that_was_over_long_before() -> None:
    clock, brokers = Clock(), Brokers(Client({"a": error(KafkaError._MSG_TIMED_OUT)}))
    producer = KafkaProducer({}, delivery_seconds=2, make=brokers, clock=clock)
    producer.send(records("b"))
    brokers.made[0]["error_cb"](error(KafkaError._TRANSPORT))
    (failed,) = producer.send(records("a"))
    assert isinstance(failed, TransientFailure)
    assert failed.error == "the delivery timed out (last trouble: _TRANSPORT)"
    clock.now += 3600
    (failed,) = producer.send(records("a"))
    assert isinstance(failed, TransientFailure) and failed.error == "the delivery timed out"


def test_a_full_queue_is_waited_for_and_not_grown() -> None:
    assert send(Brokers(Client({}, room=2)), *"abcdefg") == [None] * 7


def test_a_queue_that_stays_full_ends_the_send_in_time() -> None:
    clock = Clock()
    producer = KafkaProducer({}, delivery_seconds=2, make=Brokers(Client({}, room=0)), clock=clock)
    assert [type(each) for each in producer.send(records("a", "b"))] == [TransientFailure] * 2
    assert clock.now < 4


def test_neither_order_nor_durability_nor_topics_are_left_to_the_options() -> None:
    brokers = Brokers(Client({}))
    options = {"acks": "0", "enable.idempotence": False, "compression.type": "zstd", "ssl.ca.location": "x"}
    KafkaProducer(options, delivery_seconds=2, make=brokers, clock=Clock()).send(records("a"))
    (made,) = brokers.made
    assert (made["acks"], made["enable.idempotence"], made["allow.auto.create.topics"]) == (
        "all",
        True,
        False,
    )
    assert (made["compression.type"], made["ssl.ca.location"]) == ("zstd", "x")
    assert made["delivery.timeout.ms"] == 2000


def test_options_that_librdkafka_refuses_are_wrong_settings_and_never_printed() -> None:
    producer = KafkaProducer({"bootstrap.servers": "b", "security.protocol": "secret-value"})
    with pytest.raises(UsageError, match=r"check kafka\.options") as raised:
        producer.send(records("a"))
    assert "secret-value" not in str(raised.value)


def test_a_send_has_a_client_for_itself_and_leaves_it_to_the_next() -> None:
    first, second = Client({}), Client({})
    producer = KafkaProducer({}, make=Brokers(first, second), clock=Clock())
    during = iter([lambda: producer.send(records("b"))])
    first.on_flush = lambda: next(during, list)()
    producer.send(records("a"))
    assert (first.taken, second.taken) == (["a"], ["b"])
    producer.send(records("c"))
    assert first.taken == ["a", "c"]


def test_after_a_close_a_send_connects_again_even_if_another_was_under_way() -> None:
    first, second, third = Client({}), Client({}), Client({})
    brokers = Brokers(first, second, third)
    producer = KafkaProducer({}, make=brokers, clock=Clock())
    producer.close()
    assert not brokers.made
    producer.send(records("a"))
    producer.close()
    second.on_flush = producer.close
    assert producer.send(records("b")) == [None] and second.taken == ["b"]
    assert producer.send(records("c")) == [None] and third.taken == ["c"]


@pytest.mark.parametrize(
    "record",
    [("topic", "key", b"value", None), ("topic", "key", b"value", [("name", b"text")])],
    ids=["no headers", "headers"],
)
def test_the_real_client_takes_a_record_with_and_without_headers(record: OutgoingRecord) -> None:
    producer = KafkaProducer({"bootstrap.servers": "127.0.0.1:1"}, delivery_seconds=0.2)
    # There is no broker, which is all that is wrong.
    (outcome,) = producer.send([record])
    producer.close()
    assert isinstance(outcome, TransientFailure)
