"""The function as Lambda runs it: a process of its own, asked through the runtime API."""

from __future__ import annotations

import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from regworkers_core.eligibility.handler import ENVIRONMENT_SECRET
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from tests.eligibility.world import check, create
from tests.support.environment import environment_of
from tests.support.lambda_api import function
from tools import build_lambda

pytestmark = pytest.mark.namespace("module")

pytest.importorskip("awslambdaric", reason="is for Linux only")
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
XRAY = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={PARENT};Sampled=1;Lineage=a:b"


@pytest.fixture
def collector() -> Iterator[tuple[str, Queue[Any]]]:
    """An OTLP collector: its address, and the spans that arrive."""
    arrived: Queue[Any] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        arrived.put((resource.resource, span))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", arrived
    server.shutdown()
    server.server_close()


def lines(path: Path) -> list[dict[str, Any]]:
    """Every line is JSON, or the assertion shows it."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def named(arrived: Queue[Any], name: str) -> tuple[Any, dict[str, str]]:
    """The next span of this name, and what its process says of itself."""
    while True:
        resource, found = arrived.get(timeout=5)
        if found.name == name:
            return found, {each.key: each.value.string_value for each in resource.attributes}


def test_the_function_answers_logs_json_with_its_request_and_continues_the_callers_trace(
    servers: Runtime, tmp_path: Path, collector: tuple[str, Queue[Any]]
) -> None:
    create(servers)
    address, arrived = collector
    # As in production: what has a password is not in the function's configuration.
    values = environment_of(servers)
    secret = {"REGWORKERS_MONGO__URI": values.pop("REGWORKERS_MONGO__URI")}
    servers.secrets.create("eligibility-settings", orjson.dumps(secret).decode(), description="of a test")
    environment = values | {
        ENVIRONMENT_SECRET: "eligibility-settings",
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
    }
    appsync = {
        "arguments": check(email="distinctive@example.com"),
        "info": {"fieldName": "checkEligibility"},
        "identity": None,
        "request": {"headers": {"traceparent": TRACEPARENT}},
    }
    log = tmp_path / "log"
    with function(environment, stderr=log) as made:
        (answer,) = made.invoke([check()], context={"custom": {"traceparent": TRACEPARENT}})
        assert answer["status"] == "ELIGIBLE"
        assert made.invoke(appsync)["status"] == "ELIGIBLE"
        assert made.invoke([check()], trace=XRAY)[0]["status"] == "ELIGIBLE"
        refused = made.invoke({})
        assert refused["errorType"] == "UsageError"
        # Every span had left when its call was answered.
        for _ in range(3):
            span, _ = named(arrived, "check eligibility")
            assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        span, process = named(arrived, "check eligibility")
        assert span.parent_span_id == b"" and process["service.instance.id"]
        assert process["service.name"] == "regworkers-eligibility"
        assert process["deployment.environment.name"] == servers.settings.environment
    said = lines(log)
    answered = [each for each in said if each["event"] == "checks answered"]
    assert [each["requestId"] for each in answered] == ["request-1", "request-2", "request-3"]
    assert {each["trace_id"] for each in answered} == {TRACE}
    assert {each["worker"] for each in said} == {"eligibility"}
    assert "distinctive" not in log.read_text()


@pytest.mark.slow
def test_the_package_alone_answers_and_fits_into_lambda(servers: Runtime, tmp_path: Path) -> None:
    create(servers)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    made, size = build_lambda.build(tmp_path / "build", python=version)
    assert size < build_lambda.MAX_BYTES
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "task")
    assert "configs/prod.config.yml" in names and not [name for name in names if "dagster/" in name]
    # Nothing but the package, and the client that Lambda's image has.
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "image"], check=True)
    python = tmp_path / "image" / "bin" / "python"
    lock = ("--constraints", PROJECT_ROOT / "requirements.lock")
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", python, *lock, "awslambdaric"], check=True)
    task = str(tmp_path / "task")
    environment = environment_of(servers) | {
        "PYTHONPATH": task,
        "REGWORKERS_CONFIG_DIR": f"{task}/configs",
        # Only a stack on one machine has a beacon of its own, and the curves to read its key.
        "REGWORKERS_SELECTION__BEACON": "{}",
        # The exporter is in the package, too.
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    }
    with function(environment, stderr=tmp_path / "log", python=python) as lambda_:
        (answer,) = lambda_.invoke([check(doTransfer=True)])
    assert answer["status"] == "ELIGIBLE" and answer["transfer"]["state"] == "created"
