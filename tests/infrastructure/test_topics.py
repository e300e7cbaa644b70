"""What provisioning does about topics that exist."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from pydantic import ValidationError

from regworkers_core.adapters.kafka.admin import TopicState
from regworkers_core.domain.reasons import UsageError
from regworkers_core.infrastructure.provision import difference, provision_topics
from regworkers_core.runtime import Runtime
from regworkers_core.settings import KafkaSettings
from tests.support.runtimes import test_settings

WANTED = KafkaSettings(partitions=12, replication_factor=3, retention_days=7)
WELL = TopicState(12, 0, 0, 3)
WEEK = "604800000"


@pytest.mark.parametrize(
    ("state", "config", "set_", "partitions", "by_hand"),
    [
        (WELL, {"min.insync.replicas": "2", "retention.ms": WEEK}, {}, 0, False),
        (WELL, {"min.insync.replicas": "2", "retention.ms": "-1"}, {}, 0, False),
        (WELL, {"min.insync.replicas": "2", "retention.ms": "1209600000"}, {}, 0, False),
        (WELL, {"min.insync.replicas": "1", "retention.ms": WEEK}, {"min.insync.replicas": "2"}, 0, False),
        (WELL, {"min.insync.replicas": "2", "retention.ms": "3600000"}, {"retention.ms": WEEK}, 0, False),
        (WELL, {}, {"min.insync.replicas": "2", "retention.ms": WEEK}, 0, False),
        (
            WELL,
            {
                "min.insync.replicas": "2",
                "retention.ms": WEEK,
                "cleanup.policy": "compact",
                "retention.bytes": "1000",
            },
            {"cleanup.policy": "delete", "retention.bytes": "-1"},
            0,
            False,
        ),
        (
            WELL,
            {
                "min.insync.replicas": "2",
                "retention.ms": WEEK,
                "cleanup.policy": "delete",
                "retention.bytes": "-1",
            },
            {},
            0,
            False,
        ),
        (TopicState(24, 0, 0, 5), {"min.insync.replicas": "2", "retention.ms": WEEK}, {}, 0, False),
        (TopicState(6, 0, 0, 3), {"min.insync.replicas": "2", "retention.ms": WEEK}, {}, 12, False),
        (TopicState(12, 0, 0, 1), {"min.insync.replicas": "2", "retention.ms": WEEK}, {}, 0, True),
    ],
)
def test_a_topic_is_compared_setting_by_setting(
    state: TopicState, config: dict[str, str], set_: dict[str, str], partitions: int, by_hand: bool
) -> None:
    found = difference(state, config, WANTED)
    assert (found.config, found.partitions, bool(found.by_hand)) == (set_, partitions, by_hand)
    assert bool(found.notes) == bool(set_ or partitions)


@pytest.mark.parametrize(("replicas", "least"), [(1, "1"), (2, "1"), (3, "2")])
def test_all_replicas_but_one_have_an_event_before_it_is_acknowledged(replicas: int, least: str) -> None:
    assert KafkaSettings(replication_factor=replicas).topic_config["min.insync.replicas"] == least


def test_more_replicas_in_sync_than_there_are_is_refused() -> None:
    with pytest.raises(ValidationError, match="minInsyncReplicas is above replicationFactor"):
        KafkaSettings(replication_factor=2, min_insync_replicas=3)


@pytest.fixture
def bare() -> Iterator[Runtime]:
    """A namespace with one topic of another team's settings and the others missing."""
    runtime = Runtime(test_settings(f"t{uuid.uuid4().hex[:8]}-"))
    admin = AdminClient({"bootstrap.servers": str(runtime.settings.kafka.bootstrap)})
    first = runtime.names.topics[0]
    config = {"retention.ms": "3600000", "cleanup.policy": "delete"}
    for future in admin.create_topics([NewTopic(first, 1, 1, config=config)]).values():
        future.result(10)
    yield runtime
    for deleted in admin.delete_topics([*runtime.names.topics]).values():
        deleted.result(10)


def outcomes(runtime: Runtime, **options: Any) -> list[str]:
    return [each.outcome.value for each in provision_topics(runtime, **options)]


def test_a_topic_that_exists_is_reported_and_changed_only_when_asked(bare: Runtime) -> None:
    admin, (first, second, *_) = bare.kafka_admin, bare.names.topics
    assert outcomes(bare, change=False) == ["created"] * 3 + ["differs"]
    assert admin.configs([first])[first]["retention.ms"] == "3600000"
    (reported,) = [each for each in provision_topics(bare, change=False) if each.name == first]
    assert "retention.ms 3600000, wanted 604800000" in reported.note
    assert sorted(outcomes(bare, change=True)) == ["changed"] + ["existed"] * 3
    after = admin.configs([first])[first]
    assert (after["retention.ms"], after["min.insync.replicas"]) == (WEEK, "1")
    assert outcomes(bare, change=False) == ["existed"] * 4
    assert admin.configs([second])[second]["retention.ms"] == WEEK


def test_what_the_brokers_refuse_blocks_the_topic_and_names_it(
    bare: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_topics: object) -> dict[str, dict[str, str]]:
        raise UsageError("Kafka refuses the access (TOPIC_AUTHORIZATION_FAILED)")

    monkeypatch.setattr(bare.kafka_admin, "configs", refused)
    assert outcomes(bare, change=True) == ["created"] * 3 + ["blocked"]
