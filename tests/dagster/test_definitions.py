"""What Dagster loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import orjson
import pytest

from regworkers_core.settings import PROJECT_ROOT
from tests.dagster.support import job

# Loads everything with the network out of reach, then says what it found.
_LOAD = """
import json, socket
def refuse(*_): raise SystemExit("the load touched the network")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
from regworkers_dagster.definitions import defs
repository = defs.get_repository_def()
print(json.dumps({
    "jobs": sorted(job.name for job in repository.get_all_jobs()),
    "sensors": {s.name: s.default_status.value for s in repository.sensor_defs},
    "schedules": {s.name: s.default_status.value for s in repository.schedule_defs},
}))
"""
JOBS = ["backfill_entries", "enqueue_entries", "prune_runs", "reconcile_entries", "save_entries"]


def _load(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("REGWORKERS_")}
    variables |= {"REGWORKERS_LOCAL_DIR": str(tmp_path), "PYTHONPATH": str(PROJECT_ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _LOAD],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("environment", "status"), [("local-dev", "RUNNING"), ("prod", "STOPPED")])
def test_all_load_in_a_fresh_interpreter_without_network_or_stack_and_run_by_themselves_only_in_local_dev(
    tmp_path: Path, environment: str, status: str
) -> None:
    done = _load(tmp_path, CONFIG_ENV=environment)
    assert done.returncode == 0, done.stderr
    found = orjson.loads(done.stdout)
    assert set(JOBS) <= set(found["jobs"])
    assert set(found["sensors"]) == {"enqueue_entries_sensor", "save_entries_sensor", "observe_replication"}
    assert set(found["sensors"].values()) | set(found["schedules"].values()) == {status}


def test_a_wrong_setting_ends_the_load_with_a_line_that_names_it(tmp_path: Path) -> None:
    done = _load(tmp_path, REGWORKERS_DRAIN__IDLE_SECONDS="-1")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "REGWORKERS_DRAIN__IDLE_SECONDS" in last
    assert "drain.idleSeconds" in last


def test_every_asset_is_described_owned_grouped_and_tagged() -> None:
    from regworkers_dagster.definitions import defs

    specs = list(defs.resolve_asset_graph().asset_nodes)
    assert {spec.key.to_user_string() for spec in specs} == {
        "demand_table",
        "replication_queue",
        "replication_dlq",
        "entries",
        "analytics_queue",
    }
    for spec in specs:
        assert spec.description, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        assert spec.group_name == "replication", spec.key
        assert spec.tags.get("regworkers/flow") == "replication", spec.key


def test_the_graph_is_the_flow() -> None:
    from regworkers_dagster.definitions import defs

    graph = defs.resolve_asset_graph()
    edges = {
        (parent.to_user_string(), node.key.to_user_string())
        for node in graph.asset_nodes
        for parent in node.parent_keys
    }
    assert edges == {
        ("demand_table", "replication_queue"),
        ("replication_queue", "entries"),
        ("replication_queue", "replication_dlq"),
        ("entries", "analytics_queue"),
    }


@pytest.mark.parametrize("name", JOBS)
def test_a_job_needs_no_configuration_and_runs_in_one_process(name: str) -> None:
    definition = job(name)
    assert dg.validate_run_config(definition, {})
    assert definition.executor_def.name == "in_process"
    assert definition.description


def test_a_drain_run_has_no_other_step() -> None:
    # A check that takes minutes would keep the run active after its drain, and no other would be started.
    assert [node.name for node in job("save_entries").graph.nodes] == ["save"]
    assert [node.name for node in job("enqueue_entries").graph.nodes] == ["enqueue"]


def test_drains_carry_the_tag_by_which_sensors_find_them() -> None:
    assert job("save_entries").tags["regworkers/drain"] == "save"
    assert job("enqueue_entries").tags["regworkers/drain"] == "enqueue"
