"""Lines on their way to CloudWatch: they never hold the process up, and what is lost is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from regworkers_core.adapters.aws import cloudwatch
from regworkers_core.adapters.aws.cloudwatch import LogGroupLines
from regworkers_core.runtime import Runtime
from regworkers_core.telemetry import configure_telemetry
from tests.adapters.fakes import FakeClient, client_error
from tests.support.runtimes import test_settings
from tests.support.waiting import wait_until

pytestmark = pytest.mark.namespace("module")

Put = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cloudwatch, "SEND_SECONDS", 0.01)
    monkeypatch.setattr(cloudwatch, "_PAUSE_SECONDS", 0.01)
    yield
    structlog.reset_defaults()


def lines_to(client: Any, **options: Any) -> LogGroupLines:
    return LogGroupLines(lambda: client, "/regworkers", "here", **options)


def messages(client: FakeClient) -> list[str]:
    puts = [given for name, given in client.calls if name == "put_log_events"]
    return [event["message"] for given in puts for event in given["logEvents"]]


def test_lines_arrive_in_their_order_and_the_stream_is_made_at_the_first_one(runtime: Runtime) -> None:
    lines = LogGroupLines(lambda: runtime.aws.client("logs"), runtime.names.log_group, "host/2026-11-26")
    lines("one\ntwo")
    lines("three \u00fc \ud800".encode(errors="replace").decode())
    lines.close()
    found = runtime.aws.client("logs").get_log_events(
        logGroupName=runtime.names.log_group, logStreamName="host/2026-11-26"
    )
    assert [event["message"] for event in found["events"]] == ["one", "two", "three \u00fc ?"]
    assert not lines.dropped
    # Another process of the same machine goes on with the stream.
    again = LogGroupLines(lambda: runtime.aws.client("logs"), runtime.names.log_group, "host/2026-11-26")
    again("four")
    again.close()
    assert not again.dropped


def test_a_full_buffer_drops_the_newest_lines_and_says_how_many() -> None:
    started, hang = threading.Event(), threading.Event()

    def put(**_: Any) -> dict[str, Any]:
        started.set()
        hang.wait()
        return {}

    client = FakeClient(put_log_events=put)
    lines = lines_to(client, buffer_bytes=400)
    for number in range(20):
        lines(f"line {number:02}" + "." * 67)
        started.wait()
    assert lines.dropped == 16
    hang.set()
    wait_until(lambda: not lines.dropped and not lines._buffer)
    lines("last")
    lines.close()
    written = messages(client)
    assert sum("log lines dropped" in each and '"dropped":16' in each for each in written) == 1
    assert len([each for each in written if each.startswith("line ")]) == 4


def test_a_line_does_not_wait_and_the_end_waits_a_bounded_time() -> None:
    never = threading.Event()
    lines = lines_to(FakeClient(put_log_events=lambda **_: never.wait() and {}))
    began = time.monotonic()
    lines("one")
    lines.close(seconds=0.05)
    assert time.monotonic() - began < 2.0
    lines("too late")
    assert lines.dropped == 1
    never.set()


def test_an_outage_is_logged_once_and_its_lines_follow_when_it_is_over() -> None:
    errors: list[Any] = [client_error("ServiceUnavailableException")] * 3
    client = FakeClient(put_log_events=[*errors, {}, {}])
    with capture_logs() as written:
        lines = lines_to(client)
        lines("one")
        wait_until(lambda: len(client.calls) == 4)
        lines.close()
    assert [each["event"] for each in written] == ["log lines not sent"]
    assert messages(client) == ["one"] * 4 and not lines.dropped


def test_a_group_that_is_missing_costs_lines_and_nothing_else() -> None:
    gone = client_error("ResourceNotFoundException")
    client = FakeClient(put_log_events=[gone] * 99, create_log_stream=[gone] * 99)
    with capture_logs() as written:
        lines = lines_to(client)
        lines("one")
        lines.close()
    assert [each["logGroup"] for each in written] == ["/regworkers"]


def test_one_call_has_no_more_than_cloudwatch_takes() -> None:
    client = FakeClient(put_log_events=lambda **_: {})
    lines = lines_to(client)
    lines("\n".join(["x"] * 25_000))
    lines("\u00fc" * 300_000)
    for _ in range(4):
        lines("y" * 190_000)
    lines.close(seconds=10)
    puts = [given["logEvents"] for _, given in client.calls]
    assert len(messages(client)) == 25_005
    assert max(map(len, puts)) <= 10_000
    assert max(sum(len(each["message"].encode()) + 26 for each in events) for events in puts) <= 1024 * 1024


def test_one_call_spans_less_than_a_day_whatever_the_clock_did() -> None:
    hour = 3600.0
    at = iter([0.0, 25 * hour, 26 * hour, 1 * hour, 30 * hour])
    client = FakeClient(put_log_events=lambda **_: {})
    outage = threading.Event()
    lines = LogGroupLines(lambda: outage.wait() and client, "/regworkers", "here", clock=lambda: next(at))
    for number in range(5):
        lines(f"line {number}")
    outage.set()
    lines.close(seconds=10)
    spans = [[each["timestamp"] for each in given["logEvents"]] for _, given in client.calls]
    assert len(messages(client)) == 5
    # CloudWatch refuses a longer one as a whole, and each repetition of it.
    assert max(max(times) - min(times) for times in spans) <= 24 * hour * 1000


def test_what_cloudwatch_refuses_as_too_old_counts_as_dropped() -> None:
    client = FakeClient(put_log_events=[{"rejectedLogEventsInfo": {"tooOldLogEventEndIndex": 2}}, {}])
    lines = lines_to(client)
    lines("one\ntwo\nthree")
    wait_until(lambda: lines.dropped == 2)
    lines.close()


@pytest.mark.parametrize(
    ("environment", "command", "pod", "sends"),
    [
        ("local-dev", False, False, True),
        ("local-dev", True, False, True),
        ("prod", True, False, True),
        ("prod", True, True, False),
        ("prod", False, False, False),
    ],
)
def test_no_line_is_sent_twice_where_an_agent_collects_the_output_of_pods(
    environment: str, command: bool, pod: bool, sends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr("regworkers_core.telemetry._lines", {})
    made: list[str] = []
    monkeypatch.setattr(cloudwatch, "LogGroupLines", lambda _client, group, _stream: made.append(group))
    given = dict.fromkeys(("aws", "mongo", "redis", "kafka"), "http://127.0.0.1:1")
    for on in (True, False):
        settings = test_settings("t-", given, observability={"cloudwatch_enabled": on})
        configure_telemetry(settings.model_copy(update={"environment": environment}), command=command)
    assert made == (["/t-regworkers"] if sends else [])
