"""A closed campaign as the Dagster layer meets it: entries that came through replication, codes, partitions."""

from __future__ import annotations

from typing import Any

import dagster as dg

from regworkers_core.runtime import Runtime
from tests.dagster.support import job
from tests.selection.draw.world import CAMPAIGN, close_campaign, ref_of
from tests.support.drains import replicate_all
from tests.support.entries import key, put

OLD = "2026-01-15T00:00:00.000Z"


def registered(runtime: Runtime, entries: int = 12, **campaign: Any) -> None:
    """The campaign of tests/selection/draw/world.py, closed, with entries on both sides of the replication."""
    close_campaign(runtime, entries=(), **campaign)
    for number in range(entries):
        put(
            runtime,
            key(f"e{number}"),
            ref=ref_of(number),
            markets=["berlin", "paris"],
            createdAt=OLD,
            updatedAt=OLD,
        )
    replicate_all(runtime)


def run_draw(instance: dg.DagsterInstance, *, partition: str = CAMPAIGN) -> dg.ExecuteInProcessResult:
    """The job `draw` in this process, as the launchpad starts it."""
    return job("draw").execute_in_process(
        instance=instance, tags={"dagster/partition": partition}, raise_on_error=False
    )


def confirm_draw(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """The first phase goes out."""
    return job("confirm_draw").execute_in_process(
        instance=instance, run_config={"confirm": f"{CAMPAIGN}:1"}, raise_on_error=False
    )


def materialised(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    """By asset; all of the campaign's partition where they have one."""
    return {
        event.asset_key.to_user_string(): event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }


def observed(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetObservation]:
    return {
        event.asset_observation_data.asset_observation.asset_key.to_user_string(): (
            event.asset_observation_data.asset_observation
        )
        for event in result.all_events
        if event.event_type_value == "ASSET_OBSERVATION"
    }


def judged(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Checks by name, and whether they passed."""
    return {each.check_name: each.passed for each in result.get_asset_check_evaluations()}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """The line that the failed step says."""
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    data: Any = failed.step_failure_data
    return str(data.user_failure_data.description)
