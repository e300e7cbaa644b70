"""Reading Kafka as a log, on a consumer that says what a test wants: ends, gaps, silence, offsets that are gone."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ClusterMetadata, TopicMetadata

from regworkers_core.adapters.kafka.admin import KafkaAdmin, classify_kafka
from regworkers_core.adapters.kafka.log import KafkaLog, Partition, Span
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.settings import KafkaSettings

ONE, TWO = Partition("topic", 0), Partition("topic", 1)


@dataclass(frozen=True)
class Message:
    """A record, or with `code` an event about its partition."""

    place: Partition
    at: int
    code: int | None = None

    def topic(self) -> str:
        return self.place.topic

    def partition(self) -> int:
        return self.place.number

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return b"key"

    def value(self) -> bytes:
        return b"value"

    def error(self) -> KafkaError | None:
        return None if self.code is None else KafkaError(self.code)


def end(place: Partition, at: int) -> Message:
    return Message(place, at, KafkaError._PARTITION_EOF)


class FakeConsumer:
    """Answers `consume` with what it was given, then with silence, during which the clock goes on."""

    def __init__(self, *answers: list[Message], low: int = 0, high: int = 0) -> None:
        self._answers, self._low, self._high, self.now = list(answers), low, high, 0.0
        self.paused: list[Partition] = []
        self.metadata = ClusterMetadata()
        self.named = KafkaError.UNKNOWN_TOPIC_OR_PART

    def consume(self, _number: int, timeout: float) -> list[Message]:
        if self._answers:
            return self._answers.pop(0)
        self.now += timeout
        return []

    def get_watermark_offsets(self, _place: Any, **_: Any) -> tuple[int, int] | None:
        return None if self._low < 0 else (self._low, self._high)

    def list_topics(self, **_: Any) -> ClusterMetadata:
        return self.metadata

    def describe_topics(self, _topics: Any, **_: Any) -> dict[str, Future[Any]]:
        answer: Future[Any] = Future()
        answer.set_exception(KafkaException(KafkaError(self.named)))
        return {"topic": answer}

    def assign(self, _places: Any) -> None: ...

    def unassign(self) -> None: ...

    def pause(self, places: Any) -> None:
        self.paused += [Partition(each.topic, each.partition) for each in places]

    def close(self) -> None: ...


SETTINGS = KafkaSettings(bootstrap="127.0.0.1:1", timeout_seconds=1.0)


def guard() -> Dependency:
    return Dependency("kafka", classify_kafka, policy=RetryPolicy(attempts=1))


def log_of(consumer: FakeConsumer) -> KafkaLog:
    return KafkaLog(
        SETTINGS,
        guard(),
        name="test",
        security={},
        connect=lambda *_, **__: consumer,
        clock=lambda: consumer.now,
    )


def read(consumer: FakeConsumer, spans: dict[Partition, Span]) -> tuple[list[int], dict[Partition, int]]:
    offsets: list[int] = []
    positions: dict[Partition, int] = {}
    for chunk in log_of(consumer).read(spans):
        offsets += [record.offset for record in chunk.records]
        positions |= chunk.positions
    return offsets, positions


def test_records_after_the_requested_end_are_left_for_the_next_read() -> None:
    consumer = FakeConsumer([Message(ONE, 3), Message(ONE, 4), Message(ONE, 5)], [Message(TWO, 0)])
    assert read(consumer, {ONE: Span(3, 5), TWO: Span(0, 1)}) == ([3, 4, 0], {ONE: 5, TWO: 1})
    assert consumer.paused == [ONE, TWO], "nothing more is fetched of a partition that is done"


def test_offsets_without_a_record_at_the_end_of_a_partition_are_passed() -> None:
    assert read(FakeConsumer([Message(ONE, 3)], [end(ONE, 6)]), {ONE: Span(3, 6)}) == ([3], {ONE: 6})


def test_a_gap_at_the_end_of_the_span_is_passed() -> None:
    assert read(FakeConsumer([Message(ONE, 3), Message(ONE, 9)]), {ONE: Span(3, 6)}) == ([3], {ONE: 6})


def test_what_cannot_be_read_yet_is_not_passed() -> None:
    # An open transaction: the partition ends, for readers, before its last offset.
    assert read(FakeConsumer([Message(ONE, 3)], [end(ONE, 4)]), {ONE: Span(3, 9)}) == ([3], {ONE: 4})


def test_the_end_is_the_one_that_comes_with_the_records() -> None:
    consumer = FakeConsumer([Message(ONE, 7)], [end(TWO, 2)], low=1, high=12)
    assert log_of(consumer).bounds([ONE, TWO]) == {ONE: Span(1, 12), TWO: Span(1, 2)}


def test_a_silent_broker_is_unavailable() -> None:
    with pytest.raises(TransientFailure, match="no answer from 1 partitions"):
        read(FakeConsumer([Message(TWO, 0)]), {ONE: Span(0, 1), TWO: Span(0, 1)})
    with pytest.raises(TransientFailure, match="no offsets"):
        log_of(FakeConsumer(low=-1)).bounds([ONE])


@pytest.mark.parametrize("code", [KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE])
def test_missing_offsets_end_the_reading_and_are_not_skipped(code: int) -> None:
    with pytest.raises(TransientFailure, match="the offsets changed"):
        read(FakeConsumer([Message(ONE, 0), Message(ONE, 1, code)]), {ONE: Span(0, 5)})


def test_an_error_of_the_broker_is_transient_and_a_refused_login_is_the_operators() -> None:
    with pytest.raises(TransientFailure, match="_TRANSPORT"):
        read(FakeConsumer([Message(ONE, 0, KafkaError._TRANSPORT)]), {ONE: Span(0, 5)})
    with pytest.raises(UsageError, match=r"kafka\.options"):
        read(FakeConsumer([Message(ONE, 0, KafkaError._AUTHENTICATION)]), {ONE: Span(0, 5)})


def test_no_address_is_an_error_of_the_settings() -> None:
    dependency = Dependency("kafka", classify_kafka, policy=RetryPolicy())
    with pytest.raises(UsageError, match="REGWORKERS_KAFKA__BOOTSTRAP"):
        KafkaLog(KafkaSettings(), dependency, name="test", security={})


@pytest.mark.parametrize(
    ("code", "meaning", "said"),
    [
        (KafkaError.UNKNOWN, TransientFailure, "UNKNOWN"),
        (KafkaError.LEADER_NOT_AVAILABLE, TransientFailure, "LEADER_NOT_AVAILABLE"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, UsageError, "refuses the access"),
    ],
)
def test_a_topic_that_the_brokers_list_with_an_error_is_neither_missing_nor_well(
    code: int, meaning: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer, topic = FakeConsumer(), TopicMetadata()
    topic.error = KafkaError(code)
    consumer.metadata.topics = {"topic": topic}
    with pytest.raises(meaning, match=said):
        log_of(consumer).partitions(["topic"])
    with pytest.raises(meaning, match=said):
        admin_of(consumer, monkeypatch).probe(["topic"])


def test_a_topic_that_is_in_no_list_is_denied_or_missing_as_the_brokers_say_of_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer = FakeConsumer()
    admin = admin_of(consumer, monkeypatch)
    with pytest.raises(UsageError, match="topic topic does not exist"):
        admin.probe(["topic"])
    consumer.named = KafkaError.TOPIC_AUTHORIZATION_FAILED
    with pytest.raises(UsageError, match="refuses the access"):
        admin.probe(["topic"])


def admin_of(client: FakeConsumer, monkeypatch: pytest.MonkeyPatch) -> KafkaAdmin:
    no_credentials: Any = None
    admin = KafkaAdmin(SETTINGS, guard(), no_credentials)
    monkeypatch.setattr(admin, "_client", lambda: client)
    return admin
