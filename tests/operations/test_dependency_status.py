"""Which dependencies answer, while some are down."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations import dependency_status
from regworkers_core.operations.dependency_status import (
    DEPENDENCIES,
    SERVICES,
    UP,
    ask,
    is_late,
    is_too_busy,
    patience,
    with_short_timeouts,
)
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings
from regworkers_local.service_faults import Fault, Service
from tests.support.services import served_to


class Unreachable:
    """A runtime whose dependencies do not answer before all of them were asked."""

    def __init__(self, *up: str) -> None:
        self._up = up
        self._all_asked = threading.Barrier(len(DEPENDENCIES))
        self.replica = self.demand_table = self.streams = self.sqs = self.services = None

    def probe(self, name: str) -> str | None:
        self._all_asked.wait(timeout=10)
        if name == "dynamodb":
            raise UsageError("table demand-table does not exist")
        return None if name in self._up else name


def test_all_dependencies_are_read_at_once_and_each_has_its_state() -> None:
    runtime: Any = Unreachable("kafka", "mongo")
    assert ask(runtime, DEPENDENCIES) == {
        "dynamodb": "table demand-table does not exist",
        "streams": "does not answer",
        "sqs": "does not answer",
        "mongo": "up",
        "redis": "does not answer",
        "kafka": "up",
        "s3": "does not answer",
    }


def test_a_service_that_fails_refuses_us_or_hangs_is_not_taken_for_one_that_is_up(runtime: Runtime) -> None:
    names = [f"service-{name}" for name in SERVICES]
    with served_to(runtime, answer_seconds=2.0) as served:
        assert set(ask(served.runtime, names).values()) == {UP}
        served.faults.put(Service.CODE, Fault(status=503))
        served.faults.put(Service.USER, Fault(status=401))
        served.faults.put(Service.ENTRY, Fault(half_open=True))
        found = ask(served.runtime, names)
        assert found["service-code"] == found["service-entry"] == "does not answer"
        assert "refuses our token" in found["service-user"]
        assert found["service-campaign"] == UP


def test_no_dependency_is_asked_twice_or_waited_for_longer_than_two_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dependency_status, "slowness", lambda: 1.0)
    runtime = Runtime(with_short_timeouts(Settings(environment="local-dev")))
    assert runtime.dependency("mongo").policy.attempts == 1
    settings = runtime.settings
    waits = [
        settings.aws.connect_timeout_seconds,
        settings.aws.read_timeout_seconds,
        settings.mongo.socket_timeout_seconds,
        settings.mongo.server_selection_timeout_seconds,
        settings.redis.timeout_seconds,
        settings.kafka.timeout_seconds,
        settings.services.connect_timeout_seconds,
        settings.services.read_timeout_seconds,
        settings.services.answer_seconds,
    ]
    assert max(waits) <= 2.0


@pytest.mark.parametrize(
    ("slow", "late", "waited", "judged"),
    [
        (1.0, ("mongo", "redis"), 2.0, True),
        (4.0, ("mongo",), 8.0, True),
        (4.0, ("mongo", "service-entry", "service-user"), 8.0, True),
        (4.0, ("dynamodb", "streams", "sqs", "s3"), 8.0, True),
        (4.0, ("mongo", "sqs"), 8.0, False),
        (15.0, ("mongo",), 12.0, False),
    ],
    ids=[
        "an idle machine is no excuse",
        "one that is late alone is down",
        "services wait for their store",
        "AWS is one provider",
        "two that have nothing in common",
        "there is no more time that this machine needs",
    ],
)
def test_a_busy_machine_is_the_better_reason_only_for_what_has_nothing_else_in_common(
    monkeypatch: pytest.MonkeyPatch, slow: float, late: tuple[str, ...], waited: float, judged: bool
) -> None:
    monkeypatch.setattr(dependency_status, "slowness", lambda: slow)
    assert is_too_busy(late, waited) is not judged


def test_a_time_out_is_late_and_a_refusal_is_not() -> None:
    for error in ("ServerSelectionTimeoutError", "ReadTimeoutError", "_TIMED_OUT", "the delivery timed out"):
        assert is_late(error), error
    for error in (
        "ServerSelectionTimeoutError: 127.0.0.1:27017 refused the connection",
        "EndpointConnectionError",
        "status 503",
    ):
        assert not is_late(error), error


def test_on_a_busy_machine_answers_are_awaited_for_longer_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for slow, seconds in ((1.0, 2.0), (4.0, 8.0), (30.0, 12.0)):
        monkeypatch.setattr(dependency_status, "slowness", lambda slow=slow: slow)
        settings = with_short_timeouts(Settings(environment="local-dev"))
        assert patience(2.0) == settings.aws.read_timeout_seconds == seconds or seconds == 12.0
        assert with_short_timeouts(settings, 1.0).aws.read_timeout_seconds == 1.0
        assert settings.mongo.server_selection_timeout_seconds < patience(2.0)
    assert patience(60.0) == 60.0
