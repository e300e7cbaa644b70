"""An embedded stack that the base release started goes on with today's code, and so do runs in its queue."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from regworkers_core.infrastructure.provision import provision
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.dagster_server import DagsterProcess
from regworkers_local.stack import Stack
from tests.support.terminal import regworkers
from tests.support.waiting import wait_until
from tests.upgrade.conftest import Base

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_servers")]
# Starts the stack, writes entries whose keys wait on the queue, leaves runs in that of Dagster, and stops it again.
LEFT = """
import subprocess, sys
from regworkers_core.infrastructure.provision import provision
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.dagster_server import DagsterProcess, write_home
from regworkers_local.load import CAMPAIGNS, Loader, LoadPlan
from regworkers_core.engine.stop import StopSignal
from regworkers_local.stack import Stack
from tests.support.drains import run

name, home, *jobs = sys.argv[1:]
stack = Stack(PROJECT_ROOT, name)
stack.up()
try:
    runtime = Runtime.load()
    list(provision(runtime))
    Loader(runtime, LoadPlan(200, 0.1, 0.02, 0.0, 7), CAMPAIGNS).run(StopSignal(), lambda *_: None)
    run(runtime, "enqueue")
    write_home(PROJECT_ROOT / "dagster.yaml", DagsterProcess(PROJECT_ROOT, name).home)
    for job in jobs:
        launch = ["-m", "dagster", "job", "launch", "-m", "regworkers_dagster.definitions", "-j", job]
        subprocess.run([sys.executable, *launch], check=True)
finally:
    stack.down()
"""
JOBS = ("save_entries",)


def test_a_stack_of_the_base_release_starts_with_todays_code_and_its_queued_runs_end(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"test-upgrade-{os.getpid()}"
    monkeypatch.setenv("REGWORKERS_LOCAL_DIR", str(tmp_path))
    monkeypatch.setenv("REGWORKERS_INSTANCE", name)
    stack, dagster = Stack(PROJECT_ROOT, name), DagsterProcess(PROJECT_ROOT, name)
    monkeypatch.setenv("DAGSTER_HOME", str(dagster.home))
    variables = {
        name: os.environ[name] for name in ("REGWORKERS_LOCAL_DIR", "REGWORKERS_INSTANCE", "DAGSTER_HOME")
    }
    subprocess.run(
        [sys.executable, "-c", LEFT, name, str(dagster.home), *JOBS],
        cwd=base.root,
        env={**base.environment, **variables},
        check=True,
    )
    with dg.DagsterInstance.get() as instance:
        waiting = [
            each.run_id for each in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
        ]
        assert len(waiting) == len(JOBS)
        try:
            stack.up()
            runtime = Runtime.load()
            list(provision(runtime))
            with dagster:
                wait_until(
                    lambda: all(
                        each.is_finished for each in instance.get_runs(dg.RunsFilter(run_ids=waiting))
                    ),
                    seconds=240.0,
                )
                ended = {
                    each.job_name: each.status.value
                    for each in instance.get_runs(dg.RunsFilter(run_ids=waiting))
                }
                # The sensors of today start what is left to do.
                entries = runtime.database["entries"]
                wait_until(lambda: entries.count_documents({"deletedAt": None}) == 196, seconds=240.0)
            assert ended == {"save_entries": "SUCCESS"}
            compared = regworkers(runtime, "reconcile", "--format", "json")
            assert compared.code == 0, compared.stdout
        finally:
            dagster.stop()
            stack.reset()
