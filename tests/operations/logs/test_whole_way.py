"""The way of one entry by its correlation id: a check, enqueue, save and publish, on the real servers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import orjson
import pytest
import structlog
from typer.testing import CliRunner

from regworkers_core.adapters.aws.cloudwatch import LogGroupLines
from regworkers_core.cli.main import build
from regworkers_core.domain.keys import EntryKey
from regworkers_core.observability.logs import configure_logging
from regworkers_core.operations import on_call
from regworkers_core.operations.cloudwatch import look_up
from regworkers_core.runtime import Runtime
from tests.eligibility.world import ask, check, create
from tests.support.drains import run
from tests.support.entries import remove

pytestmark = pytest.mark.namespace("module")

HOPS = ["entry judged", "entry enqueued", "entry saved", "event published", "event published"]


@pytest.fixture
def runtime(shared: Runtime, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """Commands in this process find it. What is logged goes to its log group, under a stream for each test."""
    # Jobs of earlier tests bind who they are, too.
    structlog.contextvars.clear_contextvars()
    monkeypatch.setattr(Runtime, "load", lambda: shared)
    sent = LogGroupLines(
        lambda: shared.aws.client("logs"), shared.names.log_group, f"workers/{uuid.uuid4().hex}"
    )
    configure_logging(send=sent)
    # As at the end of a process, before the command that looks for the lines.
    monkeypatch.setattr(on_call, "look_up", lambda *given: (sent.close(), look_up(*given))[1])
    yield runtime
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def shown(*words: str) -> list[dict[str, str]]:
    answer = CliRunner().invoke(build("logs"), ["logs", *words, "--format", "json"])
    assert answer.exit_code == 0, answer.output
    lines: list[dict[str, str]] = orjson.loads(answer.stdout_bytes)["lines"]
    return [line for line in lines if "entryId" in line]


def enter(runtime: Runtime, **correlation_ids: str) -> dict[str, str]:
    """One check with `doTransfer` for each, under its correlation id; the entry ids. Then all drains, once."""
    create(runtime)
    checks = [
        check(doTransfer=True, correlationId=id_, email=f"{id_}@example.com")
        for id_ in correlation_ids.values()
    ]
    answers = ask(runtime, *checks)
    for drain in ("enqueue", "save", "publish"):
        run(runtime, drain)
    return {
        name: answer["transfer"]["entryId"] for name, answer in zip(correlation_ids, answers, strict=True)
    }


def test_every_hop_of_an_entry_is_found_by_its_own_correlation_id(runtime: Runtime) -> None:
    # Two entries share each message, which therefore has an id of its own.
    ids = enter(runtime, one="c-one", two="c-two")
    lines = shown("--correlation-id", "c-one")
    assert [line["event"] for line in lines] == HOPS
    assert {line["entryId"] for line in lines} == {ids["one"]}
    assert {(line["campaignId"], line["correlationId"], line["level"]) for line in lines} == {
        ("summer", "c-one", "INFO")
    }
    workers = {line["event"]: line.get("worker") for line in lines}
    assert (workers["entry enqueued"], workers["entry saved"]) == ("enqueueEntries", "saveEntries")
    assert {line["type"] for line in lines[-2:]} == {"entry.replicated", "eligibility.judged"}
    assert lines[2]["outcome"] == "applied"
    events = runtime.aws.client("logs").filter_log_events(logGroupName=runtime.names.log_group)["events"]
    text = "\n".join(event["message"] for event in events)
    assert "c-one" in text and "example.com" not in text and "User" not in text


def test_a_removal_goes_by_the_id_of_its_message_and_is_found_by_the_entry(runtime: Runtime) -> None:
    ids = enter(runtime, one="c-three", two="c-four")
    for name in ("one", "two"):
        remove(runtime, EntryKey("summer", ids[name]))
    for drain in ("enqueue", "save", "publish"):
        run(runtime, drain)
    lines = shown("--campaign", "summer", "--entry", ids["one"])
    assert [line["event"] for line in lines] == [*HOPS, "entry enqueued", "entry saved", "event published"]
    assert lines[-2]["outcome"] == "removed" and lines[-1]["type"] == "entry.removed"
