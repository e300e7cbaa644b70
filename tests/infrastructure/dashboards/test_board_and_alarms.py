"""Dashboard, alarms and saved queries as they are declared."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.flows import RUN_JOBS
from regworkers_core.infrastructure.alarms import alarms, facts_of
from regworkers_core.infrastructure.board import board, by_correlation_id, saved_queries
from regworkers_core.observability.metrics import EVALUATED, INSTRUMENTS
from regworkers_core.settings import AlertSettings
from regworkers_dagster.definitions import defs
from tests.support.runtimes import test_settings


@pytest.fixture
def settings() -> Any:
    return test_settings("prod-")


def test_a_missing_heartbeat_is_an_alarm(settings: Any) -> None:
    (watch,) = [each for each in alarms(settings) if each.metric.name == EVALUATED.name]
    assert watch.missing == "breaching" and watch.comparison == "LessThanThreshold"
    assert watch.metric.dimensions == (("Environment", settings.environment),)


def test_every_queue_has_an_alarm_for_depth_age_and_dead_letters(settings: Any) -> None:
    watched: dict[str, set[str]] = {}
    for each in alarms(settings):
        if each.metric.namespace == "AWS/SQS":
            watched.setdefault(each.metric.dimensions[0][1], set()).add(each.metric.name)
    for queue in settings.names.queues:
        assert watched[queue] == {"ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"}
        assert watched[settings.names.dead_letter_queue(queue)] == {"ApproximateNumberOfMessagesVisible"}


def test_the_level_of_an_alarm_follows_the_severity_of_its_condition(settings: Any) -> None:
    def levels(**severity: str) -> dict[str, str]:
        changed = {"alerts": AlertSettings.model_validate({"severity": severity})}
        made = alarms(settings.model_copy(update=changed))
        assert all(each.request()["AlarmDescription"].startswith(f"{each.severity}: ") for each in made)
        return {each.name.removeprefix("prod-regworkers-"): each.severity.value for each in made}

    usual = levels()
    assert (
        usual["selection-queue-dlq-not-empty"]
        == usual["stream-behind"]
        == usual["alerts-not-evaluated"]
        == "critical"
    )
    assert usual["selection-queue-deep"] == usual["save-retries"] == "warning"
    other = levels(dead_letters="warning", queue_depth="critical", performance="critical", watcher="warning")
    assert other["selection-queue-dlq-not-empty"] == other["alerts-not-evaluated"] == "warning"
    assert other["selection-queue-deep"] == other["save-retries"] == "critical"


def test_the_dashboard_shows_what_the_manual_names(settings: Any) -> None:
    rows = [row for widget in board(settings)["widgets"] for row in widget["properties"].get("metrics", ())]
    shown = {(row[1], row[-1]["stat"]) for row in rows if len(row) > 1}
    wanted = {("BatchDuration", p) for p in ("p50", "p95", "p99")} | {
        ("Invocations", "Sum"),
        ("ConcurrentExecutions", "Maximum"),
        ("NumberOfMessagesSent", "Sum"),
        ("NumberOfMessagesDeleted", "Sum"),
        ("ApproximateNumberOfMessagesNotVisible", "Maximum"),
        ("GetRecords.IteratorAgeMilliseconds", "Maximum"),
        ("UserErrors", "Sum"),
        ("RunsSucceeded", "Sum"),
        ("RunsFailed", "Sum"),
        ("RunDuration", "Maximum"),
    }
    assert wanted <= shown
    jobs = {row[row.index("Job") + 1] for row in rows if "Job" in row}
    assert jobs == set(RUN_JOBS)
    assert any('Operation="GetRecords"' in row[0].get("expression", "") for row in rows if len(row) == 1)
    ours = {row[1] for row in rows if len(row) > 1 and row[0] == "regworkers"}
    assert ours <= {each.name for each in INSTRUMENTS}


def test_every_job_that_is_counted_exists_and_has_an_alarm_of_failed_runs(settings: Any) -> None:
    names = {each.name for each in defs.resolve_all_job_defs()}
    assert set(RUN_JOBS) <= names
    failed = {
        dict(each.metric.dimensions)["Job"]: each.severity.value
        for each in alarms(settings)
        if each.metric.name == "RunsFailed"
    }
    assert set(failed) == set(RUN_JOBS)
    assert (failed["draw"], failed["archive_events"]) == ("critical", "warning")


def test_a_percentile_of_an_alarm_has_its_own_parameter_and_differs_from_another_statistic(
    settings: Any,
) -> None:
    (lags,) = (each for each in alarms(settings) if each.name.endswith("replication-lags"))
    request = lags.request()
    assert request["ExtendedStatistic"] == "p95" and "Statistic" not in request
    assert facts_of(request)["holds"] == f"p95 GreaterThanThreshold {lags.threshold:g}"


def test_names_are_unique_and_widgets_do_not_overlap(settings: Any) -> None:
    names = [each.name for each in alarms(settings)]
    assert len(set(names)) == len(names)
    places = [(widget["x"], widget["y"]) for widget in board(settings)["widgets"]]
    assert len(set(places)) == len(places)


def test_the_manuals_queries_stand_with_its_filters_and_limits(settings: Any) -> None:
    texts = {name.rpartition("/")[2]: text for name, text in saved_queries(settings).items()}
    for name, filtered, limit in (
        ("failed invocations", "filter @message like /ERROR/", 100),
        ("by correlation id", 'filter correlationId = "<correlation id>"', 1000),
        ("SQS batch failures", 'filter batchItemFailures != "[]"', 100),
        ("slow requests", "filter durationMs > 5000", 50),
    ):
        assert filtered in texts[name] and texts[name].endswith(f"limit {limit}")


def test_an_id_cannot_break_out_of_its_query() -> None:
    text = by_correlation_id('x" or 1 = 1 | display @message "')
    assert 'correlationId = "x or 1 = 1 | display @message "' in text
