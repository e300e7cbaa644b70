"""What CloudWatch has of an environment: alarms, error lines and their price."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import orjson
import pytest

from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import Pattern
from regworkers_core.infrastructure.alarms import alarms
from regworkers_core.observability.metrics import RECEIVED, Metering
from regworkers_core.operations.cloudwatch import (
    WatchingCost,
    alarm_states,
    error_lines,
    pattern_of,
    watching_cost,
)
from regworkers_core.operations.runbooks import cost
from regworkers_core.runtime import Runtime
from tests.adapters.fakes import FakeClient, client_error
from tests.support.runtimes import test_settings
from tests.support.waiting import sleeping

pytestmark = pytest.mark.namespace("module", observability={"cloudwatch_enabled": True})


def line(level: str, event: str, **fields: Any) -> str:
    return orjson.dumps(
        {"timestamp": "2026-11-26T12:00:00Z", "level": level, "event": event, **fields}
    ).decode()


def test_lines_that_differ_by_ids_and_numbers_alone_are_one_pattern() -> None:
    one = line("ERROR", "dead letter", worker="saveEntries", reason="DEFECT", error="KeyError at saver.py:41")
    two = line("ERROR", "dead letter", worker="saveEntries", reason="DEFECT", error="KeyError at saver.py:57")
    assert (
        pattern_of(one)
        == pattern_of(two)
        == Pattern("ERROR", "saveEntries", "dead letter", "DEFECT KeyError at saver.py:#")
    )
    text = "found 'secret@example.com' in 0b7c4f1e-55aa-4c1e-9d0f-000000000000"
    assert pattern_of(line("WARNING", "x", error=text)).about == "found # in #"


def test_a_line_of_others_is_counted_without_its_text() -> None:
    assert pattern_of("2026 - dagster - ERROR - fan@example.com") == Pattern(
        "ERROR", "", "a line of Dagster or Python", ""
    )


def test_error_lines_are_grouped_and_others_left_out(runtime: Runtime) -> None:
    client, group, stream = runtime.aws.client("logs"), runtime.names.log_group, uuid.uuid4().hex
    client.create_log_stream(logGroupName=group, logStreamName=stream)
    texts = [
        line("ERROR", "receive failed", dependency="sqs", error="no answer"),
        line("WARNING", "receive failed", dependency="sqs", error="no answer"),
        line("ERROR", "receive failed", dependency="sqs", error="no answer"),
        line("INFO", "entry saved"),
        "dagster - ERROR - a step failed",
    ]
    now = runtime.clock()
    events = [{"timestamp": int(now * 1000), "message": text} for text in texts]
    client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    found = error_lines(runtime, now - 3600, now + 60)
    assert found.patterns == {
        Pattern("ERROR", "", "receive failed", "sqs no answer"): 2,
        Pattern("WARNING", "", "receive failed", "sqs no answer"): 1,
        Pattern("ERROR", "", "a line of Dagster or Python", ""): 1,
    }
    assert not found.cut and found.lines == 4
    assert not error_lines(runtime, now - 7200, now - 3600).lines


def test_a_query_that_does_not_end_is_an_outage_and_a_missing_group_says_so() -> None:
    hanging = Runtime(test_settings("t-"))
    client = FakeClient(
        start_query=lambda **_: {"queryId": "q"}, get_query_results=lambda **_: {"status": "Running"}
    )
    hanging.aws.client = lambda *_a, **_k: client  # type: ignore[method-assign]
    waits: list[float] = []
    with sleeping(waits.append), pytest.raises(TransientFailure, match="running"):
        error_lines(hanging, 0, 1)
    assert sum(waits) == pytest.approx(60)
    gone = FakeClient(start_query=[client_error("ResourceNotFoundException")])
    hanging.aws.client = lambda *_a, **_k: gone  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="log group /t-regworkers"):
        error_lines(hanging, 0, 1)


def put_alarms(runtime: Runtime) -> None:
    """As Terraform does."""
    for alarm in alarms(runtime.settings):
        runtime.aws.client("cloudwatch").put_metric_alarm(**alarm.request())


def test_alarms_have_their_state_and_severity(runtime: Runtime) -> None:
    put_alarms(runtime)
    name = f"{runtime.names.prefix}regworkers-save-retries"
    runtime.aws.client("cloudwatch").set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="test")
    states = {each.name: each for each in alarm_states(runtime)}
    assert (states[name].state, states[name].severity) == ("ALARM", "warning")
    assert states[name].since.endswith("Z")


def test_the_cost_of_watching_counts_what_exists(runtime: Runtime) -> None:
    put_alarms(runtime)
    runtime.metrics.put([Metering(RECEIVED, 1, {"Drain": "save"})])
    found = watching_cost(runtime, 7)
    assert found.alarms > 40 and found.metrics >= 1
    assert found.retention_days == runtime.settings.observability.log_retention_days
    assert found.ingested_bytes is None, "the emulator does not measure it"
    facts = cost.run(runtime, days=7).facts
    assert (facts["alarms"], facts["logLevel"], facts["entryLogRate"]) == (found.alarms, "INFO", 1.0)
    assert "CloudWatch" not in str(facts["notIn"])


KEPT = WatchingCost(
    7, alarms=50, metrics=100, stored_bytes=10**10, ingested_bytes=7e9, retention_days=14, log_level="INFO",
    entry_log_rate=1.0,
)  # fmt: skip


def test_prices_are_of_a_month_and_lines_of_the_period() -> None:
    month = 50 * 0.10 + 100 * 0.30 + 3 + 10 * 0.03
    assert KEPT.standing_dollars(7) == pytest.approx(month * 7 / 30)
    assert KEPT.line_dollars(7) == pytest.approx(7 * 0.50)
    work = {
        "save": DrainWindow(
            "save", counts=Counter(received=10**6, applied=10**6), calls=Counter(cloudwatch=100)
        )
    }
    report, without = cost.assess(work, 7, KEPT), cost.assess(work, 7)
    services = next(each for each in report.tables if each.title == "services")
    (row,) = [each for each in services.rows if "cloudwatch" in each]
    assert row[services.columns.index("dollars")] == pytest.approx(3.5 + 100 * cost.CLOUDWATCH_REQUEST)
    # Alarms and metrics cost the same without entries: they are in the sum, and not in the price of a million.
    added = {
        name: report.facts[name] - without.facts[name]  # type: ignore[operator]
        for name in ("dollars", "dollarsPerMillionEntries")
    }
    assert added == pytest.approx(
        {"dollars": 3.5 + month * 7 / 30, "dollarsPerMillionEntries": 3.5}, abs=0.001
    )
    assert report.facts["ingestedGb"] == 7.0 and not report.remarks


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"log_level": "DEBUG"}, "observability.logLevel"),
        ({"retention_days": None}, "observability.logRetentionDays"),
        ({"ingested_bytes": 7 * 11e9}, "observability.entryLogRate"),
    ],
)
def test_what_makes_logs_dear_is_a_finding(changes: dict[str, Any], advice: str) -> None:
    watching = WatchingCost(**{name: getattr(KEPT, name) for name in KEPT.__slots__} | changes)
    (finding,) = cost.assess({}, 7, watching).remarks
    assert advice in finding.advice


def test_a_cost_that_cannot_be_read_hides_no_other(runtime: Runtime) -> None:
    blind = Runtime(runtime.settings)
    refusing = FakeClient(list_metrics=[client_error("AccessDenied")] * 9)
    blind.aws.client = lambda *_a, **_k: refusing  # type: ignore[method-assign]
    watching, unread = cost.readable_watching(blind, 7)
    assert watching is None and "AWS refuses" in unread
    assert f"CloudWatch ({unread})" in str(cost.assess({}, 7, watching, unread).facts["notIn"])
