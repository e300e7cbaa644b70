"""What drains publish to CloudWatch: retries, throttled calls, dead letters that could not be sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.cloudwatch import Metrics, Strain
from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure
from regworkers_core.drains.recorder import DrainMeter
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.queue import Outgoing, Received, SendFailure
from regworkers_core.engine.settling import DeadLetterPublisher, FailedItem

_FAST = RetryPolicy(attempts=3, first_cap_seconds=0.001, last_cap_seconds=0.001)


class CloudWatch:
    """Keeps what is put."""

    def __init__(self) -> None:
        self.data: list[dict[str, Any]] = []

    def put_metric_data(self, *, Namespace: str, MetricData: Sequence[dict[str, Any]]) -> None:
        assert Namespace == "regworkers"
        self.data.extend(MetricData)

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        return {
            tuple(each["Value"] for each in one["Dimensions"]): one["Value"]
            for one in self.data
            if one["MetricName"] == name
        }


def throttled() -> ClientError:
    return ClientError({"Error": {"Code": "ThrottlingException"}}, "BatchGetItem")


def test_a_call_that_is_throttled_twice_counts_two_throttles_and_two_retries() -> None:
    dependency = Dependency("dynamodb", classify_aws("dynamodb"), policy=_FAST)
    answers = iter([throttled(), throttled(), "well"])

    def call() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert dependency.call(call) == "well"
    assert (dependency.calls, dependency.retries, dependency.throttles) == (3, 2, 2)


def test_an_outage_is_retried_and_is_no_throttle() -> None:
    dependency = Dependency("dynamodb", classify_aws("dynamodb"), policy=_FAST)

    def call() -> None:
        raise ClientError({"Error": {"Code": "InternalServerError"}}, "BatchGetItem")

    with pytest.raises(TransientFailure):
        dependency.call(call)
    assert (dependency.retries, dependency.throttles) == (2, 0)


def test_a_slow_call_is_logged_and_a_quick_one_is_not() -> None:
    with capture_logs() as lines:
        Dependency("mongo", classify_aws("mongo"), policy=_FAST).call(lambda: None)
        assert lines == []
        Dependency("mongo", classify_aws("mongo"), policy=_FAST, slow_seconds=0.0).call(lambda: None)
    assert [(line["event"], line["dependency"]) for line in lines] == [("slow call", "mongo")]


class World:
    """A drain's meter over a CloudWatch that keeps what is put, without a thread."""

    def __init__(self) -> None:
        self.cloudwatch = CloudWatch()
        guard = Dependency("cloudwatch", classify_aws("cloudwatch"), policy=_FAST)
        self.metrics = Metrics(self.cloudwatch, guard, "regworkers", "qa")
        self.strain = Strain({"dynamodb": 5, "sqs": 1}, {"dynamodb": 1}, 2)
        self.meter = DrainMeter(self.metrics.put, "save", lambda: self.strain)
        self.meter.report = self.report = DrainReport("save")

    def batch(self, seconds: float, **counts: int) -> None:
        self.report.counts.update(counts)
        self.report.deliveries["received"] += 1
        self.report.batches.add(seconds)


def test_a_drain_puts_its_totals_and_names_the_dependencies_that_had_any() -> None:
    world = World()
    world.strain = Strain({"dynamodb": 9, "sqs": 1}, {"dynamodb": 3, "sqs": 0}, 5)
    world.report.ended = "dependency_down"
    world.meter._publish_last()
    values = world.cloudwatch.values
    assert values("Retries") == {("save", "qa"): 4, ("save", "dynamodb", "qa"): 4}
    assert values("Throttles") == {("save", "qa"): 2, ("save", "dynamodb", "qa"): 2}
    assert values("FailedDeadLetterSends") == {("save", "qa"): 3}
    assert values("DependencyDown") == {("save", "qa"): 1}


def test_a_drain_without_trouble_puts_zeros_and_no_dependencies() -> None:
    world = World()
    world.batch(0.1, received=1, applied=1)
    world.meter._publish_last()
    for name in ("Retries", "Throttles", "FailedDeadLetterSends", "DependencyDown"):
        assert world.cloudwatch.values(name) == {("save", "qa"): 0}


def test_a_drain_that_had_nothing_to_do_costs_no_call_and_one_that_could_not_begin_says_so() -> None:
    world = World()
    world.meter.publish()
    world.meter._publish_last()
    assert world.cloudwatch.data == []
    world.report.ended = "dependency_down"
    world.meter._publish_last()
    assert world.cloudwatch.values("DependencyDown") == {("save", "qa"): 1}


def test_each_minute_has_its_own_numbers_and_together_they_are_the_drains() -> None:
    world = World()
    world.batch(0.2, received=100, applied=99, dead_lettered=1)
    world.batch(0.4, received=50, applied=50)
    world.meter.publish()
    world.batch(4.0, received=10, applied=8, returned=2)
    world.meter.publish()
    world.meter.publish()
    world.meter._publish_last()
    puts = [(each["MetricName"], each.get("Value")) for each in world.cloudwatch.data]
    assert [value for name, value in puts if name == "Invocations"] == [2, 1]
    assert [value for name, value in puts if name == "MessagesReceived"] == [2, 1]
    assert [value for name, value in puts if name == "Received"] == [150, 10]
    assert [value for name, value in puts if name == "Done"] == [149, 8]
    assert [value for name, value in puts if name == "Failed"] == [1, 2]
    first, second = (each for each in world.cloudwatch.data if each["MetricName"] == "BatchDuration")
    assert first["Counts"] == [1, 1] and first["Values"] == pytest.approx([0.2, 0.4], rel=0.02)
    assert second["Counts"] == [1] and second["Values"] == pytest.approx([4.0], rel=0.02)


def test_a_distribution_has_no_more_values_than_cloudwatch_takes_and_no_fewer_counts() -> None:
    world = World()
    for number in range(400):
        world.batch(0.001 * 1.02**number, received=1)
    world.meter.publish()
    (datum,) = (each for each in world.cloudwatch.data if each["MetricName"] == "BatchDuration")
    assert 100 <= len(datum["Values"]) == len(datum["Counts"]) <= 150
    assert sum(datum["Counts"]) == 400 and datum["Values"] == sorted(datum["Values"])


def test_a_cloudwatch_that_refuses_costs_a_line_and_nothing_else() -> None:
    world = World()
    world.batch(0.1, received=1)
    world.cloudwatch.put_metric_data = lambda **_: 1 / 0  # type: ignore[method-assign]
    with capture_logs() as lines:
        world.meter.publish()
    assert [line["event"] for line in lines] == ["metrics not published"]


class Refusing:
    """A queue that confirms nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def send(self, messages: Sequence[Outgoing], **_: Any) -> list[SendFailure]:
        return [SendFailure(index, "ServiceUnavailable", False) for index in range(len(messages))]


class History:
    def record(self, *_: Any, **__: Any) -> None:
        pass


def test_dead_letters_that_are_not_confirmed_are_counted_and_those_that_go_on_alone_are_not() -> None:
    unsent: list[int] = []
    publisher = DeadLetterPublisher(
        Refusing("q"),  # type: ignore[arg-type]
        Refusing("q-dlq"),  # type: ignore[arg-type]
        History(),
        run_id="r",
        on_unsent=unsent.append,
    )
    message = Received("m1", "receipt", "{}", {}, 1)
    failed = FailedItem(message, b"{}", PermanentFailure(Reason.INVALID_BODY, "no object"), 1)
    with pytest.raises(TransientFailure):
        publisher.publish([], [failed])
    assert unsent == []
    with pytest.raises(TransientFailure):
        publisher.publish([failed, failed], [])
    assert unsent == [2]
