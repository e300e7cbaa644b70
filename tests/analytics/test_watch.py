"""What is told about the queue, as a function of what one look found."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from regworkers_core.adapters.mongo.activity import Marks
from regworkers_core.domain.alert import Severity
from regworkers_core.operations.alerts.analytics_queue import (
    RETENTION_SECONDS,
    Age,
    Snapshot,
    age_of,
    alerts,
    look,
)
from regworkers_core.runtime import Runtime
from regworkers_core.settings import AnalyticsSettings
from tests.analytics.world import queue_events, removed

DAY = 86_400.0
SETTINGS = AnalyticsSettings(warn_days_left=10, critical_days_left=4)


def told(waiting: int | None, age: Age) -> list[tuple[str, Severity]] | None:
    found = alerts(Snapshot(waiting, age), SETTINGS, Severity.WARNING)
    return None if found is None else [(each.key, each.severity) for each in found]


def test_a_queue_that_could_not_be_read_opens_and_closes_nothing() -> None:
    assert told(None, Age()) is None


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (Age(), []),
        (Age(at_most=3.9 * DAY, at_least=0.0), []),
        (Age(at_most=4.1 * DAY, at_least=0.0), [("analytics:age", Severity.WARNING)]),
        (Age(at_most=13 * DAY, at_least=0.0), [("analytics:age", Severity.WARNING)]),
        # What is certain is told by the condition `data-loss`.
        (Age(measured=4.1 * DAY, at_most=5 * DAY, at_least=0.0), []),
        (Age(at_least=20 * DAY, at_most=20 * DAY), []),
    ],
)
def test_a_queue_that_is_never_empty_is_worth_a_look_and_what_is_certain_is_told_elsewhere(
    age: Age, expected: list[tuple[str, Severity]]
) -> None:
    assert told(1, age) == expected


def test_the_age_is_bounded_by_what_was_last_seen() -> None:
    assert age_of(Marks(), None, 100) == Age(None, None, None)
    assert age_of(Marks(watched_at=10), 7, 100) == Age(7, 90, None)
    assert age_of(Marks(watched_at=10, empty_at=40), None, 100) == Age(None, 60, 60)
    # Deliveries say that younger messages go; an older one may be stuck behind them.
    assert age_of(Marks(watched_at=10, empty_at=40, delivered_at=95), None, 100) == Age(None, 5, 60)
    # Clocks of two machines.
    assert age_of(Marks(empty_at=101), None, 100) == Age(None, 0, 0)


def test_seconds_left_are_what_sqs_keeps_less_the_better_bound() -> None:
    assert Age().seconds_left is None
    assert Age(measured=10, at_least=50).seconds_left == RETENTION_SECONDS - 50
    assert Age(at_least=RETENTION_SECONDS + 1).seconds_left == 0


def test_a_look_keeps_in_mind_when_the_queue_was_empty_and_reads_sqs_own_metric_where_there_is_one(
    runtime: Runtime,
) -> None:
    now = runtime.clock()
    watched = Runtime(runtime.settings, clock=lambda: now)
    assert look(watched) == Snapshot(0, Age(0.0, 0.0, 0.0))
    queue_events(runtime, [removed(1)])
    now += 60
    found = look(watched)
    assert found.waiting == 1 and found.age.measured is None
    assert found.age.at_least == pytest.approx(60, abs=0.01) == found.age.at_most
    watched.queue_marks.delivered(watched.names.analytics_queue, now - 20)
    watched.queue_marks.delivered(watched.names.analytics_queue, now - 50)
    assert look(watched).age.at_least == pytest.approx(20, abs=0.01)
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
    assert look(watched).age.known == 45.0


def test_the_retention_is_that_of_the_queue(runtime: Runtime) -> None:
    url = runtime.sqs.get_queue_url(QueueName=runtime.names.analytics_queue)["QueueUrl"]
    stands = runtime.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["MessageRetentionPeriod"])
    assert int(stands["Attributes"]["MessageRetentionPeriod"]) == RETENTION_SECONDS


def test_what_is_away_is_not_known_and_no_look_fails(runtime: Runtime) -> None:
    settings = runtime.settings
    nowhere = settings.model_copy(
        update={
            "aws": settings.aws.model_copy(update={"endpoint_url": "http://127.0.0.1:9"}),
            "kafka": settings.kafka.model_copy(update={"bootstrap": "127.0.0.1:9", "timeout_seconds": 0.1}),
            "retry": settings.retry.model_copy(update={"attempts": 1}),
        }
    )
    assert look(Runtime(nowhere)) == Snapshot(None, Age())
