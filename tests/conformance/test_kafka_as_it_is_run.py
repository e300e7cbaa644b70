"""What only Apache Kafka shows: logins by token, topics that grow, rights, and replicas that have to be in sync.

These run by `make conformance-java`.
"""

from __future__ import annotations

import base64
import json
import os
import time
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

from regworkers_core.analytics.archive.manifest import LEASE
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.infrastructure.provision import provision_topics
from regworkers_core.runtime import Runtime
from regworkers_local.servers import HOST
from tests.conformance.servers import KAFKA_JARS_VARIABLE, free_port, kafka_node
from tests.support.certificates import Authority
from tests.support.runtimes import test_settings
from tests.support.tls_proxy import SecureKafka, kafka_over_tls
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(KAFKA_JARS_VARIABLE not in os.environ, reason="runs by `make conformance-java`"),
]
WEEK = "604800000"


def runtime_of(prefix: str, kafka: dict[str, Any]) -> Runtime:
    kafka |= {"timeout_seconds": 5.0, "delivery_seconds": 5.0}
    return Runtime(test_settings(prefix, kafka=kafka, retry={"attempts": 1, "total_seconds": 5.0}))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    with kafka_node(tmp_path_factory.mktemp("plain"), port, "PLAINTEXT", {}):
        yield f"{HOST}:{port}"


def test_topics_that_exist_are_compared_with_the_brokers_own_settings_and_grow(plain: str) -> None:
    runtime = runtime_of("grow-", {"bootstrap": plain, "partitions": 3})
    first, *others = runtime.names.topics
    admin = AdminClient({"bootstrap.servers": plain})
    admin.create_topics([NewTopic(first, 1, 1)])[first].result(timeout=10)
    assert runtime.kafka_admin.configs([first])[first]["retention.ms"] == WEEK, "Kafka's own default"
    outcomes = [each.outcome.value for each in provision_topics(runtime, change=False)]
    assert outcomes == ["created"] * 3 + ["differs"]
    outcomes = [each.outcome.value for each in provision_topics(runtime, change=True)]
    assert outcomes == ["changed"] + ["existed"] * 3

    def partitions() -> set[int]:
        topics = runtime.kafka_admin.cluster().topics
        return {topics[name].partitions for name in (first, *others)}

    # A broker learns of a change a moment after its controller.
    wait_until(lambda: partitions() == {3})
    longer = runtime_of("grow-", {"bootstrap": plain, "partitions": 3, "retention_days": 14})
    assert {each.outcome.value for each in provision_topics(longer, change=True)} == {"changed"}
    config = longer.kafka_admin.configs
    wait_until(lambda: config([first])[first]["retention.ms"] == str(2 * int(WEEK)))
    assert {each.outcome.value for each in provision_topics(runtime, change=True)} == {"existed"}


def test_more_replicas_than_brokers_are_named(plain: str) -> None:
    runtime = runtime_of("replicas-", {"bootstrap": plain, "replication_factor": 3})
    with pytest.raises(UsageError, match="INVALID_REPLICATION_FACTOR"):
        list(provision_topics(runtime, change=False))


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with kafka_over_tls(Authority(), tmp_path_factory.mktemp("kafka")) as secure:
        yield secure


def as_principal(kafka: SecureKafka, name: str, prefix: str) -> Runtime:
    options = kafka.options(kafka.authority.client(name))
    return runtime_of(prefix, {"bootstrap": options.pop("bootstrap.servers"), "options": options})


def allow(kafka: SecureKafka, principal: str, kind: ResourceType, name: str, *operations: str) -> None:
    admin = AdminClient(kafka.options(kafka.authority.client("setup")))
    pattern = ResourcePatternType.PREFIXED if kind is ResourceType.TOPIC else ResourcePatternType.LITERAL
    rules = [
        AclBinding(
            kind, name, pattern, f"User:CN={principal}", "*", AclOperation[each], AclPermissionType.ALLOW
        )
        for each in operations
    ]
    for created in admin.create_acls(rules).values():
        created.result(timeout=10)


def test_the_documented_rights_suffice_and_without_one_the_error_says_so(kafka: SecureKafka) -> None:
    """`docs/analytics.md`, Rights. Where one rule names a resource, what no rule allows is denied."""
    topics, group = "rights-regworkers.", f"rights-{LEASE}"
    allow(kafka, "provisioner", ResourceType.TOPIC, topics, "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS")
    allow(kafka, "provisioner", ResourceType.TOPIC, topics, "ALTER_CONFIGS", "ALTER")
    allow(kafka, "publisher", ResourceType.TOPIC, topics, "WRITE", "DESCRIBE")
    allow(kafka, "archiver", ResourceType.TOPIC, topics, "READ", "DESCRIBE", "DESCRIBE_CONFIGS")
    allow(kafka, "archiver", ResourceType.GROUP, group, "DESCRIBE")
    provisioner = as_principal(kafka, "provisioner", "rights-")
    assert {each.outcome.value for each in provision_topics(provisioner, change=True)} == {"created"}
    grown = provisioner.settings.kafka.model_copy(update={"partitions": 2, "retention_days": 9.0})
    provisioner = Runtime(provisioner.settings.model_copy(update={"kafka": grown}))
    assert {each.outcome.value for each in provision_topics(provisioner, change=True)} == {"changed"}

    publisher, archiver = (as_principal(kafka, name, "rights-") for name in ("publisher", "archiver"))
    topic = publisher.names.topics[0]
    assert publisher.events.send([(topic, "k", b"event", None)]) == [None]
    publisher.events.close()
    for peek in (False, True):
        with archiver.kafka_log(LEASE, peek=peek) as log:
            spans = log.bounds(log.partitions([topic])[topic])
            assert len(log.first_times(spans)) == 1
            assert [record.value for chunk in log.read(spans) for record in chunk.records] == [b"event"]
    assert archiver.kafka_admin.configs([topic])[topic]["retention.ms"] == str(9 * 86_400_000)

    with pytest.raises(UsageError, match="TOPIC_AUTHORIZATION_FAILED"):
        publisher.kafka_admin.configs([topic])
    with pytest.raises(UsageError, match="rights"):
        archiver.events.send([(topic, "k", b"event", None)])
    archiver.events.close()
    with publisher.kafka_log(LEASE) as log, pytest.raises(UsageError, match="AUTHORIZATION_FAILED"):
        log.first_times(log.bounds(log.partitions([topic])[topic]))


def unsecured(seconds: float) -> tuple[str, float]:
    """A token that Kafka's default validator takes."""
    now = time.time()

    def part(document: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    claims = {"sub": "workers", "iat": now, "exp": now + seconds}
    return f"{part({'alg': 'none'})}.{part(claims)}.", now + seconds


def test_producer_reader_and_admin_log_in_by_tokens_that_are_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, port = Authority(), free_port()
    made: list[tuple[str, float]] = []
    pair = authority.server()
    options = {
        "sasl.enabled.mechanisms": "OAUTHBEARER",
        "oauthbearer.sasl.jaas.config": "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule "
        'required unsecuredLoginStringClaim_sub="broker";',
        "oauthbearer.connections.max.reauth.ms": "4000",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.key": pair.key,
        "ssl.keystore.certificate.chain": pair.certificate,
    }

    def token(_configuration: object) -> tuple[str, float]:
        made.append(unsecured(5.0))
        return made[-1]

    monkeypatch.setattr("regworkers_core.runtime.msk_token", lambda *_: token)
    with kafka_node(tmp_path, port, "SASL_SSL", options):
        kafka = {"bootstrap": f"{HOST}:{port}", "aws_iam": True, "tls": {"ca": authority.pem}}
        runtime = runtime_of("tokens-", kafka)
        list(provision_topics(runtime, change=True))
        topic = runtime.names.topics[0]
        assert send(runtime, topic) is None
        ended = made[-1][1]
        wait_until(lambda: made[-1][1] > ended and time.time() > ended, what="the end of a renewed token")
        assert send(runtime, topic) is None
        with runtime.kafka_log(LEASE) as log:
            spans = log.bounds(log.partitions([topic])[topic])
            assert sum(len(chunk.records) for chunk in log.read(spans)) == 2
        assert topic in runtime.kafka_admin.cluster().topics
        runtime.events.close()


def new_topic(admin: AdminClient, *, replicas: int = 1, **config: str) -> str:
    name = f"t{uuid.uuid4().hex[:8]}"
    admin.create_topics([NewTopic(name, 1, replicas, config=config)])[name].result(timeout=10)
    return name


def send(workers: Runtime, topic: str) -> BaseException | None:
    [failure] = workers.events.send([(topic, "k", b"event", None)])
    return failure


def test_an_event_is_not_acknowledged_by_fewer_replicas_than_have_to_be_in_sync(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    ports = [free_port(), free_port()]
    with kafka_node(folders[0], ports[0], "PLAINTEXT", {}) as controller:
        bootstrap = f"{HOST}:{ports[0]}"
        admin = AdminClient({"bootstrap.servers": bootstrap})
        runtime = runtime_of("", {"bootstrap": bootstrap})
        with kafka_node(folders[1], ports[1], "PLAINTEXT", {}, controller=controller):
            wait_until(lambda: len(admin.list_topics(timeout=10).brokers) == 2, what="the second broker")
            topic = new_topic(admin, replicas=2, **{"min.insync.replicas": "2"})
            assert send(runtime, topic) is None

        def in_sync() -> int:
            return len(admin.list_topics(topic, timeout=10).topics[topic].partitions[0].isrs)

        wait_until(lambda: in_sync() == 1, what="the end of the second broker", seconds=30)
        assert isinstance(send(runtime, topic), TransientFailure)
        runtime.events.close()


@pytest.mark.parametrize("allowed", ["regworkers", "another"])
def test_the_principal_of_a_certificate_may_do_what_the_rules_allow_and_nothing_else(
    kafka: SecureKafka, allowed: str
) -> None:
    topic = new_topic(AdminClient(kafka.options(kafka.authority.client("setup"))))
    allow(kafka, allowed, ResourceType.TOPIC, topic, "WRITE")
    workers = as_principal(kafka, "regworkers", "")
    if allowed == "regworkers":
        assert send(workers, topic) is None
    else:
        with pytest.raises(UsageError, match=f"{topic}: check the rights of this client"):
            send(workers, topic)
    workers.events.close()
