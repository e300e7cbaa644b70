"""Spans: linked across the queue, without a fan's data, exported only when asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.instrumentation.pymongo import CommandTracer
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pymongo.monitoring import CommandFailedEvent, CommandStartedEvent

from regworkers_core.analytics.archive.archiver import archive_events
from regworkers_core.cli import workers
from regworkers_core.observability.logs import Passed, configure_logging, entries_passed
from regworkers_core.observability.tracing import (
    carrier_of_xray,
    configure_tracing,
    flush,
    inject,
    span,
    without_text,
)
from regworkers_core.replication.backfill_run import BackfillRun
from regworkers_core.replication.reconcile.reconciliation import reconcile
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw_run import DrawRun
from regworkers_dagster.selection.specs import ASSET_OF
from tests.support.drains import replicate_all
from tests.support.entries import key, put
from tests.support.waiting import wait_until

NOTHING: Any = None


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    # A provider can be set once in a process; it stays, unread, for the tests after these.
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    memory = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    return memory


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    exporter.clear()
    yield exporter
    exporter.clear()


def test_the_save_span_links_to_the_enqueue_span_that_sent_its_message(
    runtime: Runtime, spans: InMemorySpanExporter
) -> None:
    put(runtime, key("e1"))
    replicate_all(runtime)
    finished = {span.name: span for span in spans.get_finished_spans()}
    assert {"enqueue", "save"} <= set(finished)
    (link,) = finished["save"].links
    assert link.context.span_id == (finished["enqueue"].context or link.context).span_id
    assert finished["save"].context != finished["enqueue"].context
    shown = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "example.com" not in shown and "Łukasz" not in shown


def test_spans_and_the_lines_within_them_name_each_other(
    runtime: Runtime, spans: InMemorySpanExporter, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging()
    for number in (1, 2):
        put(runtime, key(f"e{number}"), correlationId=f"c-{number}")
    replicate_all(runtime)
    said = [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]
    for name, event in (("enqueue", "entry enqueued"), ("save", "entry saved")):
        (span,) = [each for each in spans.get_finished_spans() if each.name == name]
        ids = (span.attributes or {})["correlationId"]
        assert isinstance(ids, tuple) and {"c-1", "c-2"} <= set(ids)
        of_entries = [line for line in said if line["event"] == event]
        assert len(of_entries) == 2 and span.context is not None
        assert {line["trace_id"] for line in of_entries} == {f"{span.context.trace_id:032x}"}


def test_a_worker_that_is_invoked_is_one_trace_and_its_lines_name_it(
    runtime: Runtime,
    spans: InMemorySpanExporter,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers.Runtime, "load", lambda: runtime)
    put(runtime, key("e1"), correlationId="c-1")
    body = {"type": "entries.replicate", "version": 1, "items": [{"pk": key("e1").pk, "sk": key("e1").sk}]}
    event = {"Records": [{"messageId": "m1", "body": orjson.dumps(body).decode()}]}
    configure_logging()
    answer = workers.invoke("saveEntries", orjson.dumps(event).decode())
    assert answer == {"batchItemFailures": []}
    finished = spans.get_finished_spans()
    (root,) = [each for each in finished if each.name == "invoke saveEntries"]
    assert root.parent is None and root.context and (root.attributes or {})["correlationId"] == "c-1"
    assert {each.context.trace_id for each in finished if each.context} == {root.context.trace_id}
    said = [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]
    (line,) = [each for each in said if each["event"] == "entry saved"]
    assert (line["worker"], line["trace_id"]) == ("saveEntries", f"{root.context.trace_id:032x}")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        *((lambda step=step: getattr(DrawRun, step)(None), f"draw {step}") for step in ASSET_OF),
        (lambda: reconcile(NOTHING), "reconcile"),
        (lambda: archive_events(NOTHING, run_id="r-1"), "archive"),
        (lambda: BackfillRun.run(NOTHING, NOTHING, afresh=False), "backfill"),
    ],
)
def test_steps_of_a_draw_and_work_on_the_whole_table_are_spans_that_name_the_run(
    spans: InMemorySpanExporter, call: Callable[[], object], name: str
) -> None:
    """Called with nothing they fail, and their span says where."""
    with (
        structlog.contextvars.bound_contextvars(runId="r-1", campaignId="summer"),
        pytest.raises(AttributeError),
    ):
        call()
    (found,) = [each for each in spans.get_finished_spans() if each.name == name]
    assert found.attributes is not None and found.attributes["runId"] == "r-1"
    assert not found.status.is_ok


def test_a_span_of_one_correlation_id_has_it_as_text(spans: InMemorySpanExporter) -> None:
    with span("x", sources=[{"correlationId": "c-1"}, {"correlationId": "c-1"}, {}]):
        entries_passed("entry saved", [Passed("c-1", "summer", "e1")])
    with structlog.contextvars.bound_contextvars(correlationId="c-2"), span("y"):
        pass
    found = {each.name: (each.attributes or {}).get("correlationId") for each in spans.get_finished_spans()}
    assert found == {"x": "c-1", "y": "c-2"}


def test_a_line_outside_of_a_span_has_no_trace_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    structlog.get_logger("x").info("said")
    assert "trace_id" not in orjson.loads(capsys.readouterr().err)


def test_without_a_collector_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    before = trace.get_tracer_provider()
    configure_tracing("regworkers", "qa")
    assert trace.get_tracer_provider() is before
    assert set(inject()) <= {"traceparent"}


def test_what_is_no_correlation_id_is_on_no_span(spans: InMemorySpanExporter) -> None:
    with span("x", sources=[{"correlationId": "fan@example.com"}, {"correlationId": "c-1"}]):
        pass
    (found,) = spans.get_finished_spans()
    assert (found.attributes or {})["correlationId"] == "c-1"


def test_the_span_of_a_command_that_failed_has_a_code_and_not_the_servers_text(
    spans: InMemorySpanExporter,
) -> None:
    tracer = CommandTracer(trace.get_tracer("x"), failed_hook=without_text, capture_statement=False)
    at, said = ("127.0.0.1", 27017), 'dup key: { email: "fan@example.com" }'
    failures = ({"codeName": "DuplicateKey", "errmsg": said}, {"errtype": "AutoReconnect", "errmsg": said})
    for number, failure in enumerate(failures):
        command = {"findAndModify": "entries", "query": {"email": "fan@example.com"}}
        tracer.started(CommandStartedEvent(command, "entry_service", number, at, number))
        tracer.failed(
            CommandFailedEvent(timedelta(0), failure, "findAndModify", number, at, number, database_name="x")
        )
    found = spans.get_finished_spans()
    assert [each.status.description for each in found] == ["DuplicateKey", "AutoReconnect"]
    assert "fan@" not in "".join(each.to_json() for each in found)


def test_a_flush_that_hangs_is_left_behind_and_not_repeated_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[int] = []
    answers = threading.Event()

    class Provider:
        def force_flush(self) -> None:
            called.append(1)
            answers.wait(10)

    monkeypatch.setattr(trace, "get_tracer_provider", Provider)
    assert not flush(0.01) and not flush(5)
    assert called == [1]
    answers.set()
    wait_until(lambda: flush(5))
    assert called == [1, 1]


def test_xrays_header_is_a_parent_only_if_xray_samples_the_call() -> None:
    root = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331"
    wanted = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    assert carrier_of_xray(f"{root};Sampled=1;Lineage=1:2") == wanted
    for other in (f"{root};Sampled=0", root, "", "Root=1;Sampled=1", "x"):
        assert carrier_of_xray(other) == {}
