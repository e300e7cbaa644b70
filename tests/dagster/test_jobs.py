"""Each job on the real servers, in this process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from regworkers_core.adapters.aws.sqs import SqsQueue
from regworkers_core.dependencies import Dependencies
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.queue import Received
from regworkers_core.runtime import Runtime
from regworkers_core.settings import DrainSettings
from regworkers_dagster.drains import running
from regworkers_dagster.replication import lag_evaluation, lag_within_objective
from regworkers_dagster.resources import connections, plain_failures
from tests.dagster.support import job, plain, use
from tests.support.drains import replicate_all
from tests.support.entries import document, key, put
from tests.support.terminal import regworkers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("used")]

QUICK = {"idle_seconds": 0.1, "max_seconds": 20.0}
_SHORT_TIME_OUTS = {
    "REGWORKERS_MONGO__SERVER_SELECTION_TIMEOUT_SECONDS": "0.2",
    "REGWORKERS_RETRY__TOTAL_SECONDS": "0.3",
}


def _run(name: str, op: str, **config: Any) -> dg.ExecuteInProcessResult:
    return job(name).execute_in_process(run_config={"ops": {op: {"config": config}}}, raise_on_error=False)


def _ended(name: str) -> str:
    """How a run of a job without config says that it ended."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = job(name).execute_in_process(instance=instance)
        assert result.success and not result.get_asset_materialization_events()
        (line,) = [
            log.user_message for log in instance.all_logs(result.run_id) if "ended (" in log.user_message
        ]
        return line


def _failure(result: dg.ExecuteInProcessResult) -> Any:
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    return failed.step_failure_data


def _evaluation(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_the_two_drains_replicate_and_report_numbers(runtime: Runtime) -> None:
    for number in range(3):
        put(runtime, key(f"e{number}"))

    enqueued = _run("enqueue_entries", "enqueue", **QUICK)
    saved = _run("save_entries", "save", **QUICK)

    assert enqueued.success and saved.success
    (queue,) = enqueued.asset_materializations_for_node("enqueue")
    numbers = plain(queue.metadata)
    assert (numbers["received"], numbers["sent"], numbers["ended"]) == (3, 3, "idle")
    assert numbers["calls_streams"] > 0
    assert numbers["lag_p95_seconds"] >= 0
    (entries,) = saved.asset_materializations_for_node("save")
    numbers = plain(entries.metadata)
    assert (numbers["received"], numbers["applied"], numbers["dead_lettered"]) == (3, 3, 0)
    assert numbers["adds_up"] is True
    assert numbers["calls_mongo"] > 0
    stored = document(runtime, key("e1"))
    assert stored is not None
    assert stored["_replication"]["runId"] == saved.run_id


def test_calls_are_those_of_the_run_and_not_of_the_process(runtime: Runtime) -> None:
    calls = []
    for number in (20, 1):
        for each in range(number):
            put(runtime, key(f"e{each}"))
            _run("enqueue_entries", "enqueue", **QUICK)
        saved = _run("save_entries", "save", **QUICK)
        (entries,) = saved.asset_materializations_for_node("save")
        # Idle receives are calls of SQS, too.
        calls.append(plain(entries.metadata)["calls_mongo"])
    assert calls[0] > calls[1]


def test_a_long_drain_reports_while_it_works_and_an_idle_one_has_no_numbers(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        put(runtime, key(f"e{number}"))
    replicated = _run("enqueue_entries", "enqueue", **QUICK)
    assert replicated.success
    monkeypatch.setattr(running, "REPORT_SECONDS", 0.05)
    # Long enough idle for the report of its only work.
    saved = _run("save_entries", "save", idle_seconds=1.0, max_seconds=20.0)
    observations = [event for event in saved.all_events if event.is_asset_observation]
    numbers = [plain(event.asset_observation_data.asset_observation.metadata) for event in observations]
    assert saved.success and sum(each["received"] for each in numbers) == 3
    assert all(each["received"] and each["lag_max_seconds"] > 0 and "ended" not in each for each in numbers)
    assert saved.asset_materializations_for_node("save") == [], "nothing was left"


def test_a_lag_above_the_objective_fails_its_check_for_some_minutes(runtime: Runtime) -> None:
    assert lag_evaluation(runtime).passed, "nothing was saved"
    put(runtime, key("old"), updatedAt="2020-01-01T00:00:00.000Z")
    replicate_all(runtime)
    late = lag_within_objective(**{name: connections()[name] for name in ("aws", "mongo")})
    assert not late.passed and plain(late.metadata)["late"] == 1
    later = Runtime(runtime.settings, clock=lambda: runtime.clock() + 180.0)
    assert lag_evaluation(later).passed, "nothing was saved since"


def test_a_missing_table_is_one_line_that_says_what_to_do(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, runtime, REGWORKERS_RESOURCE_PREFIX="missing-")
    result = _run("save_entries", "save", **QUICK)
    assert not result.success
    failure = _failure(result)
    assert "run `regworkers provision`" in failure.user_failure_data.description
    assert "\n" not in failure.user_failure_data.description
    assert failure.error.cause is None


def test_wrong_settings_are_not_retried_and_an_unavailable_dependency_is() -> None:
    with pytest.raises(dg.Failure) as usage, plain_failures():
        raise UsageError("run `regworkers provision`")
    assert not usage.value.allow_retries
    with pytest.raises(dg.Failure, match="sqs: timeout") as unavailable, plain_failures():
        raise TransientFailure("sqs", "timeout")
    assert unavailable.value.allow_retries


def test_no_stack_is_one_line_too(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGWORKERS_AWS__ENDPOINT_URL")
    failure = _failure(_run("enqueue_entries", "enqueue", **QUICK))
    assert "regworkers local up" in failure.user_failure_data.description


def test_an_unavailable_dependency_at_the_start_fails_the_run_with_a_line_that_says_what_to_do(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, runtime, REGWORKERS_MONGO__URI="mongodb://127.0.0.1:9/", **_SHORT_TIME_OUTS)
    failure = _failure(_run("save_entries", "save", **QUICK))
    assert failure.user_failure_data.description == (
        "mongo: does not answer, so nothing was done; nothing is lost: run it again when `regworkers doctor` is fine"
    )


def test_a_dependency_that_fails_later_ends_the_drain_and_the_run_is_fine(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dependencies, "down", lambda _dependencies, *_names: "mongo")
    assert _ended("save_entries") == "ended (dependency_down, mongo): nothing received"


def test_a_drain_that_could_receive_nothing_fails_its_run_and_names_the_dependency(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(_queue: SqsQueue, *_: object) -> list[Received]:
        raise TransientFailure("sqs", "timeout")

    monkeypatch.setattr(SqsQueue, "receive", unavailable)
    failure = _failure(_run("save_entries", "save", max_seconds=1.0))
    assert failure.user_failure_data.description.startswith("sqs did not answer: no receive was successful")
    assert regworkers(runtime, "drain", "save", "--max-seconds", "1", "--format", "json").code == 1


def test_a_comparison_of_all_entries_judges_parity_and_one_of_a_campaign_materialises_nothing(
    runtime: Runtime,
) -> None:
    for name in ("kept", "lost"):
        put(runtime, key(name), updatedAt="2020-01-01T00:00:00.000Z")
    replicate_all(runtime)
    runtime.database["entries"].delete_one({"_id": key("lost").document_id})

    found = job("reconcile_entries").execute_in_process(raise_on_error=False)

    assert not found.success, "an exit code and a run alert tell"
    assert _failure(found).user_failure_data.description.startswith("1 missing, verified as of 2")
    evaluation = _evaluation(found)
    assert not evaluation.passed and evaluation.asset_check_key.name == "parity"
    metadata = plain(evaluation.metadata)
    assert metadata["verifiedAsOf"] in str(evaluation.description) and metadata["matched"] == 1
    assert "| missing | 1 |  | summer:lost |" in metadata["classes"]
    (materialised,) = found.get_asset_materialization_events()
    assert plain(materialised.materialization.metadata)["differences"] == 1
    part = job("reconcile_entries").execute_in_process(
        run_config={"campaign_id": "summer"}, raise_on_error=False
    )
    assert not part.get_asset_materialization_events() and not _evaluation(part).passed


def test_a_cycle_is_shared_by_several_workers_and_then_judged(runtime: Runtime) -> None:
    for campaign in ("summer", "winter"):
        put(runtime, key("e", campaign), updatedAt="2020-01-01T00:00:00.000Z")
    replicate_all(runtime)

    def verified() -> dg.AssetCheckEvaluation:
        return _evaluation(
            job("verify_entries").execute_in_process(run_config={"workers": 2}, raise_on_error=False)
        )

    assert verified().passed and plain(verified().metadata)["matched"] == 2
    runtime.database["entries"].delete_one({"_id": key("e", "winter").document_id})
    for row in runtime.leases.rows("SEGMENTS"):
        # As if that were a day ago.
        runtime.leases.swap(replace(row, counter=row.counter + 1, state={**row.state, "verifiedAt": ""}), row)
    assert not verified().passed


def test_the_dead_letter_check_counts_messages(runtime: Runtime) -> None:
    from regworkers_dagster.replication import replication_dlq_empty

    assert replication_dlq_empty(dg.build_asset_check_context(resources=connections())).passed
    put(runtime, key("bad"), email=None)
    replicate_all(runtime)
    verdict = replication_dlq_empty(dg.build_asset_check_context(resources=connections()))
    assert not verdict.passed
    assert plain(verdict.metadata) == {"messages": 1}


def test_without_configuration_a_drain_keeps_to_the_settings_and_those_are_ten_seconds_and_two_minutes(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, runtime, REGWORKERS_DRAIN__IDLE_SECONDS="60", REGWORKERS_DRAIN__MAX_SECONDS="0.2")
    assert _ended("save_entries") == "ended (time_limit): nothing received"
    assert (DrainSettings().idle_seconds, DrainSettings().max_seconds) == (10, 120)
