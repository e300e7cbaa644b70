"""PagerDuty and Slack as one local HTTP server that records requests and gives the answers that a test sets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

ROUTING_KEY = "0123456789abcdef0123456789abcdef"


@dataclass(slots=True)
class Receiver:
    """`events` are those that PagerDuty received, `messages` those of Slack. `status` is the answer to both, `body`
    what Slack says to a message that it takes; while `gate` is closed, requests hang.
    """

    port: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    status: dict[str, int] = field(default_factory=dict)
    body: bytes = b"ok"
    gate: threading.Event = field(default_factory=threading.Event)

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "pagerduty_routing_key": ROUTING_KEY,
            "pagerduty_url": f"http://127.0.0.1:{self.port}",
            "slack_webhook": f"http://127.0.0.1:{self.port}/slack",
            "docs_url": "https://docs.example/regworkers",
        }

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.messages]

    def actions(self) -> list[tuple[str, str]]:
        """What PagerDuty received of which incident."""
        return [
            (event["event_action"], event["dedup_key"].removeprefix("local-dev:")) for event in self.events
        ]

    def clear(self) -> None:
        self.events.clear()
        self.messages.clear()

    def take(self, path: str, document: dict[str, Any]) -> tuple[int, bytes]:
        self.gate.wait(20)
        service = "slack" if path == "/slack" else "pagerduty"
        status = self.status.get(service, 200 if service == "slack" else 202)
        if status >= 300:
            return status, b"{}"
        if service == "slack":
            self.messages.append(document)
            return status, self.body
        assert path == "/v2/enqueue" and document["routing_key"] == ROUTING_KEY
        self.events.append(document)
        return status, orjson.dumps({"status": "success", "dedup_key": document["dedup_key"]})


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = receiver.take(self.path, document)
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                # The client did not wait.
                return

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        receiver.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.gate.set()
            server.shutdown()
            thread.join()
