"""Each dependency unavailable for longer than the visibility time-out: no dead letters, recovery by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.runtime import Runtime
from regworkers_local.stack import Stack
from tests.faults.crash import SECTIONS, recover
from tests.faults.story import Story
from tests.support.drains import replicate_all, run
from tests.support.runtimes import ADDRESSES, new_runtime, test_settings

pytestmark = pytest.mark.slow

VISIBILITY_SECONDS = 2
# Drains that find out soon. The one who provisions, recovers and judges is more patient.
SHORT_TIMEOUTS: dict[str, Any] = {
    **SECTIONS,
    "save": {**SECTIONS["save"], "visibility_seconds": VISIBILITY_SECONDS},
    "aws": {"connect_timeout_seconds": 0.5, "read_timeout_seconds": 1.0},
    "mongo": {
        "connect_timeout_seconds": 0.5,
        "socket_timeout_seconds": 1.0,
        "server_selection_timeout_seconds": 0.5,
    },
    "retry": {"attempts": 2, "total_seconds": 1.5, "breaker_failures": 2, "breaker_reset_seconds": 0.3},
}


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Stack]]:
    """One stack for the module, up at the first use and whole again at each."""
    stack = Stack(tmp_path_factory.mktemp("unavailable"), "unavailable")

    def whole() -> Stack:
        stack.up()
        return stack

    yield whole
    stack.reset()


class Outage:
    """A story under way on a stack of its own, with work on the queue and on the stream."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.addresses = {name: stack.state.address(name) for name in ADDRESSES}
        self.runtime = new_runtime(self.addresses, **SECTIONS)
        self.story = Story(self.runtime)
        for number in range(6):
            self.story.put(f"old-{number}")
        replicate_all(self.runtime)
        self.story.saved()
        for number in range(3):
            self.story.put(f"old-{number}")
            self.story.remove(f"old-{number + 3}")
        for number in range(30):
            self.story.put(f"new-{number}")

    def drain(self, name: str, on_step: Callable[[str], None] = lambda _step: None) -> DrainReport:
        """One drain with short time-outs in a fresh process' state."""
        aws = {"endpoint_url": self.addresses["aws"], "access_key_id": "test", "secret_access_key": "test"}
        sections = {
            **SHORT_TIMEOUTS,
            "aws": {**aws, **SHORT_TIMEOUTS["aws"]},
            "mongo": {"uri": self.addresses["mongo"], **SHORT_TIMEOUTS["mongo"]},
        }
        runtime = Runtime(test_settings(self.runtime.names.prefix, self.addresses, **sections))
        try:
            return run(runtime, name, on_step=on_step)
        finally:
            runtime.mongo.close()

    def drain_until_it_is_unavailable(self, name: str, step: str, strike: Callable[[], None]) -> DrainReport:
        """The dependency becomes unavailable when the drain passes `step` for the second time."""
        passed: list[str] = []

        def on_step(name: str) -> None:
            if name == step:
                passed.append(name)
                if len(passed) == 2:
                    strike()

        report = self.drain(name, on_step)
        assert len(passed) >= 2, report.as_dict()
        return report

    def stays_unavailable(self, name: str, dependency: str) -> None:
        """Drains that start meanwhile, as a sensor's would, for longer than a message stays hidden."""
        over = time.monotonic() + VISIBILITY_SECONDS + 1.0
        while time.monotonic() < over:
            report = self.drain(name)
            assert (report.ended, report.dependency) == ("dependency_down", dependency)
            assert not report.deliveries and not report.counts["received"]

    def ends_well(self) -> None:
        recover(self.runtime)
        verdict = self.story.judge()
        assert verdict.clean, verdict


@pytest.fixture
def outage(own_servers: None, stacks: Callable[[], Stack]) -> Iterator[Outage]:
    made = Outage(stacks())
    yield made
    made.runtime.mongo.close()


def test_mongodb_killed_under_a_save_drain(outage: Outage) -> None:
    run(outage.runtime, "enqueue")
    report = outage.drain_until_it_is_unavailable(
        "save", "save.after_write", lambda: outage.stack.kill("mongo")
    )
    assert (report.ended, report.dependency) == ("dependency_down", "mongo")
    assert report.deliveries["returned"] and not report.counts["dead_lettered"]
    outage.stays_unavailable("save", "mongo")
    outage.stack.up()
    outage.ends_well()


def test_an_election_of_twelve_seconds_ends_no_drain_and_loses_and_doubles_nothing(outage: Outage) -> None:
    run(outage.runtime, "enqueue")
    settings = outage.runtime.settings
    # The time-outs of production; fewer attempts, so that the breaker opens well before MongoDB is back.
    sections: dict[str, Any] = {
        **SECTIONS,
        "retry": {"attempts": 2, "total_seconds": 5.0, "breaker_reset_seconds": 2.0},
        "mongo": {"uri": outage.addresses["mongo"]},
        "drain": {"outage_seconds": 30.0},
    }
    runtime = Runtime(test_settings(settings.resource_prefix, outage.addresses, **sections))
    election = threading.Timer(12.0, outage.stack.up)
    passed: list[str] = []

    def on_step(name: str) -> None:
        if name == "save.after_write":
            passed.append(name)
        if name == "save.after_write" and len(passed) == 2:
            outage.stack.kill("mongo")
            election.start()

    with capture_logs() as logs:
        report = run(runtime, "save", idle_seconds=5.0, max_seconds=90.0, on_step=on_step)
    election.join()
    runtime.mongo.close()
    assert (report.ended, report.dependency, report.failure) == ("idle", None, None)
    assert report.counts["returned"] and not report.counts["dead_lettered"] and report.adds_up
    assert [line["event"] for line in logs if line["event"].startswith("the drain ")][:2] == [
        "the drain pauses",
        "the drain goes on",
    ]
    depth = outage.runtime.queue(outage.runtime.names.replication_queue).depth()
    assert depth.total == 0
    outage.ends_well()


@pytest.mark.parametrize(("name", "step"), [("enqueue", "enqueue.after_send"), ("save", "save.after_write")])
def test_the_aws_endpoint_stopped_under_a_drain(outage: Outage, name: str, step: str) -> None:
    if name == "save":
        run(outage.runtime, "enqueue")
    report = outage.drain_until_it_is_unavailable(name, step, lambda: outage.stack.pause("aws"))
    assert report.ended == "dependency_down" and report.dependency in ("sqs", "dynamodb", "streams")
    outage.stays_unavailable(name, "dynamodb")
    outage.stack.resume("aws")
    outage.ends_well()


def test_kafka_and_redis_killed_concern_replication_not_at_all(outage: Outage) -> None:
    outage.stack.kill("kafka")
    outage.stack.kill("redis")
    for report in replicate_all(outage.runtime):
        assert report.ended == "idle" and report.counts["received"] and not report.counts["returned"]
    verdict = outage.story.judge()
    assert verdict.clean and not verdict.repeats, verdict
    states = outage.stack.status()
    assert (states["kafka"], states["redis"]) == ("dead", "dead")
