"""What the weekly review says of what it has read."""

from __future__ import annotations

from typing import Any

from regworkers_core.adapters.mongo.dead_letters import RecordedFailure, RecordedFailures
from regworkers_core.domain.alert import Change, Severity
from regworkers_core.operations.reviews.history import Day, QueueFacts
from regworkers_core.operations.reviews.sections import Section
from regworkers_core.operations.reviews.weekly import alerts, dead_letters, durations, errors
from tests.operations.reviews.world import DAY, NOW, ago, has, incident, letter, minute, said

SINCE = NOW - 7 * DAY
DLQ = "replication-queue-dlq"


def of_letters(*letters: RecordedFailure, depth: int = 0, days_kept: float = 14.0) -> Section:
    queue = QueueFacts(DLQ, depth, int(days_kept * DAY))
    return dead_letters([queue], RecordedFailures(letters, cut=False), since=SINCE, now=NOW)


def day(drain: str = "save", **changes: Any) -> Day:
    made = Day(ago(1)[:10], drain)
    made.add(minute(1, drain=drain, **changes))
    return made


def test_a_dead_letter_that_is_lost_in_four_days_has_to_be_dealt_with_before_it_is() -> None:
    assert has(of_letters(letter(first_failed_at=ago(10.5)), depth=1), "finding", DLQ, "lost in 3.5 days")
    assert has(of_letters(letter(first_failed_at=ago(15)), depth=1), "finding", "lost already")
    fresh = of_letters(letter(first_failed_at=ago(2)), depth=1)
    assert not said(fresh, "finding") and has(fresh, "warning", "1 message ")


def test_messages_that_no_letter_tells_of_are_named() -> None:
    assert has(of_letters(letter(), depth=3), "warning", "2 messages without an open letter")
    assert not has(of_letters(letter(), letter(), depth=2), "warning", "without an open letter")


def test_letters_are_counted_by_what_became_of_them_within_the_week() -> None:
    section = of_letters(
        letter(),
        letter(status="resolved", closed_at=ago(1)),
        letter(status="dropped", closed_at=ago(2)),
        letter(status="resolved", closed_at=ago(9), last_failed_at=ago(10), first_failed_at=ago(10)),
    )
    assert section.lead == "1 open; within the week 2 closed (1 dropped, 1 resolved)."
    assert section.tables[0].rows[0][2:4] == (1, 3)
    assert "by_day" in section.plots


def test_a_critical_alert_that_is_open_is_a_finding_and_a_warning_one_after_a_day() -> None:
    old = incident("replication:lag", severity=Severity.WARNING, opened_at=ago(2))
    young = incident("save:slow", severity=Severity.WARNING, opened_at=ago(0.5))
    section = alerts([incident(), old, young], since=SINCE, now=NOW)
    assert has(section, "finding", "analytics:kafka", "12.0 hours")
    assert has(section, "warning", "replication:lag", "48.0 hours")
    assert not has(section, "warning", "save:slow")


def test_closed_alerts_of_the_week_are_in_it_with_how_long_they_were_open_and_who_was_told() -> None:
    closed = incident(open=False, notified={"slack": Change.RESOLVED})
    older = incident("old:one", open=False, opened_at=ago(30), resolved_at=ago(20))
    section = alerts([closed, older], since=SINCE, now=NOW)
    assert section.lead.startswith("0 open, 1 opened and 1 closed") and "6.0 hours" in section.lead
    ((key, *_, told),) = section.tables[0].rows
    assert (key, told) == ("analytics:kafka", "slack") and "open_hours" in section.plots


def test_batches_that_take_longer_than_the_week_before_are_named_with_whom_they_wait_for() -> None:
    section = durations([day(batch_p95_seconds=1.0)], [day(batch_p95_seconds=1.5)], since=SINCE)
    assert has(section, "warning", "save", "50 %", "mongo")
    assert not durations([day(batch_p95_seconds=1.0)], [day(batch_p95_seconds=1.1)], since=SINCE).remarks
    # Fractions of a tenth of a second differ by themselves.
    assert not durations([day(batch_p95_seconds=0.01)], [day(batch_p95_seconds=0.05)], since=SINCE).remarks


def test_a_batch_near_the_time_for_which_it_is_its_own_is_a_finding() -> None:
    section = durations([], [day(batch_max_seconds=55.0, batch_limit_seconds=60.0)], since=SINCE)
    assert has(section, "finding", "55.0 s", "60 s")


def test_without_a_minute_of_any_drain_there_is_no_data_and_nothing_fails() -> None:
    section = durations([], [], since=SINCE)
    assert section.lead == f"No data since {ago(7)}." and has(section, "note", "no drain has been recorded")
    assert errors(RecordedFailures((), False), [], [], since=SINCE).lead.startswith(
        "Nothing became a dead letter"
    )


def test_a_cause_that_is_new_and_one_that_doubles_are_told_apart() -> None:
    grown = [letter(fingerprint="old", error="grown", first_failed_at=ago(9), last_failed_at=ago(9))]
    grown += [letter(fingerprint="old", error="grown") for _ in range(2)]
    section = errors(RecordedFailures((*grown, letter(error="fresh")), False), [], [], since=SINCE)
    assert has(section, "warning", "new this week", "fresh", "1 time")
    assert has(section, "warning", "more than the week before (1)", "grown", "2 times")
    steady = [letter(first_failed_at=ago(9), last_failed_at=ago(9)), letter(first_failed_at=ago(9))]
    assert not errors(RecordedFailures(tuple(steady), False), [], [], since=SINCE).remarks


def test_a_share_of_failed_items_that_grew_and_runs_that_met_an_outage_are_named() -> None:
    bad = day(counts={"received": 100, "dead_lettered": 2, "returned": 3}, ended="dependency_down")
    section = errors(RecordedFailures((), False), [day()], [bad], since=SINCE)
    assert has(section, "warning", "5.0 %") and has(section, "note", "1 run ended because a dependency")
    assert not has(errors(RecordedFailures((), False), [bad], [bad], since=SINCE), "warning", "5.0 %")
