"""The export from the terminal and by the legacy sendData worker, and the consumer that docs/analytics.md shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson

from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.domain.messages import MessageType, encode
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from tests.analytics.world import queue_events, removed
from tests.support.drains import run
from tests.support.environment import environment_of
from tests.support.kafka import published
from tests.support.terminal import regworkers


def test_events_are_published_by_the_command_and_by_the_legacy_worker(runtime: Runtime) -> None:
    queue_events(runtime, [removed(1), {"id": "not an event"}])
    drain = regworkers(runtime, "drain", "publish", "--idle-seconds", "0.1", "--format", "json")
    assert drain.code == 1, "a dead letter is a finding"
    assert (drain.document["items"]["sent"], drain.document["items"]["dead_lettered"]) == (1, 1)
    good = {"messageId": "m1", "body": encode(MessageType.PUBLISH, "c", [removed(2)]).decode()}
    event = orjson.dumps({"Records": [good, {"messageId": "m2", "body": "{}"}]}).decode()
    answer = regworkers(runtime, "invoke", "sendData", event, "--sign-as", "replication")
    assert (answer.code, answer.document) == (1, {"batchItemFailures": [{"itemIdentifier": "m2"}]})
    assert {each.event["id"] for each in published(runtime)} == {removed(1)["id"], removed(2)["id"]}


def test_an_event_that_is_not_utf_8_is_a_usage_error_in_one_line(runtime: Runtime) -> None:
    command = [str(Path(sys.executable).parent / "regworkers"), "invoke", "sendData", "-"]
    done = subprocess.run(
        command,
        input=b'{"Records": [{"messageId": "m", "body": "\xff\xfe"}]}',
        capture_output=True,
        env={**os.environ, **environment_of(runtime)},
        timeout=60,
        check=False,
    )
    complaint = done.stderr.decode().strip()
    assert (done.returncode, done.stdout) == (2, b"") and "the event is not JSON" in complaint
    assert len(complaint.splitlines()) == 1


EXAMPLE = PROJECT_ROOT / "docs" / "examples" / "read_events.py"


def test_the_example_consumer_does_every_event_once_however_often_it_comes(
    runtime: Runtime, tmp_path: Path
) -> None:
    def read(database: str) -> tuple[list[str], str]:
        words = [str(runtime.settings.kafka.bootstrap), str(tmp_path / database), "--once"]
        done = subprocess.run(
            [sys.executable, str(EXAMPLE), *words, runtime.names.topic("entries")],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return [orjson.loads(line)["id"] for line in done.stdout.splitlines()], done.stderr.strip()

    for numbers in (range(5), range(3, 8)):
        queue_events(runtime, [removed(number) for number in numbers])
        run(runtime, PUBLISH)
    found, dropped = read("first.db")
    assert sorted(found) == sorted(removed(number)["id"] for number in range(8))
    assert dropped == "2 repeats dropped"


def test_the_page_names_every_header_and_every_topic() -> None:
    page = (PROJECT_ROOT / "docs" / "analytics.md").read_text(encoding="utf-8")
    for word in ("ce_id", "ce_type", "correlationId", "traceparent", "clockAheadSeconds", EXAMPLE.name):
        assert word in page, word
    for flow in ("entries", "eligibility", "selections", "notifications"):
        assert f"regworkers.{flow}.v1" in page
