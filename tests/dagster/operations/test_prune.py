"""Old runs are deleted, with their files, and old events without a run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from regworkers_core.runtime import Runtime
from regworkers_dagster.operations import upkeep
from regworkers_dagster.operations.upkeep import Pruned, prune, prune_events, shrink, storage_size
from tests.dagster.support import job, plain, use


@dg.op
def nothing() -> None:
    """A run to delete."""
    print("said something")


@dg.job(executor_def=dg.in_process_executor)
def busy() -> None:
    nothing()


@dg.job(executor_def=dg.in_process_executor)
def quiet() -> None:
    nothing()


LATER = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as made:
        yield made


def _prune(
    instance: dg.DagsterInstance,
    *,
    before: datetime = LATER,
    batch_runs: int = 2,
    max_runs: int = 100,
    dry_run: bool = False,
) -> Pruned:
    return prune(instance, before=before, batch_runs=batch_runs, max_runs=max_runs, dry_run=dry_run)


def _record(instance: dg.DagsterInstance, number: int, job: dg.JobDefinition = busy) -> list[str]:
    """Ended runs without events: quick to make."""
    return [
        instance.create_run_for_job(job, status=dg.DagsterRunStatus.SUCCESS).run_id for _ in range(number)
    ]


def _left(instance: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs()}


def test_all_ended_runs_go_but_the_latest_of_each_job(instance: dg.DagsterInstance) -> None:
    alone = _record(instance, 1, quiet)
    runs = _record(instance, 7)
    assert _prune(instance) == Pruned(6, False, False)
    assert _left(instance) == {alone[0], runs[-1]}


def test_a_run_that_has_not_ended_stays_however_old(instance: dg.DagsterInstance) -> None:
    active = [
        instance.create_run_for_job(busy, status=status).run_id
        for status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
    ]
    runs = _record(instance, 3)
    _prune(instance)
    assert _left(instance) == {*active, runs[-1]}


def test_younger_runs_stay(instance: dg.DagsterInstance) -> None:
    runs = _record(instance, 3)
    assert _prune(instance, before=datetime.now(UTC) - timedelta(days=1)).runs == 0
    assert _left(instance) == set(runs)


@pytest.mark.parametrize("batch_runs", [1, 2, 100])
def test_a_cap_leaves_the_younger_ones_for_the_next_time(
    instance: dg.DagsterInstance, batch_runs: int
) -> None:
    runs = _record(instance, 6)
    assert _prune(instance, batch_runs=batch_runs, max_runs=3) == Pruned(3, True, False)
    assert _left(instance) == set(runs[3:])
    assert _prune(instance, batch_runs=batch_runs, max_runs=3) == Pruned(2, False, False)
    assert _left(instance) == {runs[-1]}


def test_a_dry_run_counts_what_would_go_and_deletes_nothing(instance: dg.DagsterInstance) -> None:
    runs = _record(instance, 5)
    assert _prune(instance, dry_run=True) == Pruned(4, False, True)
    assert _prune(instance, max_runs=2, dry_run=True) == Pruned(2, True, True)
    assert _left(instance) == set(runs)


def test_events_and_output_of_a_run_leave_the_disk(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    gone = quiet.execute_in_process(instance=instance).run_id
    kept = quiet.execute_in_process(instance=instance).run_id
    assert list(tmp_path.rglob(f"*{gone}*")), "the test knows where a run leaves its traces"

    _prune(instance)

    assert not list(tmp_path.rglob(f"*{gone}*"))
    assert list(tmp_path.rglob(f"*{kept}*"))
    assert instance.all_logs(kept)


QUEUE = dg.AssetKey("queue")


def _sense(instance: dg.DagsterInstance, number: int) -> None:
    """What a sensor writes about an asset, `number` times."""
    for each in range(number):
        instance.report_runless_asset_event(dg.AssetObservation(QUEUE, metadata={"waiting": each}))
        instance.report_runless_asset_event(
            dg.AssetMaterialization(QUEUE, metadata={"waiting": each}, tags={"dagster/data_version": "same"})
        )
        instance.report_runless_asset_event(dg.AssetCheckEvaluation(QUEUE, "empty", passed=each > 0))


def test_old_events_of_sensors_go_but_the_latest_of_each_asset_and_check(
    instance: dg.DagsterInstance,
) -> None:
    _sense(instance, 3)
    # An observation, a materialisation, an evaluation and its result: two of each are not the latest.
    assert prune_events(instance, before=LATER, dry_run=True) == 8
    assert prune_events(instance, before=datetime.now(UTC) - timedelta(days=1), dry_run=False) == 0
    assert prune_events(instance, before=LATER, dry_run=False) == 8
    assert prune_events(instance, before=LATER, dry_run=False) == 0
    (seen,) = instance.fetch_observations(QUEUE, limit=9).records
    (made,) = instance.fetch_materializations(QUEUE, limit=9).records
    assert seen.asset_observation is not None and made.asset_materialization is not None
    assert seen.asset_observation.metadata == made.asset_materialization.metadata
    assert seen.asset_observation.metadata["waiting"].value == 2
    check = dg.AssetCheckKey(QUEUE, "empty")
    last = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
    assert last.evaluation.passed  # type: ignore[union-attr]


def test_what_says_which_partitions_exist_stays(instance: dg.DagsterInstance) -> None:
    for campaign in ("spring", "summer", "spring"):
        instance.report_runless_asset_event(dg.AssetMaterialization("draw", partition=campaign))
    assert prune_events(instance, before=LATER, dry_run=False) == 0
    assert instance.get_materialized_partitions(dg.AssetKey("draw")) == {"spring", "summer"}


def _a_day_passes(instance: dg.DagsterInstance) -> None:
    """All that is stored becomes a day older."""
    storage: Any = instance.event_log_storage
    runs: Any = instance.run_storage
    for connect, table, column in (
        (storage.index_connection, "event_logs", "timestamp"),
        (lambda: storage.run_connection(""), "event_logs", "timestamp"),
        (storage.index_connection, "asset_check_executions", "create_timestamp"),
        (runs.connect, "runs", "create_timestamp"),
    ):
        with connect() as connection:
            connection.execute(text(f"UPDATE {table} SET {column} = datetime({column}, '-1 day')"))


def test_the_storage_is_flat_while_it_is_pruned_every_day(instance: dg.DagsterInstance) -> None:
    sizes = []
    for _ in range(6):
        _record(instance, 3)
        _sense(instance, 6)
        _a_day_passes(instance)
        before = datetime.now(UTC) - timedelta(days=2, hours=12)
        prune(instance, before=before, batch_runs=100, max_runs=100, dry_run=False)
        prune_events(instance, before=before, dry_run=False)
        assert shrink(instance) == []
        sizes.append(sum(storage_size(instance).values()))
    # Two days are kept. SQLite grows by whole pages, one or two for each of its tables.
    assert sizes[1] > sizes[0] and max(sizes[3:]) - sizes[2] < (sizes[1] - sizes[0]) / 2, sizes


@pytest.mark.parametrize("apply", [False, True])
def test_its_job_counts_or_deletes_and_is_recorded_only_then(
    instance: dg.DagsterInstance, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, apply: bool
) -> None:
    use(monkeypatch, runtime)
    old = _record(instance, 2)
    monkeypatch.setattr(upkeep, "timedelta", lambda days: timedelta(days=-days))
    config = {"apply": apply, "older_than_days": 1}
    done = job("prune_runs").execute_in_process(run_config=config, instance=instance)
    assert (old[0] in _left(instance)) is not apply
    (output,) = [each.step_output_data for each in done.all_events if each.is_successful_output]
    assert (plain(output.metadata)["runs"], plain(output.metadata)["dry_run"]) == (1, not apply)
    rows = [(each.what, each.target, each.result["runs"]) for each in runtime.operator_actions.history()]
    assert rows == [("prune_runs", "runs older than 1 days", 1)] * apply
