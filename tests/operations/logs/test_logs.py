"""The log lines of one entry's way in the log group of an environment."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import structlog
from click.testing import Result
from typer.testing import CliRunner

from regworkers_core.adapters.aws.cloudwatch import LogGroupLines
from regworkers_core.cli.main import build
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso, span_seconds
from regworkers_core.observability.logs import configure_logging
from regworkers_core.operations.cloudwatch import Sought, look_up, parse
from regworkers_core.runtime import Runtime
from tests.support.drains import replicate_all
from tests.support.entries import key, put
from tests.support.runtimes import test_settings
from tests.support.terminal import regworkers

pytestmark = pytest.mark.namespace("module")

Terminal = Callable[..., Result]
SINCE = "2026-11-25T12:00:00.000Z"


def line(at: str = "2026-11-25T12:00:01Z", **fields: Any) -> bytes:
    return orjson.dumps({"timestamp": at, "level": "info", "event": "e", **fields})


def put_lines(runtime: Runtime, *lines: bytes) -> None:
    """Into a new stream of the log group, one millisecond after the other."""
    client, group, stream = runtime.aws.client("logs"), runtime.names.log_group, uuid.uuid4().hex
    client.create_log_stream(logGroupName=group, logStreamName=stream)
    now = int(runtime.clock() * 1000)
    events = [{"timestamp": now + number, "message": each.decode()} for number, each in enumerate(lines)]
    client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def test_lines_are_found_by_correlation_id_message_and_run_and_others_are_not(runtime: Runtime) -> None:
    put_lines(
        runtime,
        b"not json with c-1 in it",
        line(correlationId="c-1", event="dead letter"),
        line(correlationIds=["c-0", "c-1"], event="checks answered"),
        line(correlationId="c-10"),
        line(messageId="m-1", event="item goes on alone"),
        line(runId="r-1", event="drain ended"),
        line(runId="r-1", event="slow call"),
        line(at="2026-11-25T11:59:59Z", correlationId="c-1", event="before"),
    )
    found = look_up(runtime, Sought(SINCE, "c-1", frozenset({"m-1"}), frozenset({"r-1"})))
    assert sorted(each.fields["event"] for each in found.lines) == [
        "checks answered",
        "dead letter",
        "drain ended",
        "item goes on alone",
    ]


def test_a_line_shows_nothing_that_the_workers_do_not_write() -> None:
    shown = parse(line(correlationId="c-1", email="user@example.com", items={"applied": 2}), "f")
    assert shown is not None
    assert set(shown.as_dict()) == {"at", "where", "level", "event", "correlationId", "items"}
    assert shown.as_dict()["level"] == "INFO", "also of a line from before levels were upper case"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("2d", 172_800)])
def test_since_takes_units(text: str, seconds: float) -> None:
    assert span_seconds(text) == seconds


@pytest.mark.parametrize("text", ["1", "h", "-1h", "1w", "1.5h"])
def test_since_refuses_anything_else(text: str) -> None:
    answer = regworkers(None, "logs", "--correlation-id", "x", f"--since={text}")
    assert answer.code == 2 and "--since takes a number" in answer.stderr


def test_cloudwatch_is_searched_page_by_page_and_its_rough_matches_are_sorted_out(runtime: Runtime) -> None:
    group, client = f"/{runtime.names.prefix}regworkers", runtime.aws.client("logs")
    now = runtime.clock()
    client.create_log_stream(logGroupName=group, logStreamName="worker")
    events = [
        line(
            at=iso(now - number), correlationId="p-1" if number % 2 else "p-2", event=f"e{number}", note="p-1"
        )
        for number in range(20, 0, -1)
    ]
    client.put_log_events(
        logGroupName=group,
        logStreamName="worker",
        logEvents=[
            {"timestamp": int((now - 20 + number) * 1000), "message": event.decode()}
            for number, event in enumerate(events)
        ],
    )
    found = look_up(runtime, Sought(iso(now - 3600), "p-1"))
    assert [each.fields["event"] for each in found.lines] == [f"e{n}" for n in range(19, 0, -2)]
    assert look_up(runtime, Sought(iso(now - 5.5), "p-1")).lines == found.lines[-3:]
    assert found.source == group and not found.cut


def test_an_environment_without_a_log_group_says_so() -> None:
    elsewhere = Runtime(test_settings("nowhere-"))
    with pytest.raises(UsageError, match="log group /nowhere-regworkers"):
        look_up(elsewhere, Sought(SINCE, "c-1"))


@pytest.fixture
def terminal(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Commands of this module, in this process, on the runtime."""
    monkeypatch.setattr(Runtime, "load", lambda: runtime)
    app = build()
    return lambda *words: CliRunner().invoke(app, words, env={"COLUMNS": "200"})


def test_trace_follows_every_hop_and_says_where_the_log_lines_are(
    runtime: Runtime, terminal: Terminal
) -> None:
    put(runtime, key("good"), correlationId="c-good")
    replicate_all(runtime)
    good = orjson.loads(terminal("trace", "summer", "good", "--format", "json").stdout_bytes)
    states = {each["hop"]: each["state"] for each in good["hops"]}
    assert list(states) == [
        "demand table",
        "stream",
        "replication queue",
        "replica",
        "analytics event",
        "archive",
        "selection",
        "outbox",
        "dead letters",
    ]
    assert (states["demand table"], states["stream"], states["replica"]) == ("there", "read", "live")
    assert (states["archive"], states["outbox"]) == ("not there yet", "nothing owed")
    assert good["logs"] == "regworkers logs --correlation-id c-good --campaign summer --entry good"
    assert good["logs"] in terminal("trace", "summer", "good").stdout
    assert "@" not in orjson.dumps(good["hops"]).decode()


def test_a_hop_that_does_not_answer_hides_no_other(
    runtime: Runtime, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(_name: str) -> None:
        raise TransientFailure("sqs", "no answer")

    put(runtime, key("e1"))
    monkeypatch.setattr(runtime, "queue", down)
    hops = orjson.loads(terminal("trace", "summer", "e1", "--format", "json").stdout_bytes)["hops"]
    unread = {each["hop"]: each["why"] for each in hops if each["state"] == "could not read"}
    assert unread == {"replication queue": "sqs: no answer", "analytics event": "sqs: no answer"}


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """The stream that a test captures is closed after it."""
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("logging_as_before")
def test_logs_finds_what_was_said_of_an_entry_that_was_refused(runtime: Runtime, terminal: Terminal) -> None:
    sent = LogGroupLines(lambda: runtime.aws.client("logs"), runtime.names.log_group, uuid.uuid4().hex)
    configure_logging(send=sent)
    # A message of several entries has an id of its own.
    replicate_all(runtime)
    put(runtime, key("bad"), correlationId="c-bad", email=None)
    replicate_all(runtime)
    sent.close()
    found = terminal("logs", "--campaign", "summer", "--entry", "bad", "--format", "json")
    assert found.exit_code == 0
    lines = orjson.loads(found.stdout_bytes)["lines"]
    assert [(each["event"], each.get("reason")) for each in lines] == [
        ("entry enqueued", None),
        ("dead letter", "INVALID_ENTRY"),
    ]
    text = terminal("logs", "--correlation-id", "c-bad").stdout
    assert "  dead letter  " in text and "entryId bad" in text and "c-bad" not in text


@pytest.mark.parametrize(
    "words", [(), ("--campaign", "summer"), ("--correlation-id", "c", "--since", "soon")]
)
def test_logs_refuses_what_it_cannot_look_up(terminal: Terminal, words: tuple[str, ...]) -> None:
    assert isinstance(terminal("logs", *words).exception, UsageError)


def test_logs_without_any_line_is_a_finding_that_names_where_it_looked(
    runtime: Runtime, terminal: Terminal
) -> None:
    answer = terminal("logs", "--correlation-id", "c-unknown")
    assert answer.exit_code == 1 and f"nothing in {runtime.names.log_group} since 20" in answer.stdout
    assert "--since looks further back" in " ".join(answer.stdout.split())
