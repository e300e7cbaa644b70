"""Log lines: JSON, with identifiers, and never with a foreign exception's text."""

from __future__ import annotations

import errno
import sqlite3
import tempfile

import duckdb
import orjson
import pytest
import structlog

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.observability.logs import bind, configure_logging, describe
from regworkers_core.runtime import Runtime
from tests.support.drains import run
from tests.support.entries import key, put


def lines(captured: str) -> list[dict[str, str]]:
    return [orjson.loads(line) for line in captured.splitlines()]


def test_every_line_is_json_with_the_bound_identifiers(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    bind(runId="run-1", worker="saveEntries", correlationId=None)
    structlog.get_logger("x").info("drain ended", received=3)
    (line,) = lines(capsys.readouterr().err)
    assert line["event"] == "drain ended" and line["runId"] == "run-1" and line["worker"] == "saveEntries"
    assert "correlationId" not in line and line["timestamp"].endswith("Z")


def test_a_drivers_exception_is_logged_without_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    try:
        try:
            raise ValueError("fan@example.com")
        except ValueError as error:
            raise TransientFailure("mongo", "time-out") from error
    except TransientFailure:
        structlog.get_logger("x").error("failed", exc_info=True)
    (line,) = lines(capsys.readouterr().err)
    assert "fan@example.com" not in line["exception"]
    assert "TransientFailure: mongo: time-out" in line["exception"] and "ValueError at" in line["exception"]


def test_the_level_of_the_settings_holds(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("WARNING")
    structlog.get_logger("x").info("quiet")
    structlog.get_logger("x").warning("loud")
    assert [line["event"] for line in lines(capsys.readouterr().err)] == ["loud"]


def test_lines_of_a_drains_worker_threads_carry_its_identifiers(
    runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging()
    bind(runId="run-7", worker="saveEntries")
    put(runtime, key("e1"))
    run(runtime, "enqueue")

    def fail(step: str) -> None:
        if step == "save.after_write":
            raise TransientFailure("mongo", "time-out")

    run(runtime, "save", on_step=fail, max_seconds=0.5)
    given_back = [line for line in lines(capsys.readouterr().err) if line["event"] == "batch given back"]
    assert given_back and {line["runId"] for line in given_back} == {"run-7"}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "fan@example.com.parquet"),
        duckdb.IOException('IO Error: Could not write file "fan@example.com.tmp": No space left on device'),
        duckdb.OutOfMemoryException("failed to offload fan@example.com: 'max_temp_directory_size' setting"),
        duckdb.TransactionException(
            'Failed to commit: Could not write file "fan@example.com": File too large'
        ),
        sqlite3.OperationalError("database or disk is full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_is_named_with_the_way_out(error: Exception) -> None:
    text = describe(error)
    assert f"the disk is full: free space in {tempfile.gettempdir()}" in text
    assert "fan@" not in text
