"""What the simulated MongoDB, Redis and Kafka do that the embedded ones do not, or that only a fault shows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition
from pymongo import InsertOne, UpdateOne
from pymongo.errors import AutoReconnect, BulkWriteError, DuplicateKeyError, OperationFailure, WriteError

from tests.simulation.gates import HeldGate
from tests.simulation.servers import kafka_client
from tests.simulation.servers.kafka import Kafka, Refusal
from tests.simulation.servers.mongo import REPLICATION_SECONDS, Mongo
from tests.simulation.servers.mongo_client import Client, Collection
from tests.simulation.servers.redis import Redis


class Gate(HeldGate):
    """`losing` is raised before (`sends` False) or after the next calls of an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.losing: list[Exception] = []
        self.sends = True
        self.asked: list[str] = []

    def before(self, server: str, operation: str, request: Any) -> None:
        self.asked.append(operation)
        if self.losing and not self.sends:
            raise self.losing.pop(0)

    def after(self, server: str, operation: str, request: Any) -> None:
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()
        if self.losing:
            raise self.losing.pop(0)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def mongo() -> Mongo:
    return Mongo()


@pytest.fixture
def rows(mongo: Mongo, gate: Gate) -> Collection:
    return Client(mongo, gate)["d"]["c"]


# MongoDB.


def guarded(identity: str, version: int) -> UpdateOne:
    query = {"_id": identity, "$nor": [{"r.version": {"$gte": version}}]}
    return UpdateOne(query, {"$set": {"r": {"version": version}}}, upsert=True)


def test_an_ordered_bulk_ends_at_its_first_error_and_an_unordered_one_does_not(rows: Collection) -> None:
    documents = [InsertOne({"_id": "a"}), InsertOne({"_id": "a"}), InsertOne({"_id": "b"})]
    with pytest.raises(BulkWriteError):
        rows.bulk_write(documents)
    assert rows.count_documents({}) == 1
    with pytest.raises(BulkWriteError):
        rows.bulk_write(documents, ordered=False)
    assert rows.count_documents({}) == 2


def test_parts_of_a_bulk_may_be_interrupted(rows: Collection, gate: Gate) -> None:
    gate.skipped = [1]
    with pytest.raises(BulkWriteError) as raised:
        rows.bulk_write([guarded(each, 1) for each in "abc"], ordered=False)
    (error,) = raised.value.details["writeErrors"]
    assert error["index"] == 1 and error["code"] in (91, 189, 11602)
    assert rows.distinct("_id") == ["a", "c"]


def test_what_the_majority_acknowledged_survives_an_election(
    mongo: Mongo, rows: Collection, gate: Gate
) -> None:
    rows.insert_one({"_id": "a"})
    assert mongo.elect(gate.now() + 5, rolls_back=True) == 0
    with pytest.raises(AutoReconnect):
        rows.find_one({})
    gate.time += 5
    assert rows.find_one({}) == {"_id": "a"}


def test_a_write_without_a_majority_may_be_lost_until_it_is_replicated(mongo: Mongo, gate: Gate) -> None:
    careless = Client(mongo, gate, w=1)["d"]["c"]
    careless.insert_one({"_id": "a", "n": 1})
    gate.time += 2 * REPLICATION_SECONDS
    careless.update_one({"_id": "a"}, {"$set": {"n": 2}})
    careless.insert_one({"_id": "b"})
    assert mongo.elect(gate.now(), rolls_back=True) == 2
    assert list(careless.find()) == [{"_id": "a", "n": 1}]


@pytest.mark.parametrize("rolls_back", [True, False])
def test_an_election_during_a_write_leaves_its_outcome_open(
    mongo: Mongo, rows: Collection, gate: Gate, rolls_back: bool
) -> None:
    gate.meanwhile = lambda: mongo.elect(gate.now(), rolls_back=rolls_back)
    with pytest.raises(AutoReconnect):
        rows.insert_one({"_id": "a"})
    assert rows.count_documents({}) == (0 if rolls_back else 1)


def test_a_later_acknowledgement_covers_what_came_before_it(
    mongo: Mongo, rows: Collection, gate: Gate
) -> None:
    gate.losing = [AutoReconnect("lost")]
    with pytest.raises(AutoReconnect):
        rows.insert_one({"_id": "a"})
    rows.insert_one({"_id": "b"})
    assert mongo.elect(gate.now(), rolls_back=True) == 0 and rows.count_documents({}) == 2


def test_a_rollback_gives_a_unique_value_back(mongo: Mongo, gate: Gate) -> None:
    rows = Client(mongo, gate, w=1)["d"]["c"]
    rows.create_index("n", unique=True)
    rows.insert_one({"_id": "a", "n": 1})
    with pytest.raises(DuplicateKeyError) as raised:
        rows.insert_one({"_id": "b", "n": 1})
    assert raised.value.details is not None and raised.value.details["keyPattern"] == {"n": 1}
    mongo.elect(gate.now(), rolls_back=True)
    rows.insert_one({"_id": "b", "n": 1})


def test_the_monitor_removes_what_expired_once_a_minute(rows: Collection, gate: Gate) -> None:
    rows.create_index("at", expireAfterSeconds=60)
    rows.insert_many(
        [{"_id": "a", "at": datetime.fromtimestamp(gate.now(), UTC)}, {"_id": "b", "at": "text"}]
    )
    gate.time += 59
    assert rows.count_documents({}) == 2
    gate.time += 62
    assert rows.distinct("_id") == ["b"]


def test_documents_are_copied_in_and_out(rows: Collection) -> None:
    given: dict[str, Any] = {"_id": "a", "of": {"n": [1]}}
    rows.insert_one(given)
    given["of"]["n"].append(2)
    for found in (rows.find_one({}), next(rows.find({}, {"of": 1})), next(rows.aggregate([{"$match": {}}]))):
        assert found == {"_id": "a", "of": {"n": [1]}}
        found["of"]["n"].append(3)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({"n": 1}, [1, 2]),
        ({"n": None}, [4, 5]),
        ({"n": {"$exists": False}}, [5]),
        # No type but its own is greater or less.
        ({"n": {"$gte": 1}}, [1, 2, 6]),
        ({"n": {"$lt": "b"}}, [3]),
        ({"n": {"$ne": 1}}, [3, 4, 5, 6, 7]),
        ({"n": {"$in": [True, "a"]}}, [3, 7]),
        ({"n": 3}, [6]),
        ({"$or": [{"n": "a"}, {"_id": 1}]}, [1, 3]),
        ({"$nor": [{"n": {"$gte": 1}}]}, [3, 4, 5, 7]),
    ],
)
def test_filters_compare_as_bson_does(rows: Collection, query: dict[str, Any], ids: list[int]) -> None:
    values: list[dict[str, Any]] = [
        {"n": 1},
        {"n": 1.0},
        {"n": "a"},
        {"n": None},
        {},
        {"n": [2, 3]},
        {"n": True},
    ]
    rows.insert_many([{"_id": number, **value} for number, value in enumerate(values, 1)])
    assert [each["_id"] for each in rows.find(query, sort=[("_id", 1)])] == ids


@pytest.mark.parametrize(
    ("update", "code"),
    [
        ({"$set": {"a": 1, "a.b": 2}}, 40),
        ({"$set": {"n.x": 1}}, 28),
        ({"$set": {"_id": "other"}}, 66),
        ({"$inc": {"text": 1}}, 14),
        ({"$what": {"a": 1}}, 9),
    ],
)
def test_updates_are_refused_with_the_servers_codes(
    rows: Collection, update: dict[str, Any], code: int
) -> None:
    rows.insert_one({"_id": "a", "n": 1, "text": "x"})
    with pytest.raises(WriteError) as raised:
        rows.update_one({"_id": "a"}, update)
    assert raised.value.code == code
    assert rows.find_one({}) == {"_id": "a", "n": 1, "text": "x"}


def test_indexes_conflict_with_the_servers_codes(rows: Collection) -> None:
    rows.insert_many([{"_id": "a", "n": 1}, {"_id": "b", "n": 1}])
    codes = []
    rows.create_index([("at", 1)], expireAfterSeconds=60)
    for keys, options in (
        ([("at", 1)], {"expireAfterSeconds": 90}),
        ([("at", 1)], {"name": "other"}),
        ([("other", 1)], {"name": "at_1"}),
        ([("n", 1)], {"unique": True}),
    ):
        with pytest.raises(OperationFailure) as raised:
            rows.create_index(keys, **options)
        codes.append(raised.value.code)
    assert codes == [85, 85, 86, 11000]


def test_a_cursor_reads_a_batch_when_it_comes_to_it(rows: Collection, gate: Gate) -> None:
    rows.insert_many([{"_id": number, "n": 0} for number in range(5)])
    cursor = rows.find({"n": 0}, batch_size=2)
    assert next(cursor)["_id"] == 0
    rows.delete_one({"_id": 2})
    rows.update_one({"_id": 3}, {"$set": {"n": 1}})
    assert [each["_id"] for each in cursor] == [1, 4]
    assert gate.asked.count("getMore") == 2


# Redis.


def test_keys_live_by_the_clock_of_the_gate(gate: Gate) -> None:
    client = Redis().client(gate)
    assert client.set("a", "1", px=1000) and client.set("a", "2", nx=True) is None
    assert (client.get("a"), client.pttl("a")) == (b"1", 1000)
    gate.time += 1
    assert client.get("a") is None and client.pttl("a") == -2
    assert client.set("a", "2", nx=True) and client.pttl("a") == -1


def test_a_failover_lacks_the_last_changes(gate: Gate) -> None:
    server = Redis()
    client = server.client(gate)
    client.set("a", "1")
    client.set("a", "2")
    client.delete("a")
    assert server.fail_over(2) == 2 and client.get("a") == b"1"


# Kafka.

LOST = KafkaException(KafkaError(KafkaError._TRANSPORT))
Outcomes = list[KafkaError | None]


@pytest.fixture
def kafka() -> Kafka:
    server = Kafka()
    server.create("t", 1, 1, {"retention.ms": "60000"})
    return server


def producer(kafka: Kafka, gate: Gate, **options: Any) -> kafka_client.Producer:
    return kafka_client.Producer(
        kafka, gate, {"enable.idempotence": True, "delivery.timeout.ms": 2000, **options}
    )


def send(made: kafka_client.Producer, *values: bytes, topic: str = "t") -> Outcomes:
    """Produce and poll as long as the time-out of the delivery lets it."""
    outcomes: Outcomes = []
    for value in values:
        made.produce(topic, value, "key", on_delivery=lambda error, _: outcomes.append(error))
    for _ in range(100):
        if len(outcomes) < len(values):
            made.poll(0.05)
    return outcomes


def read(
    kafka: Kafka, gate: Gate, offset: int = OFFSET_BEGINNING
) -> list[tuple[int, bytes | None, int | None]]:
    options = {"enable.partition.eof": True, "auto.offset.reset": "error"}
    consumer = kafka_client.Consumer(kafka, gate, options)
    consumer.assign([TopicPartition("t", 0, offset)])
    found = []
    for message in consumer.consume(500, timeout=0.1):
        error = message.error()
        found.append((message.offset(), message.value(), None if error is None else error.code()))
    return found


def test_an_answer_that_gets_lost_leaves_one_record(kafka: Kafka, gate: Gate) -> None:
    gate.losing = [LOST, LOST]
    assert send(producer(kafka, gate), b"a", b"b") == [None, None]
    assert read(kafka, gate) == [(0, b"a", None), (1, b"b", None), (2, None, KafkaError._PARTITION_EOF)]


def test_without_idempotence_it_leaves_two(kafka: Kafka, gate: Gate) -> None:
    gate.losing = [LOST]
    assert send(producer(kafka, gate, **{"enable.idempotence": False}), b"a") == [None]
    assert [value for _, value, _ in read(kafka, gate)] == [b"a", b"a", None]


def test_a_delivery_that_timed_out_may_have_been_written(kafka: Kafka, gate: Gate) -> None:
    gate.losing = [LOST] * 50
    (error,) = send(producer(kafka, gate), b"a")
    assert error is not None and error.code() == KafkaError._MSG_TIMED_OUT
    gate.losing = []
    assert len(read(kafka, gate)) == 2


def test_a_fatal_error_ends_the_producer(kafka: Kafka, gate: Gate) -> None:
    gate.losing, gate.sends = [KafkaException(KafkaError(KafkaError.UNKNOWN_PRODUCER_ID, fatal=True))], False
    made = producer(kafka, gate)
    (error,) = send(made, b"a")
    assert error is not None and error.fatal()
    with pytest.raises(KafkaException, match="_FATAL"):
        made.produce("t", b"b")
    assert send(producer(kafka, gate), b"a") == [None]


@pytest.mark.parametrize(
    ("topic", "value", "code"),
    [("none", b"a", KafkaError._UNKNOWN_TOPIC), ("t", b"x" * 1_048_600, KafkaError.MSG_SIZE_TOO_LARGE)],
)
def test_what_the_brokers_never_take_is_reported(
    kafka: Kafka, gate: Gate, topic: str, value: bytes, code: int
) -> None:
    options = {"topic.metadata.propagation.max.ms": 1000, "message.max.bytes": 2_000_000}
    (error,) = send(producer(kafka, gate, **options), value, topic=topic)
    assert error is not None and error.code() == code


def test_a_partition_without_a_leader_is_waited_for(kafka: Kafka, gate: Gate) -> None:
    (partition,) = kafka.topics["t"].partitions
    partition.has_leader = False

    def elect() -> None:
        partition.has_leader = True

    made, reported = producer(kafka, gate), list[Any]()
    made.produce("t", b"a", on_delivery=lambda error, _: reported.append(error))
    assert made.poll(0.05) == 0 and not reported
    elect()
    gate.time += 0.2
    assert made.poll(0.05) == 1 and reported == [None]


def test_retention_moves_the_first_offset_and_a_reader_behind_it_gets_an_error(
    kafka: Kafka, gate: Gate
) -> None:
    send(producer(kafka, gate), b"a")
    gate.time += 61
    send(producer(kafka, gate), b"b")
    admin = kafka_client.Consumer(kafka, gate, {})
    assert admin.get_watermark_offsets(TopicPartition("t", 0)) == (1, 2)
    assert read(kafka, gate, 0) == [(0, None, KafkaError._AUTO_OFFSET_RESET)]
    assert read(kafka, gate)[0] == (1, b"b", None)


def test_a_lost_fetch_is_silence_and_is_asked_again(kafka: Kafka, gate: Gate) -> None:
    send(producer(kafka, gate), b"a")
    gate.losing = [LOST]
    assert read(kafka, gate)[0] == (0, b"a", None)


@pytest.mark.parametrize(
    ("name", "partitions", "replicas", "config", "code"),
    [
        ("t", 1, 1, {}, KafkaError.TOPIC_ALREADY_EXISTS),
        ("u", 1, 4, {}, KafkaError.INVALID_REPLICATION_FACTOR),
        ("u", 0, 1, {}, KafkaError.INVALID_PARTITIONS),
        ("u", 1, 1, {"what": "1"}, KafkaError.INVALID_CONFIG),
    ],
)
def test_topics_are_refused_with_the_brokers_codes(
    kafka: Kafka, name: str, partitions: int, replicas: int, config: dict[str, str], code: int
) -> None:
    with pytest.raises(Refusal) as raised:
        kafka.create(name, partitions, replicas, config)
    assert raised.value.error.code() == code


def test_records_with_one_key_share_a_partition(gate: Gate) -> None:
    kafka = Kafka()
    topic = kafka.create("t", 4, 3, {})
    made = producer(kafka, gate)
    keys: Sequence[str] = ("a", "b", "c", "d", "e")
    for _ in range(3):
        for key in keys:
            made.produce("t", b"v", key)
    assert made.flush(1) == 0
    for key in keys:
        assert [sum(each.key == key.encode() for each in one.records) for one in topic.partitions].count(
            3
        ) == 1
