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

import dagster as dg
import orjson
import pytest
from dagster._core.workspace.load_target import PyProjectFileTarget, WorkspaceFileTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

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
JOBS = [
    "annul_draw",
    "archive_events",
    "backfill_entries",
    "block_struck_codes",
    "campaign_funnel",
    "campaign_status",
    "check_archive",
    "check_certificate",
    "check_selection",
    "close_campaign",
    "confirm_draw",
    "create_campaign",
    "draw",
    "drill_recovery",
    "drop_dead_letters",
    "enqueue_entries",
    "export_draw",
    "find_resources",
    "first_checks",
    "show_config",
    "housekeeping",
    "import_codes",
    "make_receipt",
    "monthly_review",
    "notifications_status",
    "name_cause",
    "open_campaign",
    "pause_drain",
    "pause_notifications",
    "process_selections",
    "prune_runs",
    "publish_draw_page",
    "publish_events",
    "quarterly_review",
    "reconcile_entries",
    "redrive_dead_letters",
    "remove_invites",
    "replan_code",
    "resume_drain",
    "resume_notifications",
    "retry_market_selection",
    "review_dead_letters",
    "runbook_campaign_configuration",
    "runbook_cost",
    "runbook_kafka",
    "runbook_out_of_sync",
    "runbook_selection_failures",
    "runbook_stream_lag",
    "runbook_time_outs",
    "runbook_total_failure",
    "save_entries",
    "send_notifications",
    "simulate_draw",
    "strike_entries",
    "top_up",
    "upload_invites",
    "void_codes",
    "weekly_review",
]
SENSORS = {
    "enqueue_entries_sensor",
    "save_entries_sensor",
    "observe_replication",
    "watch_campaigns",
    "record_campaigns",
    "watch_markets",
    "process_selections_sensor",
    "send_notifications_sensor",
    "observe_selection",
    "publish_events_sensor",
    "observe_analytics",
    "alerts_sensor",
    "first_checks",
    "count_runs",
}
REPLICATION = {"demand_table", "replication_queue", "replication_dlq", "entries", "reconcile_results"}
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
SELECTION = {
    *DRAW[1:],
    "campaigns",
    "codes",
    "selection_queue",
    "selection_dlq",
    "selections",
    "outbox",
    "notifications",
    "notification_dlq",
}
ELIGIBILITY = {"invites", "eligibility_report"}
CERTIFICATES = {"kafka_certificate"}
OPERATIONS = {"system_health", "weekly_review", "monthly_review", "quarterly_review"}
ANALYTICS = {"analytics_queue", "analytics_dlq", "kafka_events", "event_archive", "campaign_funnel"}


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
    assert set(found["sensors"]) == SENSORS
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


def flow_of(asset: str) -> str:
    flows = {"replication": REPLICATION, "selection": SELECTION, "eligibility": ELIGIBILITY}
    flows |= {"analytics": ANALYTICS, "certificates": CERTIFICATES, "operations": OPERATIONS}
    return next(flow for flow, assets in flows.items() if asset in assets)


def test_every_asset_is_described_owned_grouped_and_tagged() -> None:
    from regworkers_dagster.definitions import defs

    specs = list(defs.resolve_asset_graph().asset_nodes)
    known = REPLICATION | SELECTION | ELIGIBILITY | ANALYTICS | CERTIFICATES | OPERATIONS
    assert {spec.key.to_user_string() for spec in specs} == known
    for spec in specs:
        assert spec.description, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        flow = flow_of(spec.key.to_user_string())
        assert spec.group_name == flow, spec.key
        assert spec.tags.get("regworkers/flow") == flow, spec.key


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
    assert [node.name for node in job("process_selections").graph.nodes] == ["selections"]
    assert [node.name for node in job("publish_events").graph.nodes] == ["publish"]
    assert [node.name for node in job("send_notifications").graph.nodes] == ["notifications"]


def test_drains_carry_the_tag_by_which_sensors_find_them() -> None:
    assert job("save_entries").tags["regworkers/drain"] == "save"
    assert job("enqueue_entries").tags["regworkers/drain"] == "enqueue"
    assert job("process_selections").tags["regworkers/drain"] == "selections"
    assert job("publish_events").tags["regworkers/drain"] == "publish"
    assert job("send_notifications").tags["regworkers/drain"] == "notifications"


# Drains, backfill and reconcile: heartbeats, leases and progress tell whether they hang.
UNLIMITED = {
    "backfill_entries",
    "enqueue_entries",
    "first_checks",
    "process_selections",
    "publish_events",
    "reconcile_entries",
    "runbook_out_of_sync",
    "runbook_total_failure",
    "save_entries",
    "send_notifications",
    "verify_entries",
}
# Their time grows with a campaign, the archive or a list.
LONG = {
    "archive_events",
    "block_struck_codes",
    "campaign_funnel",
    "check_archive",
    "confirm_draw",
    "draw",
    "drill_recovery",
    "drop_dead_letters",
    "eligibility_report",
    "erase_entry",
    "repeat_erasures",
    "undo_acceptance",
    "housekeeping",
    "export_draw",
    "import_codes",
    "make_receipt",
    "publish_draw_page",
    "quarterly_review",
    "redrive_dead_letters",
    "remove_invites",
    "simulate_draw",
    "top_up",
    "upload_invites",
    "void_codes",
}


def test_every_run_that_may_not_take_for_ever_has_its_limit() -> None:
    from regworkers_dagster.definitions import defs

    names = {each.name for each in defs.get_repository_def().get_all_jobs() if "__" not in each.name}
    limits = {name: job(name).run_tags.get("dagster/max_runtime") for name in names}
    assert {name for name, limit in limits.items() if limit is None} == UNLIMITED
    assert {name for name, limit in limits.items() if limit == "21600"} == LONG
    assert {limits[name] for name in names - UNLIMITED - LONG} == {"900"}
    page = (PROJECT_ROOT / "docs" / "maintenance.md").read_text(encoding="utf-8")
    _, short, long, *unlimited = page.partition("\n## Reviews")[0].split("\n- **")
    assert set(re.findall(r"`(\w+)`", long)) == LONG, "as the page says"
    assert set(re.findall(r"`(\w+)`", " ".join(unlimited))) - {"start_timeout_seconds"} == UNLIMITED
    assert set(re.findall(r"`(\w+)`", short)) <= names - UNLIMITED - LONG


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
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    seconds: float,
    status: dg.DagsterRunStatus,
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
    from regworkers_dagster.definitions import defs

    graph = defs.resolve_asset_graph()
    partitioned = {node.key.to_user_string() for node in graph.asset_nodes if node.partitions_def is not None}
    assert partitioned == {*DRAW, "campaigns", "codes", "invites", "campaign_funnel"}
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
    assert set(JOBS) <= names


def test_the_page_on_maintenance_lists_every_schedule_with_its_job() -> None:
    from regworkers_dagster.definitions import defs

    page = (PROJECT_ROOT / "docs/maintenance.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", page, re.MULTILINE))
    assert listed == {(each.name, each.job_name) for each in defs.get_repository_def().schedule_defs}
