"""The remarks and figures of the weekly review."""

from __future__ import annotations

from collections import Counter

from regworkers_core.adapters.mongo.dead_letters import RecordedFailure, RecordedFailures
from regworkers_core.domain.snapshot import Budget, IncidentChange, Pattern, QueueState, Severity, Share
from regworkers_core.operation import Report
from regworkers_core.operations.cloudwatch import AlarmState, ErrorLines
from regworkers_core.operations.health.activity import Window
from regworkers_core.operations.reviews.weekly import (
    alarms,
    alerts,
    dead_letters,
    durations,
    errors,
    logs,
    objectives,
)
from regworkers_core.settings import AlertSettings, Settings
from tests.operations.reviews.world import DAY, NOW, ago, day, failure, has, incident, said

WEEK = Window(NOW - 7 * DAY, NOW)
DLQ = "replication-queue-dlq"
SEVERITIES = {
    "batch_time": "critical",
    "performance": "critical",
    "dead_letters": "warning",
    "data_loss_critical": "warning",
}
OTHER = Settings(alerts=AlertSettings.model_validate({"severity": SEVERITIES}))


def section_of(*failures: RecordedFailure, depth: int = 0, settings: Settings | None = None) -> Report:
    queue = QueueState(DLQ, depth, 0, 0, True, 14 * DAY)
    return dead_letters([queue], RecordedFailures(failures, cut=False), settings or Settings(), WEEK)


def test_a_dead_letter_that_expires_within_four_days_is_a_finding() -> None:
    assert has(section_of(failure(first_failed_at=ago(10.5)), depth=1), "finding", DLQ, "expires in 3.5 days")
    assert has(section_of(failure(first_failed_at=ago(15)), depth=1), "finding", "has expired")
    assert has(section_of(failure(first_failed_at=ago(15))), "finding", "has expired"), "of an empty queue"
    assert has(section_of(failure(first_failed_at=ago(15)), settings=OTHER), "warning", "has expired")
    fresh = section_of(failure(first_failed_at=ago(2)), depth=1)
    assert not said(fresh, "finding") and has(fresh, "warning", "1 message ")


def test_messages_without_a_dead_letter_document_are_counted() -> None:
    assert has(section_of(failure(), depth=3), "warning", "2 messages without an open dead-letter document")
    assert not has(
        section_of(failure(), failure(), depth=2), "warning", "without an open dead-letter document"
    )


def test_dead_letters_closed_within_the_week_are_counted_by_status() -> None:
    section = section_of(
        failure(),
        failure(status="resolved", closed_at=ago(1)),
        failure(status="dropped", closed_at=ago(2)),
        failure(status="resolved", closed_at=ago(9), last_failed_at=ago(10), first_failed_at=ago(10)),
    )
    assert section.said[0] == "1 open; within the week 2 closed (1 dropped, 1 resolved)."
    assert section.tables[0].rows[0][2:4] == (1, 3)
    assert "by_day.png" in section.files


def test_a_critical_alert_that_is_open_is_a_finding_and_a_warning_one_after_a_day() -> None:
    old = incident("replication:lag", severity=Severity.WARNING, opened_at=ago(2))
    young = incident("save:slow", severity=Severity.WARNING, opened_at=ago(0.5))
    section = alerts([incident(), old, young], WEEK)
    assert has(section, "finding", "analytics:kafka", "12.0 hours")
    assert has(section, "warning", "replication:lag", "48.0 hours")
    assert not has(section, "warning", "save:slow")


def test_alerts_closed_within_the_week_have_their_duration_and_channels() -> None:
    closed = incident(open=False, notified={"slack": IncidentChange.RESOLVED})
    older = incident("old:one", open=False, opened_at=ago(30), resolved_at=ago(20))
    section = alerts([closed, older], WEEK)
    assert section.said[0].startswith("0 open, 1 opened and 1 closed") and "6.0 hours" in section.said[0]
    ((key, *_, notified),) = section.tables[0].rows
    assert (key, notified) == ("analytics:kafka", "slack") and "open_hours.png" in section.files


def test_slower_batches_are_named_with_the_dependency_that_they_wait_for() -> None:
    section = durations(day(batch_p95_seconds=1.0), day(batch_p95_seconds=1.5), Settings(), WEEK)
    assert has(section, "warning", "save", "50 %", "mongo")
    assert not durations(day(batch_p95_seconds=1.0), day(batch_p95_seconds=1.1), Settings(), WEEK).remarks
    # Fractions of a tenth of a second differ by themselves.
    assert not durations(day(batch_p95_seconds=0.01), day(batch_p95_seconds=0.05), Settings(), WEEK).remarks


def test_a_batch_near_its_visibility_timeout_is_as_urgent_as_the_severity_of_its_check() -> None:
    section = durations({}, day(batch_max_seconds=55.0, batch_limit_seconds=60.0), Settings(), WEEK)
    assert has(section, "warning", "55.0 s", "60 s")
    section = durations({}, day(batch_max_seconds=55.0, batch_limit_seconds=60.0), OTHER, WEEK)
    assert has(section, "finding", "55.0 s", "60 s")


def test_without_a_minute_of_any_drain_there_is_no_data_and_nothing_fails() -> None:
    section = durations({}, {}, Settings(), WEEK)
    assert section.said[0] == f"No data since {ago(7)}." and has(
        section, "note", "no drain has been recorded"
    )
    assert (
        errors(RecordedFailures((), False), {}, {}, Settings(), WEEK)
        .said[0]
        .startswith("Nothing became a dead letter")
    )


def test_new_causes_and_doubled_causes_are_distinguished() -> None:
    grown = [failure(fingerprint="old", error="grown", first_failed_at=ago(9), last_failed_at=ago(9))]
    grown += [failure(fingerprint="old", error="grown") for _ in range(2)]
    section = errors(RecordedFailures((*grown, failure(error="fresh")), False), {}, {}, Settings(), WEEK)
    assert has(section, "warning", "new this week", "fresh", "1 time")
    assert has(section, "warning", "more than the week before (1)", "grown", "2 times")
    steady = [failure(first_failed_at=ago(9), last_failed_at=ago(9)), failure(first_failed_at=ago(9))]
    assert not errors(RecordedFailures(tuple(steady), False), {}, {}, Settings(), WEEK).remarks


def test_a_growing_share_of_failed_items_and_runs_during_an_outage_are_named() -> None:
    bad = day(counts={"received": 100, "dead_lettered": 2, "returned": 3}, ended="dependency_down")
    section = errors(RecordedFailures((), False), day(), bad, Settings(), WEEK)
    assert has(section, "warning", "5% of what") and has(section, "note", "1 run ended because a dependency")
    assert not has(errors(RecordedFailures((), False), bad, bad, Settings(), WEEK), "warning", "5% of what")


def test_an_alarm_is_a_finding_if_it_is_critical_and_one_without_data_a_warning_after_a_day() -> None:
    states = [
        AlarmState("a", "critical", "ALARM", ago(2)),
        AlarmState("b", "warning", "ALARM", ago(0.5)),
        AlarmState("c", "warning", "INSUFFICIENT_DATA", ago(3)),
        AlarmState("d", "warning", "INSUFFICIENT_DATA", ago(0.1)),
        AlarmState("e", "critical", "OK", ago(9)),
    ]
    section = alarms(states, now=NOW)
    assert has(section, "finding", "a is in ALARM for 48.0 hours")
    assert has(section, "warning", "b is in ALARM") and has(
        section, "warning", "c has had no data for 3.0 days"
    )
    assert not has(section, "warning", "d has") and [row[0] for row in section.tables[0].rows] == [*"abcd"]
    assert section.said[0] == "5 alarms: 2 ALARM, 2 INSUFFICIENT_DATA, 1 OK."
    assert has(alarms([], now=NOW), "note", "no alarm exists")


def test_error_lines_that_are_new_or_many_more_are_warnings_and_known_ones_are_not() -> None:
    new, grown, usual = (Pattern("ERROR", "save", name, "sqs") for name in ("new", "grown", "usual"))
    before = ErrorLines(Counter({grown: 20, usual: 50}), 70)
    now = ErrorLines(Counter({new: 1, grown: 45, usual: 60}), 106)
    section = logs(before, now, Settings(), NOW)
    assert [text.split(":")[0] for text in said(section, "warning")] == [
        "more than the week before (20)",
        "new this week",
    ]
    assert section.said[0] == "106 lines of 3 patterns within the week, 70 the week before."
    assert [row[2] for row in section.tables[0].rows] == ["usual", "grown", "new"]
    assert said(logs(before, now, OTHER, NOW), "finding") == said(section, "warning")
    cut = logs(before, ErrorLines(Counter({usual: 60}), 90_000), Settings(), NOW)
    assert has(cut, "note", "of 90,000 lines")
    quiet = logs(ErrorLines(Counter(), 0), ErrorLines(Counter(), 0), Settings(), NOW)
    assert not quiet.tables and not quiet.remarks


def test_a_budget_that_is_overdrawn_is_a_finding_and_one_that_is_nearly_used_up_a_warning() -> None:
    good = Budget("freshness", 0.99, Share(100_000, 100))
    little = Budget("delivery", 0.999, Share(100_000, 80))
    none = Budget("correctness", 0.9999, Share(100_000, 15))
    budgets = [good, little, Budget("draws", 0.95, Share()), none]
    section = objectives(budgets, Settings(), NOW)
    assert has(section, "warning", "delivery", "20.0 %") and has(section, "finding", "correctness", "-50.0 %")
    assert not has(section, "warning", "freshness") and section.said[0].startswith(
        "The least is left of correctness"
    )
    assert section.tables[0].rows[2] == ("draws", "95 %", None, 0, 0, "100.0 %")
    assert has(objectives(budgets, OTHER, NOW), "warning", "correctness", "-50.0 %")
