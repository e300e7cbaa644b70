"""The table of metrics, and what OpenTelemetry gets of them: the names of its conventions, and the same numbers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv._incubating.metrics import messaging_metrics

from regworkers_core.engine.drain_report import Percentiles
from regworkers_core.observability import metrics
from regworkers_core.observability.metrics import INSTRUMENTS, Metering, export, operation, sent
from regworkers_core.settings import PROJECT_ROOT


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> InMemoryMetricReader:
    made = InMemoryMetricReader()
    meter = MeterProvider([made]).get_meter("regworkers")
    targets: dict[str, Any] = {}

    def target(name: str, kind: str, unit: str) -> Any:
        return targets.setdefault(name, getattr(meter, f"create_{kind}")(name, unit=unit))

    monkeypatch.setattr(metrics, "_target", target)
    return made


def points(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], float, int]]]:
    """By name: attributes, value or sum, count."""
    found = defaultdict(list)
    data = reader.get_metrics_data()
    assert data is not None
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.data.data_points:
            value = getattr(point, "value", None)
            total = point.sum if value is None else value  # type: ignore[union-attr]
            found[metric.name].append((dict(point.attributes or {}), total, getattr(point, "count", 1)))
    return dict(found)


def test_names_are_unique_and_messaging_names_are_those_of_the_conventions() -> None:
    names = [each.name for each in INSTRUMENTS if each.name]
    assert len(names) == len(set(names))
    assert {(each.otel, each.kind, each.otel_unit) for each in INSTRUMENTS}
    kinds: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for each in INSTRUMENTS:
        kinds[each.otel].add((each.kind, each.otel_unit))
    assert all(len(found) == 1 for found in kinds.values()), "one name, two kinds or units"
    known = {
        value
        for module in (messaging_metrics, messaging_attributes)
        for name, value in vars(module).items()
        if name.startswith("MESSAGING_") and isinstance(value, str)
    }
    used = {each.otel for each in INSTRUMENTS} | {key for each in INSTRUMENTS for key in each.attributes}
    assert {name for name in used if name.startswith("messaging.")} <= known
    assert {
        messaging_metrics.MESSAGING_PROCESS_DURATION,
        messaging_metrics.MESSAGING_CLIENT_SENT_MESSAGES,
        messaging_metrics.MESSAGING_CLIENT_CONSUMED_MESSAGES,
        messaging_metrics.MESSAGING_CLIENT_OPERATION_DURATION,
    } <= used


def test_the_page_on_operating_lists_all_metrics() -> None:
    page = (PROJECT_ROOT / "docs" / "logs-and-metrics.md").read_text(encoding="utf-8")
    for each in INSTRUMENTS:
        name = f"`{each.name}`" if each.name else "–"
        assert f"| {name} | `{each.otel}` | {each.does} |" in page


def test_a_histogram_of_a_drain_arrives_with_every_batch(reader: InMemoryMetricReader) -> None:
    batches = Percentiles()
    for seconds in (0.1, 0.1, 2.0):
        batches.add(seconds)
    export(Metering(metrics.BATCH_DURATION, batches, {"Drain": "save"}))
    export(Metering(metrics.RECEIVED, 30, {"Drain": "save"}))
    found = points(reader)
    ((attributes, total, count),) = found["messaging.process.duration"]
    assert count == 3 and total == pytest.approx(2.2, rel=0.02)
    assert attributes == {
        "regworkers.drain": "save",
        "messaging.system": "aws_sqs",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
    }
    assert found["regworkers.drain.items"] == [
        ({"regworkers.drain": "save", "regworkers.outcome": "received"}, 30, 1)
    ]


def test_milliseconds_of_cloudwatch_are_seconds(reader: InMemoryMetricReader) -> None:
    export(Metering(metrics.ITERATOR_AGE, 1500, {"StreamLabel": "2026-11-26T00:00:00.000"}))
    ((attributes, value, _),) = points(reader)["regworkers.stream.iterator_age"]
    assert value == 1.5 and attributes == {"aws.dynamodb.stream_label": "2026-11-26T00:00:00.000"}


def test_calls_and_messages_of_a_queue_say_what_failed(reader: InMemoryMetricReader) -> None:
    sent("aws_sqs", "q", 8, 2)
    sent("kafka", "topic", 1, 0)
    with pytest.raises(ValueError, match="x"), operation("send", "q"):
        raise ValueError("x")
    found = points(reader)
    numbers = {
        (each["messaging.system"], each["messaging.destination.name"], each.get("error.type")): value
        for each, value, _ in found["messaging.client.sent.messages"]
    }
    assert numbers == {
        ("aws_sqs", "q", None): 8,
        ("aws_sqs", "q", "not_confirmed"): 2,
        ("kafka", "topic", None): 1,
    }
    ((attributes, _, count),) = found["messaging.client.operation.duration"]
    assert count == 1 and attributes["error.type"] == "ValueError"
    assert attributes["messaging.operation.name"] == "send"
