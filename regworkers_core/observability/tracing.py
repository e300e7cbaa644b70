"""OpenTelemetry spans, linked across SQS by the `traceparent` attribute that our messages have.

They leave the process only when `OTEL_EXPORTER_OTLP_ENDPOINT` is set; without it they cost next to nothing.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Link, Span, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.contextvars import get_contextvars

from regworkers_core.domain.messages import fit_correlation_id
from regworkers_core.observability.logs import describe, note_correlation_ids

_PROPAGATOR = TraceContextTextMapPropagator()
_TRACER = trace.get_tracer("regworkers")
# A batch may gather a hundred messages; more links than this make a trace unreadable.
_MAX_LINKS = 20
_IDENTIFIERS = ("worker", "runId", "campaignId")
# The thread of the last flush, which may still wait for a collector.
_FLUSHING: list[threading.Thread] = []


def configure_tracing(service: str, environment: str) -> None:
    """Install the exporter of spans and the drivers' instrumentations, once, when the environment asks for it."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return
    # Imported here because they cost a second that only a traced process should pay.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.pymongo import PymongoInstrumentor
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    provider = TracerProvider(
        resource=Resource.create(
            {
                "service.name": service,
                "service.instance.id": str(uuid.uuid4()),
                "deployment.environment.name": environment,
            }
        )
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    # Statements are never captured: they hold fans' data.
    PymongoInstrumentor().instrument(capture_statement=False, failed_hook=without_text)
    RedisInstrumentor().instrument()


def without_text(failed: Span, event: Any) -> None:
    """Replace the server's or driver's text in the span of a MongoDB command by its code: it may print a document."""
    failure = event.failure
    failed.set_status(StatusCode.ERROR, str(failure.get("codeName") or failure.get("errtype") or "failed"))


def flush(seconds: float) -> bool:
    """Export all spans that have ended; returns whether that took less than `seconds`. Otherwise it goes on behind.

    The SDK's `force_flush` ignores its time-out (opentelemetry-python issue 4568).
    """
    export = getattr(trace.get_tracer_provider(), "force_flush", None)
    if any(thread.is_alive() for thread in _FLUSHING):
        return False
    if export is None:
        return True
    _FLUSHING[:] = [threading.Thread(target=export, name="flush", daemon=True)]
    (thread,) = _FLUSHING
    thread.start()
    thread.join(max(0.0, seconds))
    return not thread.is_alive()


def carrier_of_xray(header: str) -> dict[str, str]:
    """X-Ray's trace header (`Root=1-...;Parent=...;Sampled=1`) as `{"traceparent": ...}`; empty if X-Ray does not
    sample it, because Lambda sets such a header for every call.
    """
    parts = dict(part.split("=", 1) for part in header.split(";") if "=" in part)
    root = parts.get("Root", "").split("-")
    if parts.get("Sampled") != "1" or len(root) != len(("version", "time", "id")):
        return {}
    return {"traceparent": f"00-{root[1]}{root[2]}-{parts.get('Parent', '')}-01"}


def inject() -> dict[str, str]:
    """`{"traceparent": ...}` of the current span for a message's attributes; empty without a recording span."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return {name: value for name, value in carrier.items() if name == "traceparent"}


@contextmanager
def span(
    name: str,
    *,
    sources: Sequence[Mapping[str, str]] = (),
    parent: Mapping[str, str] | None = None,
    **attributes: str | int,
) -> Iterator[Span]:
    """A span with links to the spans that sent the messages whose attributes are `sources`, and with their correlation
    ids. `parent`: headers or attributes of the call that waits for this one, as `{"traceparent": ...}`. It has the
    identifiers that log lines have, too.
    """
    bound = get_contextvars()
    links: list[Link] = []
    for attributes_of_message in sources:
        if len(links) == _MAX_LINKS or "traceparent" not in attributes_of_message:
            continue
        context = trace.get_current_span(_PROPAGATOR.extract(dict(attributes_of_message))).get_span_context()
        if context.is_valid:
            links.append(Link(context))
    # An exception's text may print a fan's document, so the SDK must not record it by itself.
    with _TRACER.start_as_current_span(
        name,
        context=_PROPAGATOR.extract(dict(parent)) if parent else None,
        links=links,
        attributes={name: bound[name] for name in _IDENTIFIERS if name in bound} | attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        given = [each.get("correlationId") for each in sources] or [bound.get("correlationId")]
        note_correlation_ids([*dict.fromkeys(filter(None, map(fit_correlation_id, given)))])
        try:
            yield current
        except Exception as error:
            current.set_status(StatusCode.ERROR, describe(error))
            raise
