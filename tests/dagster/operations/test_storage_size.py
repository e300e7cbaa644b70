"""Dagster's own storage: how large it is, and that it shrinks when runs have gone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import create_engine, text

from regworkers_dagster.operations.upkeep import prune, shrink, storage_size

LATER = datetime.now(UTC) + timedelta(days=1)


@dg.job(executor_def=dg.in_process_executor)
def nothing() -> None:
    """A run to delete."""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as made:
        for number in range(8):
            made.create_run_for_job(
                nothing, status=dg.DagsterRunStatus.SUCCESS, tags={"filler": f"{number}" * 20_000}
            )
        yield made


def test_the_size_is_that_of_the_files(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    size = storage_size(instance)
    assert set(size) == {"runs", "events", "schedules", "events of runs"}
    (runs,) = tmp_path.rglob("runs.db")
    # What the write-ahead log holds is not in the file yet.
    assert size["runs"] >= runs.stat().st_size > 0


def test_space_of_deleted_runs_is_given_back(instance: dg.DagsterInstance) -> None:
    before = storage_size(instance)
    prune(instance, before=LATER, batch_runs=100, max_runs=100, dry_run=False)
    assert storage_size(instance)["runs"] == before["runs"], "SQLite keeps it by itself"
    assert shrink(instance) == []
    assert storage_size(instance)["runs"] < before["runs"] / 2
    assert instance.get_runs_count() == 1


def test_a_database_that_another_process_writes_is_left_for_the_next_run(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs,) = tmp_path.rglob("runs.db")
    with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        url = connection.engine.url
    quick = create_engine(url, connect_args={"timeout": 0.1})
    with create_engine(url).connect() as other:
        other.execute(text("BEGIN IMMEDIATE"))
        monkeypatch.setattr(instance.run_storage, "connect", quick.connect)
        (refused,) = shrink(instance)
        assert refused.startswith("runs: not shrunk, because another process is writing")
    assert runs.exists()
