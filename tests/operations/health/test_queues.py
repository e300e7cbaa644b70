"""The age of the oldest message of the analytics queue, from marks and from CloudWatch; on the real servers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from regworkers_core.adapters.mongo.activity import QueueActivity
from regworkers_core.operations.health.sources import QueueAge, age_by, read_analytics_queue
from regworkers_core.runtime import Runtime
from tests.analytics.world import queue_events, removed

pytestmark = pytest.mark.namespace("module", observability={"cloudwatch_enabled": True})

RETENTION_SECONDS = 14 * 86_400.0


def test_the_age_is_bounded_by_what_was_last_seen() -> None:
    assert age_by(QueueActivity(), None, 100) == QueueAge(None, None)
    assert age_by(QueueActivity(watched_at=10), 7, 100) == QueueAge(90, None)
    assert age_by(QueueActivity(watched_at=10, empty_at=40), None, 100) == QueueAge(60, 60)
    # Deliveries take younger messages; an older one may be stuck behind them.
    assert age_by(QueueActivity(watched_at=10, empty_at=40, delivered_at=95), None, 100) == QueueAge(5, 60)
    # Clocks of two machines.
    assert age_by(QueueActivity(empty_at=101), None, 100) == QueueAge(0, 0)


def test_a_reading_records_when_the_queue_was_empty_and_uses_the_metric_of_sqs_if_there_is_one(
    runtime: Runtime,
) -> None:
    now = runtime.clock()
    watched = Runtime(runtime.settings, clock=lambda: now)
    empty = read_analytics_queue(watched)
    assert empty is not None and not empty.waiting and empty.oldest_seconds == 0.0
    assert empty.retention_seconds == empty.seconds_left == RETENTION_SECONDS
    queue_events(runtime, [removed(1)])
    now += 60

    def oldest() -> tuple[float | None, float | None]:
        found = read_analytics_queue(watched)
        assert found is not None and found.waiting == 1
        return found.oldest_seconds, found.oldest_at_most_seconds

    assert oldest() == (pytest.approx(60, abs=0.01), pytest.approx(60, abs=0.01))
    watched.queue_marks.delivered(watched.names.analytics_queue, now - 20)
    watched.queue_marks.delivered(watched.names.analytics_queue, now - 50)
    assert oldest()[0] == pytest.approx(20, abs=0.01)
    watched.aws.client("cloudwatch").put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[
            {
                "MetricName": "ApproximateAgeOfOldestMessage",
                "Dimensions": [{"Name": "QueueName", "Value": watched.names.analytics_queue}],
                "Timestamp": datetime.fromtimestamp(now - 70, UTC),
                "Value": 45.0,
            }
        ],
    )
    assert oldest()[0] == 45.0


def test_an_unavailable_queue_is_unknown_and_raises_nothing(runtime: Runtime) -> None:
    settings = runtime.settings
    nowhere = settings.model_copy(
        update={
            "aws": settings.aws.model_copy(update={"endpoint_url": "http://127.0.0.1:9", "endpoints": {}}),
            "kafka": settings.kafka.model_copy(update={"bootstrap": "127.0.0.1:9", "timeout_seconds": 0.1}),
            "retry": settings.retry.model_copy(update={"attempts": 1}),
        }
    )
    assert read_analytics_queue(Runtime(nowhere)) is None
