"""One line for each entry and hop: what it carries, who decides that it is written, and that it costs one write."""

from __future__ import annotations

import io
import os
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import orjson
import pytest
import structlog
from opentelemetry import trace

from regworkers_core.observability.logs import (
    Passed,
    bind,
    configure_logging,
    describe,
    entries_passed,
    wants_entries,
)
from tests.adapters.fakes import client_error


def some(number: int) -> list[Passed]:
    return [Passed(f"c-{index}", "summer", f"e{index}") for index in range(number)]


def lines(captured: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in captured.splitlines()]


def test_a_line_has_what_a_way_is_found_by_and_what_its_context_is_bound_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging()
    bind(runId="run-1", worker="saveEntries")
    entries_passed("entry saved", some(2), outcome="applied")
    first, second = lines(capsys.readouterr().err)
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "entry saved",
        "level": "INFO",
        "runId": "run-1",
        "worker": "saveEntries",
        "outcome": "applied",
        "correlationId": "c-0",
        "campaignId": "summer",
        "entryId": "e0",
    }
    assert second["correlationId"] == "c-1"


def test_an_id_that_json_cannot_hold_or_has_to_escape_breaks_no_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging()
    entries_passed(
        "entry saved", [Passed("c", "s", 'a"\\\n'), Passed("c", "s", "\ud800"), Passed("c", "s", "ü")]
    )
    assert [line["entryId"] for line in lines(capsys.readouterr().err)] == ['a"\\\n', "?", "ü"]


def test_a_line_is_as_long_as_the_manual_counts_it(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/logs-and-metrics.md says what ten million entries cost."""
    configure_logging()
    bind(runId=str(uuid.uuid4()), worker="saveEntries")
    passed = Passed(str(uuid.uuid4()), "aurora-world-tour", "Bumcacih1nonZwIdU2a_HAnT")
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(2**127, 1, is_remote=False))):
        entries_passed("entry saved", [passed], outcome="applied")
    line = capsys.readouterr().err
    assert "trace_id" in line and "span_id" in line and abs(len(line) - 360) < 15


def test_lines_of_a_batch_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "write", written.append, raising=False)
    monkeypatch.setattr(sys, "stderr", stderr)
    configure_logging()
    entries_passed("entry saved", some(500))
    assert [text.count("\n") for text in written] == [500]


def closed_stream() -> TextIO:
    stream = io.StringIO()
    stream.close()
    return stream


def stream_without_a_reader() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize(
    "refusing", [closed_stream, stream_without_a_reader, partial(Path("/dev/full").open, "w")]
)
def test_a_line_that_stderr_does_not_take_fails_no_work(
    refusing: Callable[[], TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = refusing()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging()
    entries_passed("entry saved", some(2))
    structlog.get_logger("x").error("drain ended", received=2)
    with suppress(OSError):
        stream.close()


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 1.0])
def test_the_rate_takes_whole_ways_in_every_process(rate: float, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(entry_rate=rate)
    entries_passed("entry enqueued", some(1000))
    configure_logging(entry_rate=rate)
    entries_passed("entry saved", some(1000))
    hops: dict[str, set[str]] = {"entry enqueued": set(), "entry saved": set()}
    for line in lines(capsys.readouterr().err):
        hops[line["event"]].add(line["correlationId"])
    assert hops["entry enqueued"] == hops["entry saved"]
    assert abs(len(hops["entry saved"]) - 1000 * rate) < 60


def test_above_info_without_a_rate_and_before_logging_is_set_up_nothing_is_gathered_or_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    entries_passed("entry saved", some(1))
    assert not wants_entries()
    for level, rate in (("WARNING", 1.0), ("INFO", 0.0)):
        configure_logging(level, entry_rate=rate)
        assert not wants_entries()
        entries_passed("entry saved", some(1))
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_a_terminal_shows_no_single_entry_while_all_lines_are_sent_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sent: list[str] = []
    configure_logging(human=True, send=sent.append)
    entries_passed("entry saved", some(2))
    structlog.get_logger("x").error("drain ended", received=2)
    shown = capsys.readouterr().err
    assert "drain ended" in shown and "entry saved" not in shown
    assert [(line["event"], line["level"]) for line in lines("\n".join(sent))] == [
        ("entry saved", "INFO"),
        ("entry saved", "INFO"),
        ("drain ended", "ERROR"),
    ]


@pytest.mark.parametrize("method", ["debug", "info", "warning", "error"])
def test_levels_are_upper_case_so_that_a_query_for_errors_finds_them(
    method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("DEBUG")
    getattr(structlog.get_logger("x"), method)("said")
    text = capsys.readouterr().err
    assert orjson.loads(text)["level"] == method.upper() and ("ERROR" in text) is (method == "error")


def test_an_answer_of_a_service_is_described_by_its_code_and_not_by_its_text() -> None:
    error = client_error("ValidationException")
    error.response["Error"]["Message"] = "fan@example.com"
    assert describe(error).startswith("ClientError (ValidationException of Call)")
    assert "fan@" not in describe(error)
