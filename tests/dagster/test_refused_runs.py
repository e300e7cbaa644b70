"""A launch whose config is missing or wrong fails its run and is no trouble of the system; a real failure is."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest

from regworkers_core.acts import added_operations, every_operation
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import FailedRun
from regworkers_core.flows import WATCHED_JOBS
from regworkers_core.operations.health.scheduler import REFUSED_TAG
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign import release
from regworkers_dagster.definitions import defs, managers_jobs
from regworkers_dagster.runs import failed_runs
from tests.dagster.selection.world import failure_of
from tests.dagster.support import job, use

pytestmark = pytest.mark.namespace("module")


@pytest.fixture(autouse=True)
def settings(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, runtime)


def launch(
    instance: dg.DagsterInstance, name: str, config: Mapping[str, Any] | None = None, **tags: str
) -> str:
    """The id of a run that fails."""
    result = job(name).execute_in_process(
        instance=instance, run_config=config, tags=tags, raise_on_error=False
    )
    assert not result.success
    return result.run_id


# Operations that need no field.
FINE_BY_DEFAULT = {
    each.job
    for each in (*every_operation(), *added_operations())
    if not any(field.is_required() for field in each.input.model_fields.values())
}


def failed(instance: dg.DagsterInstance) -> tuple[FailedRun, ...]:
    return failed_runs(instance, defs.get_repository_def(), time.time())


@pytest.mark.parametrize("name", sorted(managers_jobs() - FINE_BY_DEFAULT))
def test_a_job_that_is_launched_with_its_defaults_fails_and_is_no_trouble(
    instance: dg.DagsterInstance, name: str
) -> None:
    launch(instance, name)
    assert failed(instance) == ()


@pytest.mark.parametrize("tags", [{}, {"dagster/partition": ""}, {"dagster/partition": "mistyped"}])
def test_a_mis_clicked_run_of_a_campaign_is_no_trouble_where_campaigns_were_recorded_either(
    instance: dg.DagsterInstance, tags: dict[str, str]
) -> None:
    # Dagster reads the versions of recorded partitions, and fails before our code can say what is missing.
    for asset in ("campaigns", "demand_table", "entries"):
        partition = "spring" if asset == "campaigns" else None
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))
    run_id = launch(instance, "draw", **tags)
    assert failed(instance) == ()
    assert REFUSED_TAG in instance.get_run_by_id(run_id).tags
    # What a sensor asks for is never a mis-click.
    run_id = launch(instance, "draw", **tags, **{"dagster/sensor_name": "watch_campaigns"})
    assert [each.run_id for each in failed(instance)] == [run_id]


@pytest.mark.parametrize(
    ("name", "config", "tags"),
    [
        ("draw", None, {"dagster/partition": "mistyped"}),
        ("top_up", {"campaign_id": "mistyped", "reason": "more seats"}, {}),
        ("top_up", {"campaign_id": "spring", "reason": "x", "strikes": "no upload"}, {}),
        ("retry_market_selection", {"campaign_id": "mistyped", "market_id": "berlin"}, {}),
        ("confirm_draw", {"confirm": "mistyped:1"}, {}),
        ("process_selections", {"ops": {"selections": {"config": {"idle_seconds": -1}}}}, {}),
    ],
)
def test_a_launch_with_a_config_that_is_wrong_fails_and_is_no_trouble(
    instance: dg.DagsterInstance, name: str, config: dict[str, Any] | None, tags: dict[str, str]
) -> None:
    launch(instance, name, config, **tags)
    assert failed(instance) == ()


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({}, "the partition is missing, .*: choose it in the launchpad, or .*dagster/partition"),
        ({"dagster/partition": ""}, "the partition is missing"),
        ({"dagster/partition": "mistyped"}, "there is no campaign 'mistyped'"),
        # Dagster takes no such partition.
        ({"dagster/partition": "a\nb"}, "there is no campaign .no id, so not repeated.:"),
    ],
)
def test_a_run_of_no_campaign_fails_with_one_line_that_says_how_to_name_it(
    instance: dg.DagsterInstance, tags: dict[str, str], said: str
) -> None:
    result = job("draw").execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    line = failure_of(result)
    assert re.search(said, line) and "\n" not in line
    assert instance.get_dynamic_partitions("campaigns") == []


def test_what_a_sensor_asks_for_and_cannot_be_done_is_a_trouble(instance: dg.DagsterInstance) -> None:
    run_id = launch(
        instance, "draw", **{"dagster/partition": "gone", "dagster/sensor_name": "watch_campaigns"}
    )
    assert [each.run_id for each in failed(instance)] == [run_id]


@pytest.mark.parametrize(
    "error", [TransientFailure("mongo", "away"), UsageError("table x is missing"), KeyError()]
)
def test_a_real_failure_is_a_trouble_that_a_refused_launch_does_not_hide(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    config = {"campaign_id": "spring", "market_id": "berlin"}
    with monkeypatch.context() as broken:
        broken.setattr(release, "retry_market", fail)
        run_id = launch(instance, "retry_market_selection", config)
    assert [each.run_id for each in failed(instance)] == [run_id]
    launch(instance, "retry_market_selection")
    assert [each.run_id for each in failed(instance)] == [run_id]


@pytest.mark.parametrize(
    ("assets", "watched"),
    [(["seed"], True), (["eligibility_report", "frozen_pool"], True), (["eligibility_report"], False)],
)
def test_a_failed_draw_from_the_asset_graph_is_a_trouble_of_the_draw_and_a_failed_preview_is_not(
    instance: dg.DagsterInstance, assets: list[str], watched: bool
) -> None:
    keys = [dg.AssetKey(asset) for asset in assets]
    clicked = defs.resolve_implicit_global_asset_job_def()
    run = instance.create_run_for_job(
        clicked, asset_selection=frozenset(keys), tags={"dagster/partition": "spring"}
    )
    instance.report_run_failed(run)
    found = [(each.job, each.partition) for each in failed(instance) if each.job in WATCHED_JOBS]
    assert found == ([("draw", "spring")] if watched else [])
