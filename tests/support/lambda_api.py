"""Lambda's runtime API as far as a function sees it: events go in, answers come out.

`awslambdaric`, the client that AWS's Python images have, runs the function as Lambda would.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import orjson

HANDLER = "regworkers_core.eligibility.handler.handler"
_NEXT = "/2018-06-01/runtime/invocation/next"
_SECONDS = 30.0


@dataclass
class Function:
    """A running function. `prepared_seconds`: from the start of the process until it asked for its first event."""

    events: Queue[tuple[str, bytes, Mapping[str, str]]] = field(default_factory=Queue)
    answers: Queue[tuple[str, bytes]] = field(default_factory=Queue)
    ready: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    prepared_seconds: float = 0.0
    _number: int = 0

    def invoke(
        self,
        event: Any,
        *,
        seconds: float = _SECONDS,
        trace: str = "",
        context: Mapping[str, Any] | None = None,
    ) -> Any:
        """The answer to one event. `seconds` is the time that the context says is left. Raises AssertionError for an
        error of the function, TimeoutError if it ended or is silent.
        """
        self._number += 1
        # The client ends with a segmentation fault without a type of content.
        headers = {"Content-Type": "application/json"}
        headers["Lambda-Runtime-Deadline-Ms"] = str(int((time.time() + seconds) * 1000))
        headers |= {"Lambda-Runtime-Trace-Id": trace} if trace else {}
        headers |= {"Lambda-Runtime-Client-Context": orjson.dumps(context).decode()} if context else {}
        self.events.put((f"request-{self._number}", orjson.dumps(event), headers))
        try:
            path, body = self.answers.get(timeout=_SECONDS)
        except Empty:
            raise TimeoutError("the function did not answer") from None
        assert path.endswith("/response"), f"{path}: {body!r}"
        return orjson.loads(body)


@contextmanager
def function(
    environment: Mapping[str, str],
    *,
    stderr: Path,
    python: Path | str = sys.executable,
    handler: str = HANDLER,
) -> Iterator[Function]:
    """The function in a process of its own, run by `python`. `environment` is all that it has besides PATH and what
    Lambda sets.
    """
    made = Function()
    server = _Server(("127.0.0.1", 0), _handler(made))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    given = {
        "PATH": os.environ["PATH"],
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}",
        "AWS_LAMBDA_FUNCTION_NAME": "checkEligibility",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        **environment,
    }
    began = time.monotonic()
    with stderr.open("wb") as lines:
        process = subprocess.Popen(
            [str(python), "-m", "awslambdaric", handler], env=given, stdout=lines, stderr=lines
        )
    try:
        assert made.ready.wait(_SECONDS), stderr.read_text()[-2000:]
        made.prepared_seconds = time.monotonic() - began
        yield made
    finally:
        made.ended.set()
        process.kill()
        process.wait()
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a function that is killed resets its connection."""


def _handler(function: Function) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Otherwise the body waits for the acknowledgement of the headers, 40 ms.
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            assert self.path == _NEXT
            function.ready.set()
            while not function.ended.is_set():
                try:
                    request, body, headers = function.events.get(timeout=0.05)
                except Empty:
                    continue
                self.send_response(200)
                arn = "arn:aws:lambda:us-east-1:123456789012:function:checkEligibility:live"
                more = {"Lambda-Runtime-Aws-Request-Id": request, "Lambda-Runtime-Invoked-Function-Arn": arn}
                for name, value in {**headers, **more, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                return

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            function.ready.set()
            function.answers.put((self.path, body))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
