"""Dagster's processes on a project of a few lines."""

from __future__ import annotations

import signal
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import httpx2
import pytest
import yaml

from regworkers_local import processes
from regworkers_local.dagster_server import DagsterProcess, write_home
from regworkers_local.processes import ProcessRef, spawn
from regworkers_local.stack import StartFailed
from regworkers_local.state import process_refs, read_json
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

DEFINITIONS = """import dagster

@dagster.job
def draw(): ...

defs = dagster.Definitions(jobs=[draw])
"""
LAUNCH = """mutation { launchRun(executionParams: {selector: {repositoryName: "__repository__",
  repositoryLocationName: "location", jobName: "draw"}}) { __typename ... on PythonError { message } } }"""
JSON = {"content-type": "application/json"}


@pytest.fixture
def project(root: Path) -> Path:
    (root / "location.py").write_text(DEFINITIONS)
    (root / "workspace.yaml").write_text("load_from: [{python_module: location}]\n")
    (root / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\nstorage: {sqlite: {base_dir: .dagster/storage}}\n"
    )
    return root


def refs(dagster: DagsterProcess) -> list[ProcessRef]:
    return list(process_refs(read_json(dagster.folder / "dagster.json")).values())


def another_page(url: str) -> None:
    """A page that is open in the same browser launches nothing, and follows no run."""
    address = url + "/graphql?" + urllib.parse.urlencode({"query": LAUNCH})
    assert httpx2.get(address, headers={"accept": "image/*"}).status_code == 405
    sent = httpx2.post(address, headers={"content-type": "text/plain", "origin": "https://evil.example"})
    assert sent.status_code == 403
    rebound = httpx2.get(url, headers={"host": "evil.example:3000"})
    assert rebound.status_code == 421
    socket = httpx2.get(
        url + "/graphql",
        headers={
            "connection": "upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
            "sec-websocket-protocol": "graphql-ws",
            "origin": "https://evil.example",
        },
    )
    assert socket.status_code == 403


def forged_name(url: str) -> None:
    """The address of the connection counts, not the one that a header claims."""
    headers = {**JSON, "x-forwarded-email": "eve@example.com", "x-forwarded-for": "10.0.0.7"}
    answer = httpx2.post(url + "/graphql", json={"query": LAUNCH}, headers=headers).json()
    assert "errors" not in answer, answer
    assert "not signed in" in answer["data"]["launchRun"]["message"]


def test_it_serves_the_project_from_a_home_of_the_instances_own_and_leaves_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_WEB__OPERATOR_HEADER", "X-Forwarded-Email")
    monkeypatch.setenv("REGWORKERS_WEB__PROXIES", '["10.0.0.7"]')
    with DagsterProcess(project, "other") as dagster:
        with urllib.request.urlopen(dagster.url + "/server_info") as answer:
            assert answer.status == 200
        assert (project / ".local/other/dagster_home/.dagster/storage").is_dir()
        assert not (project / ".dagster").exists()
        leaders = refs(dagster)
        assert len(processes.family(leaders)) == len(leaders) == 3, "one code server for both"

        another_page(dagster.url)
        forged_name(dagster.url)

        again = DagsterProcess(project, "other")
        again.start()
        assert refs(again) == leaders and again.ended == frozenset()
        for ref in leaders:
            if (process := ref.find()) and "dagster._daemon" in process.cmdline():
                processes.kill(process)
        assert again.ended == {"daemon"} and not again.running
        again.stop()
        assert processes.family(leaders) == []
        assert not dagster.running


def test_the_storage_of_a_first_start_exists_before_two_processes_could_create_it_at_once(
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
        pytest.raises(StartFailed, match=r"cannot load location:.*the market is closed"),
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
