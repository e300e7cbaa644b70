"""What only Apache Kafka does: rules of access, and replicas that have to be in sync. `make conformance-kafka`."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from regworkers_core.adapters.kafka.producer import OutgoingRecord
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.runtime import Runtime
from regworkers_local.servers import HOST
from tests.conformance.servers import KAFKA_JARS_VARIABLE, free_port, kafka_node
from tests.support.certificates import Authority
from tests.support.runtimes import test_settings
from tests.support.tls_proxy import SecureKafka, kafka_over_tls
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(KAFKA_JARS_VARIABLE not in os.environ, reason="runs by `make conformance-kafka`"),
]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with kafka_over_tls(Authority(), tmp_path_factory.mktemp("kafka")) as secure:
        yield secure


@pytest.fixture
def admin(kafka: SecureKafka) -> AdminClient:
    """A client that may do everything."""
    return AdminClient(kafka.options(kafka.authority.client("setup")))


@pytest.fixture
def workers(kafka: SecureKafka) -> Iterator[Runtime]:
    """The principal `User:CN=regworkers`."""
    options = kafka.options(kafka.authority.client("regworkers"))
    made = runtime_of({"bootstrap": options.pop("bootstrap.servers"), "options": options})
    yield made
    made.events.close()


def runtime_of(kafka: dict[str, Any]) -> Runtime:
    kafka |= {"timeout_seconds": 5.0, "delivery_seconds": 3.0}
    return Runtime(test_settings("", kafka=kafka, retry={"attempts": 1, "total_seconds": 5.0}))


def new_topic(admin: AdminClient, *, replicas: int = 1, **config: str) -> str:
    name = f"t{uuid.uuid4().hex[:8]}"
    admin.create_topics([NewTopic(name, 1, replicas, config=config)])[name].result(timeout=10)
    return name


def allow(admin: AdminClient, topic: str, principal: str, operation: AclOperation) -> None:
    """Where one rule names a topic, what no rule allows is denied."""
    rule = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        f"User:CN={principal}",
        "*",
        operation,
        AclPermissionType.ALLOW,
    )
    for created in admin.create_acls([rule]).values():
        created.result(timeout=10)


def send(workers: Runtime, topic: str) -> BaseException | None:
    [failure] = workers.events.send([OutgoingRecord(topic, "k", b"event", [])])
    return failure


def test_an_event_is_not_acknowledged_by_fewer_replicas_than_have_to_be_in_sync(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    ports = [free_port(), free_port()]
    with kafka_node(folders[0], ports[0], "PLAINTEXT", {}) as controller:
        bootstrap = f"{HOST}:{ports[0]}"
        admin = AdminClient({"bootstrap.servers": bootstrap})
        runtime = runtime_of({"bootstrap": bootstrap})
        with kafka_node(folders[1], ports[1], "PLAINTEXT", {}, controller=controller):
            wait_until(lambda: len(admin.list_topics(timeout=10).brokers) == 2, what="the second broker")
            topic = new_topic(admin, replicas=2, **{"min.insync.replicas": "2"})
            assert send(runtime, topic) is None

        def in_sync() -> int:
            return len(admin.list_topics(topic, timeout=10).topics[topic].partitions[0].isrs)

        wait_until(lambda: in_sync() == 1, what="the end of the second broker", seconds=30)
        assert isinstance(send(runtime, topic), TransientFailure)
        runtime.events.close()


def test_the_principal_of_a_certificate_may_do_what_the_rules_allow(
    admin: AdminClient, workers: Runtime
) -> None:
    topic = new_topic(admin)
    allow(admin, topic, "regworkers", AclOperation.WRITE)
    assert send(workers, topic) is None


def test_a_topic_that_the_rules_keep_from_the_workers_refuses_their_events(
    admin: AdminClient, workers: Runtime
) -> None:
    topic = new_topic(admin)
    allow(admin, topic, "another", AclOperation.WRITE)
    with pytest.raises(UsageError, match=f"{topic}: check the rights of this client"):
        send(workers, topic)
