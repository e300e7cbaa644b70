"""Dagster's two processes on a project of a few lines."""

from __future__ import annotations

import signal
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from regworkers_local import processes
from regworkers_local.dagster_server import DagsterProcess, write_home
from regworkers_local.processes import ProcessRef, spawn
from regworkers_local.stack import StartFailed
from regworkers_local.state import process_refs, read_json
from tests.support.waiting import wait_until

DEFINITIONS = "import dagster\n\n@dagster.asset\ndef one(): ...\n\ndefs = dagster.Definitions(assets=[one])\n"


@pytest.fixture
def project(root: Path) -> Path:
    (root / "location.py").write_text(DEFINITIONS)
    (root / "workspace.yaml").write_text("load_from: [{python_file: {relative_path: location.py}}]\n")
    (root / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\nstorage: {sqlite: {base_dir: .dagster/storage}}\n"
    )
    return root


def refs(dagster: DagsterProcess) -> list[ProcessRef]:
    return list(process_refs(read_json(dagster.folder / "dagster.json")).values())


def test_it_serves_the_project_from_a_home_of_the_instances_own_and_leaves_nothing(project: Path) -> None:
    with DagsterProcess(project, "other") as dagster:
        with urllib.request.urlopen(dagster.url + "/server_info") as answer:
            assert answer.status == 200
        assert (project / ".local/other/dagster_home/.dagster/storage").is_dir()
        assert not (project / ".dagster").exists()
        leaders = refs(dagster)
        assert len(processes.family(leaders)) > len(leaders)  # the code servers too

        again = DagsterProcess(project, "other")
        again.start()
        assert refs(again) == leaders
        again.stop()
        assert processes.family(leaders) == []
        assert not dagster.running


def test_the_storage_of_a_first_start_stands_before_two_processes_could_create_it_at_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spawning(Exception):
        """Nothing is started here."""

    def spawn_nothing(*_command: object, **_options: object) -> ProcessRef:
        raise Spawning

    monkeypatch.setattr(processes, "spawn", spawn_nothing)
    with pytest.raises(Spawning):
        DagsterProcess(project, "other").start()
    storage = project / ".local/other/dagster_home/.dagster/storage"
    created = {path.relative_to(storage).as_posix() for path in storage.rglob("*.db")}
    assert {"history/runs.db", "history/runs/index.db", "schedules/schedules.db"} <= created


def test_a_code_location_that_cannot_be_loaded_says_why(project: Path) -> None:
    (project / "location.py").write_text("raise ValueError('the market is closed')\n")
    with (
        pytest.raises(StartFailed, match=r"cannot load location.py.*the market is closed"),
        DagsterProcess(project),
    ):
        pass
    assert not DagsterProcess(project).running


def test_every_storage_path_moves_under_the_home(tmp_path: Path) -> None:
    source, home = tmp_path / "dagster.yaml", tmp_path / "a home"
    source.write_text(
        yaml.safe_dump(
            {
                "telemetry": {"enabled": False},
                "storage": {"sqlite": {"base_dir": ".dagster/storage"}},
                "compute_logs": {"module": "m", "class": "C", "config": {"base_dir": "/var/logs"}},
                "local_artifact_storage": {"config": {"base_dir": {"env": "ARTIFACTS"}}},
            }
        )
    )
    write_home(source, home)
    written = yaml.safe_load((home / "dagster.yaml").read_text())
    assert written == {
        "telemetry": {"enabled": False},
        "storage": {"sqlite": {"base_dir": str(home / ".dagster/storage")}},
        "compute_logs": {
            "module": "m",
            "class": "C",
            "config": {"base_dir": str(home / "compute_logs/config")},
        },
        "local_artifact_storage": {"config": {"base_dir": str(home / "local_artifact_storage/config")}},
    }


def test_sigint_works_in_a_child_even_when_its_parent_ignores_it(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
        log = tmp_path / "log"
        child = spawn(command, cwd=tmp_path, env={}, log=log, interruptible=True)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_until(lambda: log.read_text().startswith("up"), what="the child's first line")
    process = child.find()
    assert process is not None
    process.send_signal(signal.SIGINT)
    wait_until(lambda: child.state() == "dead", what="the child's end")
