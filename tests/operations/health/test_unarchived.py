"""How far the archive is behind Kafka, on a real broker."""

from __future__ import annotations

import time

import pytest

from regworkers_core.adapters.kafka.log import KafkaLog
from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.health.sources import read_unarchived
from regworkers_core.runtime import Runtime
from tests.analytics.archive.world import archived, event, produce

DAY = 86_400.0


def test_the_oldest_event_that_is_not_archived_is_known_with_the_retention_of_its_topic(
    runtime: Runtime,
) -> None:
    produce(runtime, event(0), topic=0)
    archived(runtime)
    produce(runtime, event(1), event(2), topic=0)
    produce(runtime, event(3), topic=1)
    runtime.kafka_admin.set_config(runtime.names.topics[1], {"retention.ms": "-1"})
    later = Runtime(runtime.settings, clock=lambda: time.time() + DAY)
    first, second, *others = sorted(
        read_unarchived(later), key=lambda each: runtime.names.topics.index(each.topic)
    )
    # The embedded broker does not count all of its last batch.
    assert first.waiting in (1, 2) and first.retention_seconds == 7 * DAY
    assert first.oldest_seconds is not None and DAY - 60 < first.oldest_seconds < DAY + 60
    assert (second.waiting, second.retention_seconds) == (1, None)
    assert [(each.waiting, each.oldest_seconds) for each in others] == [(0, None)] * 2


def test_a_topic_that_is_archived_to_its_end_has_nothing_left_where_the_broker_lists_that_end_late(
    runtime: Runtime,
) -> None:
    produce(runtime, *(event(number) for number in range(20)), topic=0)
    archived(runtime)
    assert {(each.waiting, each.oldest_seconds) for each in read_unarchived(runtime)} == {(0, None)}


def test_topics_that_the_broker_does_not_show_are_not_taken_for_archived(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_wanted: object) -> None:
        raise UsageError("Kafka refuses the access")

    monkeypatch.setattr(KafkaLog, "partitions", lambda *_: {})
    monkeypatch.setattr(runtime.kafka_admin, "probe", denied)
    with pytest.raises(UsageError, match="refuses the access"):
        read_unarchived(runtime)
