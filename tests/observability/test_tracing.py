"""Spans: linked across the queue, without a fan's data, exported only when asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from regworkers_core.observability.tracing import configure_tracing, inject
from regworkers_core.runtime import Runtime
from tests.support.drains import replicate_all
from tests.support.entries import key, put


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    # A provider can be set once in a process; it stays, with nobody reading it, for the tests after these.
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


def test_without_a_collector_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    before = trace.get_tracer_provider()
    configure_tracing("regworkers")
    assert trace.get_tracer_provider() is before
    assert set(inject()) <= {"traceparent"}
