"""`regworkers status` when things are away."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.status import DEPENDENCIES, impatient, read_status
from regworkers_core.runtime import Runtime
from regworkers_core.settings import ServicesSettings, Settings
from regworkers_local.services.faults import Fault, Service
from tests.support.services import served_to


class Unreachable:
    """A runtime whose dependencies do not answer before all of them were asked."""

    def __init__(self, *up: str, services: tuple[str, ...] = ()) -> None:
        self._up = up
        self._all_asked = threading.Barrier(len(DEPENDENCIES) + len(services))
        configured = {name: {"base_url": "http://127.0.0.1:1"} for name in services}
        self.settings = SimpleNamespace(services=ServicesSettings.model_validate(configured))
        self.names = SimpleNamespace(queues=("q",), dead_letter_queue=lambda name: f"{name}-dlq")
        self.replica = SimpleNamespace(count=lambda: 7)
        self.demand_table = self.streams = self.sqs = self.services = None
        self.asked: list[str] = []

    def probe(self, name: str) -> str | None:
        self._all_asked.wait(timeout=10)
        if name == "dynamodb":
            raise UsageError("table demand-table does not exist")
        return None if name in self._up else name

    def queue(self, name: str) -> Any:
        self.asked.append(name)
        return SimpleNamespace(depth=lambda: SimpleNamespace(total=2))


def test_all_are_asked_at_once_and_whoever_is_away_is_not_asked_for_counts() -> None:
    runtime: Any = Unreachable("kafka", "mongo")
    status = read_status(runtime)
    assert status.dependencies == {
        "dynamodb": "table demand-table does not exist",
        "streams": "does not answer",
        "sqs": "does not answer",
        "mongo": "up",
        "redis": "does not answer",
        "kafka": "up",
        "s3": "does not answer",
    }
    assert not status.fine
    assert (status.queues, status.replica_documents) == ({"q": None, "q-dlq": None}, 7)
    assert runtime.asked == []


def test_a_queue_that_answers_is_counted() -> None:
    runtime: Any = Unreachable("sqs")
    status = read_status(runtime)
    assert (status.queues, status.replica_documents) == ({"q": 2, "q-dlq": 2}, None)


def test_the_services_that_are_configured_are_asked_too() -> None:
    everybody = ("streams", "sqs", "mongo", "redis", "kafka", "s3")
    runtime: Any = Unreachable(*everybody, "service-user", services=("user", "campaign"))
    status = read_status(runtime)
    assert list(status.dependencies)[-2:] == ["service-user", "service-campaign"]
    assert status.dependencies["service-user"] == "up"
    assert status.dependencies["service-campaign"] == "does not answer"
    assert not status.fine


def test_a_service_that_fails_refuses_us_or_hangs_is_told_from_one_that_is_up(runtime: Runtime) -> None:
    with served_to(runtime, answer_seconds=2.0) as served:
        assert read_status(served.runtime).fine
        served.faults.put(Service.CODE, Fault(status=503))
        served.faults.put(Service.USER, Fault(status=401))
        served.faults.put(Service.ENTRY, Fault(half_open=True))
        status = read_status(served.runtime)
        assert (
            status.dependencies["service-code"] == status.dependencies["service-entry"] == "does not answer"
        )
        assert "refuses our token" in status.dependencies["service-user"]
        assert status.dependencies["service-campaign"] == "up"
        assert not status.fine


def test_nobody_is_asked_twice_or_waited_for_longer_than_two_seconds() -> None:
    runtime = Runtime(impatient(Settings(environment="local-dev")))
    assert runtime.policy.attempts == 1
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
