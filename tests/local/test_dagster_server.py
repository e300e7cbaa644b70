"""Dagster's processes on a project of a few lines."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from pathlib import Path

import httpx2
import psutil
import pytest
import yaml

from regworkers_core.adapters.local_instance import DAGSTER_HEADER
from regworkers_core.domain.reasons import UsageError
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
STATE = {
    "aws": "http://127.0.0.1:1",
    "mongo": "mongodb://127.0.0.1:1",
    "redis": "redis://127.0.0.1:1",
    "kafka": "127.0.0.1:1",
}
JSON = {"content-type": "application/json"}


@pytest.fixture
def project(root: Path) -> Path:
    (root / "location.py").write_text(DEFINITIONS)
    (root / "workspace.yaml").write_text("load_from: [{python_module: location}]\n")
    (root / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\nstorage: {sqlite: {base_dir: .dagster/storage}}\n"
    )
    # The web application reads our definitions, which want an instance that was started.
    (root / ".local/other").mkdir(parents=True)
    (root / ".local/other/state.json").write_text(json.dumps(STATE))
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


def test_checkouts_that_start_at_once_each_announce_their_own(project: Path, tmp_path: Path) -> None:
    started: dict[str, DagsterProcess] = {}

    def start(name: str) -> None:
        root = shutil.copytree(project, tmp_path / name)
        dagster = DagsterProcess(root)
        dagster.start()
        started[name] = dagster
        dagster.wait_ready()

    threads = [threading.Thread(target=start, args=[f"clone {number}"]) for number in range(3)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({each.url for each in started.values()}) == 3
        for dagster in started.values():
            answer = httpx2.post(dagster.url + "/graphql", json={"query": "{ version }"})
            ours = read_json(dagster.folder / "dagster.json")
            assert answer.headers[DAGSTER_HEADER] == ours["id"]
            (web,) = [psutil.Process(ours["pids"]["webserver"])]
            assert processes.listens(web, ours["port"]) and Path(web.cwd()) == dagster.root
    finally:
        for dagster in started.values():
            dagster.stop()


def test_the_code_has_one_address_over_all_starts_of_an_instance(project: Path) -> None:
    found = []
    for _ in range(2):
        with DagsterProcess(project, "other") as dagster:
            found.append((dagster.folder / "workspace.yaml").read_text())
    assert found[0] == found[1] and ".sock" in found[0]
    assert DagsterProcess(project, "another")._code_name != dagster._code_name


def test_a_child_that_dies_while_dagster_starts_is_named_with_its_last_lines(project: Path) -> None:
    def kill_the_webserver(_seconds: float) -> None:
        for ref in refs(dagster):
            if (process := ref.find()) and "regworkers_dagster.web.serve" in process.cmdline():
                with dagster.log_of("webserver").open("a") as log:
                    log.write("address in use\n")
                processes.kill(process)

    dagster = DagsterProcess(project, sleep=lambda _seconds: None)
    try:
        dagster.start()
        kill_the_webserver(0)
        with pytest.raises(StartFailed, match=r"(?s)Dagster's webserver ended.*\n  address in use"):
            dagster.wait_ready()
    finally:
        dagster.stop()


def test_a_daemon_that_was_started_elsewhere_is_named_and_a_stop_ends_it(project: Path) -> None:
    dagster = DagsterProcess(project, "other")
    words = [sys.executable, "-c", "import time; time.sleep(60)", "dagster-daemon run"]
    with (
        subprocess.Popen(words, env={"DAGSTER_HOME": str(dagster.home)}) as daemon,
        subprocess.Popen(words, env={"DAGSTER_HOME": str(project)}) as another,
    ):
        with pytest.raises(
            UsageError, match=rf"daemon .* instance other, process {daemon.pid}: .*local down"
        ):
            dagster.start()
        assert dagster.stop()
        assert daemon.poll() is not None and another.poll() is None
        another.kill()


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
