"""What Dagster loads."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import orjson
import pytest
from dagster._core.workspace.load_target import PyProjectFileTarget, WorkspaceFileTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from regworkers_core.drains.runner import DrainSpec
from regworkers_core.flows import DRAINS
from regworkers_core.operation import Duty
from regworkers_core.settings import PROJECT_ROOT
from regworkers_dagster.definitions import defs, managers_jobs, tags_of_jobs
from regworkers_dagster.factories import CAMPAIGN_PARTITIONS, DUTY_TAG, FOR_TAG
from tests.dagster.support import job

JOBS = tags_of_jobs()

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
# The steps of a campaign's draw, in order.
DRAW = [
    "eligibility_report",
    "frozen_pool",
    "commitment",
    "seed",
    "ranking",
    "draw",
    "draw_report",
    "publication",
]


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


@pytest.mark.parametrize(
    ("environment", "status", "missing"),
    [("local-dev", "RUNNING", set()), ("prod", "STOPPED", {"load_entries"})],
)
def test_all_load_in_a_fresh_interpreter_without_network_or_stack_and_run_by_themselves_only_in_local_dev(
    tmp_path: Path, environment: str, status: str, missing: set[str]
) -> None:
    done = _load(tmp_path, CONFIG_ENV=environment)
    assert done.returncode == 0, done.stderr
    found = orjson.loads(done.stdout)
    assert JOBS.keys() - found["jobs"] == missing and found["sensors"]
    assert set(found["sensors"].values()) | set(found["schedules"].values()) == {status}


def test_a_wrong_setting_ends_the_load_with_a_line_that_names_it(tmp_path: Path) -> None:
    done = _load(tmp_path, REGWORKERS_DRAIN__IDLE_SECONDS="-1")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "REGWORKERS_DRAIN__IDLE_SECONDS" in last
    assert "drain.idleSeconds" in last


def test_a_command_of_dagster_without_options_loads_what_workspace_yaml_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`dagster dev` and `dagster job list` in the project's root read pyproject.toml first."""
    monkeypatch.chdir(PROJECT_ROOT)
    found, named = (
        [origin.loadable_target_origin.module_name for origin in target.create_origins()]
        for target in (PyProjectFileTarget("pyproject.toml"), WorkspaceFileTarget(["workspace.yaml"]))
    )
    assert found == named == ["regworkers_dagster.definitions"]


def test_every_asset_is_described_owned_grouped_and_tagged() -> None:
    for spec in defs.resolve_asset_graph().asset_nodes:
        assert spec.description, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        assert spec.group_name and spec.tags.get("regworkers/flow") == spec.group_name, spec.key


def test_the_graph_is_the_flow() -> None:
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
        ("demand_table", "reconcile_results"),
        ("entries", "reconcile_results"),
        *((name, "analytics_queue") for name in ("demand_table", "entries", "commitment", "draw")),
        *((name, "analytics_queue") for name in ("selections", "notifications")),
        ("analytics_queue", "analytics_dlq"),
        ("analytics_queue", "kafka_events"),
        ("kafka_events", "event_archive"),
        ("demand_table", "campaign_funnel"),
        ("entries", "campaign_funnel"),
        ("frozen_pool", "campaign_funnel"),
        ("draw", "campaign_funnel"),
        ("selections", "campaign_funnel"),
        ("notifications", "campaign_funnel"),
        ("campaigns", "registration_log"),
        ("entries", "registration_log"),
        ("registration_log", "analytics_queue"),
        ("campaigns", "codes"),
        ("campaigns", "invites"),
        ("campaigns", "eligibility_report"),
        ("entries", "eligibility_report"),
        ("eligibility_report", "frozen_pool"),
        *pairwise(DRAW),
        ("codes", "publication"),
        ("publication", "selection_queue"),
        ("selection_queue", "selection_dlq"),
        ("selection_queue", "selections"),
        ("selections", "outbox"),
        ("outbox", "notifications"),
        ("notifications", "notification_dlq"),
        ("codes", "redemption_queue"),
        ("redemption_queue", "redemptions"),
        ("redemption_queue", "redemption_dlq"),
    }


# Several processes share a cycle of verification.
@pytest.mark.parametrize("name", sorted(JOBS.keys() - {"verify_entries"}))
def test_a_job_needs_no_configuration_and_runs_in_one_process(name: str) -> None:
    definition = job(name)
    assert dg.validate_run_config(definition, {})
    assert definition.executor_def.name == "in_process"
    assert definition.description


@pytest.mark.parametrize("drain", DRAINS, ids=lambda each: each.name)
def test_a_drain_run_has_no_other_step_and_the_tag_by_which_sensors_find_it(drain: DrainSpec[Any]) -> None:
    # A check that takes minutes would keep the run active after its drain, and no other would be started.
    made = job(drain.job)
    assert [node.name for node in made.graph.nodes] == [drain.name]
    assert made.tags["regworkers/drain"] == drain.name and "dagster/max_runtime" not in made.tags


@pytest.mark.parametrize(
    ("name", "seconds", "status"),
    [
        ("check_selection", 899, dg.DagsterRunStatus.STARTED),
        ("check_selection", 901, dg.DagsterRunStatus.FAILURE),
        ("draw", 901, dg.DagsterRunStatus.STARTED),
        ("draw", 21_601, dg.DagsterRunStatus.FAILURE),
        ("reconcile_entries", 86_400, dg.DagsterRunStatus.STARTED),
    ],
)
def test_a_run_that_hangs_is_ended_by_the_instance_also_where_no_launcher_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, seconds: float, status: dg.DagsterRunStatus
) -> None:
    class Daemon:
        def __init__(self, instance: dg.DagsterInstance) -> None:
            self.instance = instance

        def create_request_context(self) -> None: ...

    # The project's own, whose folders are relative.
    monkeypatch.chdir(tmp_path)
    shutil.copy(PROJECT_ROOT / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_monitoring_enabled and instance.run_monitoring_start_timeout_seconds == 120
        definition = job(name)
        run = instance.create_run_for_job(definition, tags=dict(definition.run_tags))
        begun = dg.DagsterEvent("PIPELINE_START", name)
        instance.report_dagster_event(begun, run.run_id, timestamp=time.time() - seconds)
        list(execute_run_monitoring_iteration(Daemon(instance), logging.getLogger("daemon")))  # type: ignore[arg-type]
        found = instance.get_run_by_id(run.run_id)
        assert found is not None and found.status is status


def test_everything_of_a_draw_is_partitioned_by_its_campaign_and_the_draw_job_with_it() -> None:
    graph = defs.resolve_asset_graph()
    nodes = [node for node in graph.asset_nodes if node.partitions_def is not None]
    of = {node.key.to_user_string(): node.partitions_def == CAMPAIGN_PARTITIONS for node in nodes}
    campaigns = {name for name, is_campaign in of.items() if is_campaign}
    assert campaigns == {*DRAW, "campaigns", "codes", "invites", "campaign_funnel"}
    assert of.keys() - campaigns == {"weekly_review", "monthly_review", "quarterly_review"}
    assert job("draw").partitions_def is not None


def test_a_draw_whose_worker_died_is_followed_by_a_run_from_the_failure() -> None:
    tags = job("draw").tags
    assert tags["dagster/retry_strategy"] == "FROM_FAILURE"
    assert int(tags["dagster/max_retries"]) > 0
    assert tags["dagster/retry_on_asset_or_op_failure"] == "false", "a step that fails tells why"


@pytest.mark.slow
def test_dg_lists_the_definitions_and_neither_it_nor_a_load_prints_a_warning() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "dg", "list", "defs", "--json"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    names = {each["name"] for each in orjson.loads(done.stdout)["jobs"]}
    assert names >= JOBS.keys()


def test_the_page_on_maintenance_lists_every_schedule_with_its_job() -> None:
    page = (PROJECT_ROOT / "docs/maintenance.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", page, re.MULTILINE))
    assert listed == {(each.name, each.job_name) for each in defs.get_repository_def().schedule_defs}


def test_every_job_and_so_each_of_its_runs_says_its_duty_and_whom_it_is_for() -> None:
    repository = defs.get_repository_def()
    assert JOBS.keys() == set(repository.job_names) - {"__ASSET_JOB"}
    assert {tags[DUTY_TAG] for tags in JOBS.values()} == set(get_args(Duty))
    started = {target.job_name for sensor in repository.sensor_defs for target in sensor.targets or ()}
    started |= {schedule.job_name for schedule in repository.schedule_defs}
    assert {"draw", "retry_market_selection"} <= started & managers_jobs()
    assert {
        name for name, tags in JOBS.items() if tags[FOR_TAG] == "system"
    } == started & JOBS.keys() - managers_jobs()


@pytest.mark.parametrize(
    ("name", "duty", "who"),
    [
        ("save_entries", "replication", "system"),
        ("import_codes", "selection", "manager"),
        ("upload_invites", "operations", "manager"),
        ("redrive_dead_letters", "operations", "on-call"),
        ("verify_entries", "replication", "on-call"),
    ],
)
def test_a_list_by_tag_has_the_jobs_that_a_person_looks_for(name: str, duty: str, who: str) -> None:
    assert (JOBS[name][DUTY_TAG], JOBS[name][FOR_TAG]) == (duty, who)
