"""What drains publish to CloudWatch: retries, throttled calls, dead letters that could not be sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.cloudwatch import DrainMetrics, Strain
from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.engine.drain import DrainReport
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


def test_a_drain_puts_its_totals_and_names_the_dependencies_that_had_any() -> None:
    cloudwatch = CloudWatch()
    metrics = DrainMetrics(
        cloudwatch, Dependency("cloudwatch", classify_aws("cloudwatch"), policy=_FAST), "regworkers", "qa"
    )
    before = Strain({"dynamodb": 5, "sqs": 1}, {"dynamodb": 1}, 2)
    after = Strain({"dynamodb": 9, "sqs": 1}, {"dynamodb": 3, "sqs": 0}, 5)
    metrics.publish(DrainReport("save", ended="dependency_down"), after.since(before))
    assert cloudwatch.values("Retries") == {("save", "qa"): 4, ("save", "qa", "dynamodb"): 4}
    assert cloudwatch.values("Throttles") == {("save", "qa"): 2, ("save", "qa", "dynamodb"): 2}
    assert cloudwatch.values("FailedDeadLetterSends") == {("save", "qa"): 3}
    assert cloudwatch.values("DependencyDown") == {("save", "qa"): 1}


def test_a_drain_without_trouble_puts_zeros_and_no_dependencies() -> None:
    cloudwatch = CloudWatch()
    metrics = DrainMetrics(
        cloudwatch, Dependency("cloudwatch", classify_aws("cloudwatch"), policy=_FAST), "regworkers", "qa"
    )
    same = Strain({"sqs": 3}, {}, 0)
    assert not same.since(same).any
    metrics.publish(DrainReport("save", ended="idle"), same.since(same))
    for name in ("Retries", "Throttles", "FailedDeadLetterSends", "DependencyDown"):
        assert cloudwatch.values(name) == {("save", "qa"): 0}


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
