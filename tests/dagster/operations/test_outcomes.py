"""Runs that ended are counted once each, as metrics and lines, also when a tick is missed or its cursor is lost."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import dagster as dg
import pytest
from structlog.testing import capture_logs

from regworkers_core.domain.reasons import UsageError
from regworkers_core.observability.metrics import Metering
from regworkers_core.operations.health.scheduler import REFUSED_TAG
from regworkers_dagster.drains import sensing
from regworkers_dagster.operations import outcomes
from regworkers_dagster.operations.outcomes import Counted, RunOutcome, new_outcomes
from regworkers_dagster.resources import plain_failures


def run(run_id: str, at: float, outcome: str = "succeeded") -> RunOutcome:
    return RunOutcome(run_id, "draw", outcome, at, 1.0)


def test_a_run_counts_once_also_if_it_is_stored_late() -> None:
    new, counted = new_outcomes([run("old", 900.0)], None, now=1000.0)
    assert not new, "what ended before the first tick was counted by another release, or by none"
    new, counted = new_outcomes([run("old", 900.0), run("a", 1050.0)], counted, now=1060.0)
    assert [each.run_id for each in new] == ["a"]
    new, counted = new_outcomes([run("a", 1050.0), run("late", 1049.0)], counted, now=1120.0)
    assert [each.run_id for each in new] == ["late"]
    new, _ = new_outcomes(
        [run("a", 1050.0), run("late", 1049.0)], Counted.parse(counted.as_text()), now=1180.0
    )
    assert not new


@pytest.mark.parametrize("cursor", [None, "", "{}", "null", '{"at": "x", "runIds": []}', "not json"])
def test_a_damaged_cursor_counts_from_the_start(cursor: str | None) -> None:
    assert Counted.parse(cursor) is None


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def test_a_failed_draw_is_a_metric_and_an_error_line_and_a_refused_one_is_neither(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: list[Metering] = []

    runtime = SimpleNamespace(metrics=SimpleNamespace(put=put.extend))
    monkeypatch.setattr(sensing, "runtime_of", lambda *_, **__: runtime)

    def tick(cursor: str | None) -> str:
        context = dg.build_sensor_context(instance=instance, cursor=cursor, sensor_name="count_runs")
        outcomes.outcomes_tick(context)
        return str(context.cursor)

    def ended(status: dg.DagsterRunStatus, **tags: str) -> str:
        @dg.job(name="draw")
        def draw() -> None: ...

        made = instance.create_run_for_job(draw, status=dg.DagsterRunStatus.STARTED, tags=tags)
        if status is dg.DagsterRunStatus.FAILURE:
            instance.report_run_failed(made, "Its worker was lost.")
        else:
            instance.report_dagster_event(
                dg.DagsterEvent(event_type_value="PIPELINE_SUCCESS", job_name="draw"), made.run_id
            )
        return str(made.run_id)

    cursor = tick(None)
    failed = ended(dg.DagsterRunStatus.FAILURE)
    ended(dg.DagsterRunStatus.FAILURE, **{REFUSED_TAG: "request"})
    ended(dg.DagsterRunStatus.SUCCESS)
    with capture_logs() as lines:
        cursor = tick(cursor)
        tick(cursor)
    ends = [(line["log_level"], line["outcome"]) for line in lines if line["event"] == "run ended"]
    assert sorted(ends) == [("error", "failed"), ("info", "refused"), ("info", "succeeded")]
    (line,) = [line for line in lines if line.get("outcome") == "failed"]
    assert (line["runId"], line["error"]) == (failed, "Its worker was lost.")
    names = sorted(each.instrument.name for each in put)
    assert names == ["RunDuration", "RunDuration", "RunsFailed", "RunsSucceeded"]
    assert all(each.dimensions == {"Job": "draw"} for each in put)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (UsageError("table x is missing"), "seed: table x is missing"),
        (dg.Failure(description="two lines\nof our own"), "seed: two lines of our own"),
        (KeyError("fan@example.com"), "seed: KeyError"),
    ],
)
def test_the_line_of_a_failed_materialization_says_the_job_the_step_and_why_without_a_foreign_text(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, failure: Exception, said: str
) -> None:
    @dg.asset
    def seed() -> None:
        if isinstance(failure, KeyError):
            raise failure
        with plain_failures():
            raise failure

    draw = dg.define_asset_job("draw", [seed], executor_def=dg.in_process_executor)
    code = dg.Definitions([seed], jobs=[draw])
    runtime = SimpleNamespace(metrics=SimpleNamespace(put=lambda _: None))
    monkeypatch.setattr(sensing, "runtime_of", lambda *_, **__: runtime)
    context = dg.build_sensor_context(instance=instance, definitions=code, sensor_name="count_runs")
    outcomes.outcomes_tick(context)
    clicked = code.resolve_implicit_global_asset_job_def()
    clicked.execute_in_process(instance=instance, asset_selection=[seed.key], raise_on_error=False)
    with capture_logs() as lines:
        outcomes.outcomes_tick(context)
    (line,) = [line for line in lines if line["event"] == "run ended"]
    assert (line["log_level"], line["job"], line["error"]) == ("error", "draw", said)
