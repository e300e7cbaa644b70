"""A new instance of Dagster has a result of every check within its first minute."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned

from regworkers_core.engine.queue import Outgoing
from regworkers_core.runtime import Runtime
from regworkers_dagster.analytics import one_row_per_id
from regworkers_dagster.factories import POD_TAG
from regworkers_dagster.operations import first_checks
from regworkers_dagster.replication import observe_tick
from tests.dagster.support import use


@dg.job(name="nothing")
def NOTHING() -> None: ...


BY_SENSORS = {
    "analytics_dlq_empty",
    "dependencies_answer",
    "lag_within_objective",
    "doctor_finds_nothing",
    "notification_dlq_empty",
    "redemption_dlq_empty",
    "replication_dlq_empty",
    "selection_dlq_empty",
}


@pytest.fixture
def tick(shared: Runtime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Any:
    from regworkers_dagster.definitions import defs

    use(monkeypatch, shared)

    def evaluate() -> Any:
        context = dg.build_sensor_context(
            instance=instance, sensor_name="first_checks", repository_def=defs.get_repository_def()
        )
        answer = first_checks.first_checks_tick(context)
        for event in getattr(answer, "asset_events", ()):
            instance.report_runless_asset_event(event)
        return answer

    return evaluate


def test_every_check_is_evaluated_by_a_sensor_or_by_the_first_run(tick: Any) -> None:
    from regworkers_dagster.definitions import defs

    answer = tick()
    first = {key.name for request in answer.run_requests for key in request.asset_check_keys}
    # Each with the account and the secret of its duty.
    pods = [json.loads(request.tags[POD_TAG])["pod_spec_config"] for request in answer.run_requests]
    duties = [pod["service_account_name"] for pod in pods]
    assert sorted(duties) == sorted(
        f"regworkers-{each}" for each in ("replication", "selection", "analytics", *["operations"] * 4)
    )
    first |= {event.check_name for event in answer.asset_events}
    every = {key.name for key in defs.resolve_asset_graph().asset_check_keys}
    assert not first & BY_SENSORS and first | BY_SENSORS == every


def test_only_what_is_missing_is_launched_and_no_drill_with_it(
    tick: Any, instance: dg.DagsterInstance
) -> None:
    for name in ("parity", "one_row_per_id"):
        asset = "reconcile_results" if name == "parity" else "event_archive"
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=dg.AssetKey(asset), check_name=name, passed=True)
        )
    *requests, draws = tick().run_requests
    assert {key.name for key in draws.asset_check_keys} == {
        "capacity_respected",
        "codes_and_winners_biject",
        "codes_within_capacity",
        "counts_match",
        "draw_replays",
        "win_rates_uniform",
    }
    of_jobs = {each.job_name: each.partition_key for each in requests}
    # A review without a quarter has no drill.
    assert of_jobs == dict.fromkeys(
        ("check_certificate", "monthly_review", "quarterly_review", "weekly_review")
    )


def test_the_first_runs_give_each_its_result_and_are_the_last_ones(
    tick: Any, instance: dg.DagsterInstance
) -> None:
    from regworkers_dagster.definitions import defs

    materialised = []
    for request in tick().run_requests:
        # The reviews draw pages for seconds: they have tests of their own.
        keys = [key for key in request.asset_check_keys if "review" not in key.name]
        selected = defs.resolve_job_def(request.job_name).get_subset(
            asset_selection=set(request.asset_selection), asset_check_selection=set(request.asset_check_keys)
        )
        dg.validate_run_config(selected, request.run_config)
        if keys:
            result = selected.execute_in_process(instance=instance)
            evaluated = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
            assert evaluated == {key.name: True for key in keys}
            materialised += [key.to_user_string() for key in result_keys(result)]
        for key in set(request.asset_check_keys) - set(keys):
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, passed=True)
            )
    assert materialised == ["reconcile_results", "kafka_certificate"]
    assert tick().skip_message == "every check has a result"


def test_what_a_dead_run_left_is_asked_again_later_and_what_a_live_one_has_is_not(
    tick: Any, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = tick().run_requests
    for request in requests:
        run = instance.create_run_for_job(NOTHING)
        for key in request.asset_check_keys:
            # As Dagster writes it when it creates the run.
            planned = AssetCheckEvaluationPlanned(asset_key=key.asset_key, check_name=key.name)
            event = dg.DagsterEvent(
                event_type_value=dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
                job_name="nothing",
                event_specific_data=planned,
            )
            instance.report_dagster_event(event, run.run_id)
        if request is not requests[0]:
            instance.report_run_failed(run)
    assert "have a run, or wait for another one" in tick().skip_message
    assert "every check" not in tick().skip_message
    monkeypatch.setattr(first_checks, "_AGAIN_SECONDS", 0.0)
    again = tick().run_requests
    assert [each.asset_check_keys for each in again] == [each.asset_check_keys for each in requests[1:]]


def result_keys(result: dg.ExecuteInProcessResult) -> list[dg.AssetKey]:
    events = [event for event in result.all_events if event.is_step_materialization]
    return sorted(event.asset_key for event in events if event.asset_key)


def test_while_a_store_does_not_answer_nothing_is_launched(
    tick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_MONGO__URI", "mongodb://127.0.0.1:9/")
    monkeypatch.setenv("REGWORKERS_MONGO__SERVER_SELECTION_TIMEOUT_SECONDS", "0.05")
    assert "mongo does not answer" in tick().skip_message


def test_an_idle_system_is_fresh(
    shared: Runtime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, shared)
    answer = observe_tick(dg.build_sensor_context(instance=instance, sensor_name="observe_replication"))
    assert isinstance(answer, dg.SensorResult)
    fresh = {
        event.asset_key.to_user_string()
        for event in answer.asset_events
        if isinstance(event, dg.AssetMaterialization)
    }
    assert fresh == {"demand_table", "entries", "replication_dlq", "replication_queue"}


def _drain(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def entries() -> None: ...

    dg.materialize([entries], instance=instance)


def test_the_checks_of_entries_are_repeated_after_each_drain_or_the_ui_shows_them_as_not_evaluated(
    shared: Runtime, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, shared)
    cursor = None

    def look() -> list[str]:
        nonlocal cursor
        context = dg.build_sensor_context(instance=instance, cursor=cursor, sensor_name="observe_replication")
        answer = observe_tick(context)
        assert isinstance(answer, dg.SensorResult)
        cursor = answer.cursor
        for event in answer.asset_events:
            instance.report_runless_asset_event(event)
        return [each.check_name for each in answer.asset_events if isinstance(each, dg.AssetCheckEvaluation)]

    both = {"dependencies_answer", "lag_within_objective"}
    assert both <= set(look())
    assert not look()
    _drain(instance)
    assert both == set(look())


def test_the_result_of_a_night_is_repeated_with_its_time_after_each_materialisation_of_the_day(
    tick: Any, instance: dg.DagsterInstance
) -> None:
    @dg.asset
    def event_archive() -> None: ...

    check = one_row_per_id.check_key
    evaluation = dg.AssetCheckEvaluation(check.asset_key, check.name, passed=False, description="2 rows")
    instance.report_runless_asset_event(evaluation)
    last = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]

    def repeated() -> list[dg.AssetCheckEvaluation]:
        return [each for each in getattr(tick(), "asset_events", ()) if each.asset_check_key == check]

    assert repeated() == []
    for _ in range(2):
        dg.materialize([event_archive], instance=instance)
        (again,) = repeated()
        assert (again.passed, again.description) == (False, "2 rows")
        assert again.metadata["evaluated_at"] == dg.MetadataValue.timestamp(last.create_timestamp)


def test_nothing_is_compared_while_changes_wait_for_replication(tick: Any, shared: Runtime) -> None:
    queue = shared.queue(shared.names.replication_queue)
    queue.send([Outgoing(b"{}")])
    try:
        names = {key.name for request in tick().run_requests for key in request.asset_check_keys}
    finally:
        queue.delete(queue.receive(1, 1.0, 30))
    assert "parity" not in names and "draw_replays" in names
