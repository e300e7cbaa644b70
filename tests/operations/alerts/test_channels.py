"""Channels: their messages, their secrets, and that an unavailable one is a transient failure."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from regworkers_core.adapters.alert_channels import FileChannel, SlackChannel, classify_slack
from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.alert import Alert, IncidentChange, Severity
from regworkers_core.domain.reasons import ItemFailure, TransientFailure
from regworkers_core.engine.dependency import Dependency, RetryPolicy

ALERT = Alert("analytics:kafka", Severity.CRITICAL, "Kafka <b1> & b2 do not answer", "analytics.md")
INCIDENT = Incident(ALERT, True, 3, "2026-11-25T03:00:00.000Z", "2026-11-25T03:01:00.000Z", None, {})


@pytest.fixture
def slack() -> Iterator[ThreadingHTTPServer]:
    """A webhook that keeps what it got, and answers with `status` and `body`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server: Any = self.server
            server.got.append(orjson.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(server.status)
            self.end_headers()
            self.wfile.write(server.body)

        def log_message(self, *_: Any) -> None:
            pass

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.status, server.body = [], 200, b"ok"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def channel(address: str) -> SlackChannel:
    dependency = Dependency("slack", classify_slack, policy=RetryPolicy(attempts=1))
    return SlackChannel(
        address,
        dependency,
        environment="qa",
        docs_url="https://docs.example/regworkers/",
        timeout_seconds=1.0,
    )


def test_slack_is_notified_what_where_since_when_and_what_to_do(slack: Any) -> None:
    channel(f"http://127.0.0.1:{slack.server_port}/hook").notify(INCIDENT, IncidentChange.OPENED)
    (message,) = slack.got
    assert message["text"] == "[qa] CRITICAL: Kafka &lt;b1&gt; &amp; b2 do not answer"
    said = orjson.dumps(message["blocks"]).decode()
    assert "<https://docs.example/regworkers/analytics.md|what to do>" in said
    assert "2026-11-25T03:00:00.000Z" in said and "analytics:kafka#3" in said


def test_slack_is_notified_of_the_end(slack: Any) -> None:
    channel(f"http://127.0.0.1:{slack.server_port}/hook").notify(INCIDENT, IncidentChange.RESOLVED)
    assert slack.got[0]["text"].startswith("[qa] resolved: ")


@pytest.mark.parametrize("status", [500, 429])
def test_slack_in_trouble_or_overloaded_is_transient(slack: Any, status: int) -> None:
    slack.status = status
    with pytest.raises(TransientFailure, match=str(status)):
        channel(f"http://127.0.0.1:{slack.server_port}/hook").notify(INCIDENT, IncidentChange.OPENED)


def test_a_page_in_place_of_slack_is_no_delivery(slack: Any) -> None:
    slack.body = b"<html>Please log in to this network</html>"
    with pytest.raises(TransientFailure):
        channel(f"http://127.0.0.1:{slack.server_port}/hook").notify(INCIDENT, IncidentChange.OPENED)


def test_what_slack_refuses_is_the_fault_of_that_message_and_keeps_no_other_from_being_notified(
    slack: Any,
) -> None:
    slack.status = 400
    with pytest.raises(ItemFailure, match="status 400"):
        channel(f"http://127.0.0.1:{slack.server_port}/hook").notify(INCIDENT, IncidentChange.OPENED)


def test_an_unreachable_webhook_is_transient_and_its_address_stays_secret() -> None:
    with pytest.raises(TransientFailure) as caught:
        channel("http://127.0.0.1:9/T000/B000/secret").notify(INCIDENT, IncidentChange.OPENED)
    assert "secret" not in str(caught.value)


def test_a_file_holds_one_document_a_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "alerts.jsonl"
    file = FileChannel(path)
    file.notify(INCIDENT, IncidentChange.OPENED)
    file.notify(INCIDENT, IncidentChange.RESOLVED)
    opened, resolved = map(orjson.loads, path.read_bytes().splitlines())
    assert (opened["change"], opened["key"], opened["severity"]) == (
        "opened",
        "analytics:kafka#3",
        "critical",
    )
    assert resolved["change"] == "resolved"
