"""`regworkers local ...` as scripts see it: answer on stdout, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings import load_settings
from regworkers_local.commands import local_app
from regworkers_local.dagster_server import DagsterProcess
from regworkers_local.processes import spawn
from regworkers_local.servers import SERVERS
from regworkers_local.stack import Stack
from regworkers_local.state import StackState, write_json

INSTANCE = "commands-test"


@pytest.fixture
def stack(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """What the commands work on."""
    monkeypatch.setenv("REGWORKERS_LOCAL_DIR", str(root / "elsewhere"))
    monkeypatch.setenv("REGWORKERS_INSTANCE", INSTANCE)
    stack = Stack(root)
    yield stack
    stack.down()


def run(*arguments: str, typed: str = "") -> tuple[int, str]:
    """Exit code and stdout."""
    result = CliRunner().invoke(local_app, arguments, input=typed)
    if isinstance(result.exception, UsageError):
        raise result.exception
    return result.exit_code, result.stdout


def test_status_tells_dead_paused_and_running_by_exit_code_and_json(stack: Stack) -> None:
    code, text = run("status", "--format", "json")
    assert (code, set(json.loads(text)["state"].values())) == (1, {"down"})

    code, text = run("up")
    assert code == 0
    assert "listens" not in text  # progress goes to stderr

    code, text = run("status", "--format", "json")
    found = json.loads(text)
    assert code == 0
    assert found["state"] == dict.fromkeys(SERVERS, "running")
    assert found["aws"] == f"http://127.0.0.1:{found['ports']['aws']}"
    assert found["mongo"] == f"mongodb://127.0.0.1:{found['ports']['mongo']}"
    assert found["redis"] == f"redis://127.0.0.1:{found['ports']['redis']}/0"
    assert found["kafka"] == f"127.0.0.1:{found['ports']['kafka']}"
    assert found["services"] == f"http://127.0.0.1:{found['ports']['services']}"
    assert found["pids"].keys() == SERVERS.keys()
    assert load_settings().aws.endpoint_url == found["aws"]
    assert load_settings().services.user.base_url == found["services"] + "/user"

    stack.pause("redis")
    code, text = run("status")
    assert code == 1
    assert "paused" in text
    stack.kill("mongo")
    assert json.loads(run("status", "--format", "json")[1])["state"]["mongo"] == "dead"
    assert run("down") == (0, "")
    code, text = run("status", "--format", "json")
    assert (code, set(json.loads(text)["state"].values())) == (1, {"down"})


def test_status_of_an_instance_that_was_never_started_says_so_and_names_the_others(stack: Stack) -> None:
    StackState("demo").save(stack.folder.parent / "demo" / "state.json")
    answer = CliRunner().invoke(local_app, ["status", "--instance", "dmeo"])
    assert answer.exit_code == 1
    assert answer.stderr == "no such instance: dmeo; known ones: demo\n"
    assert not (stack.folder.parent / "dmeo").exists()
    assert CliRunner().invoke(local_app, ["status", "--instance", "demo"]).stderr == ""


def test_down_says_that_it_stopped_dagster_and_nothing_where_there_is_none(stack: Stack) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    stack.folder.mkdir(parents=True)
    child = spawn(sleeper, cwd=stack.folder, env={}, log=stack.folder / "log", interruptible=True)
    write_json(
        stack.folder / "dagster.json",
        {"port": 1, "pids": {"daemon": child.pid}, "started": {"daemon": child.started}},
    )
    assert CliRunner().invoke(local_app, ["down"]).stderr == "dagster: stopped\n"
    assert child.find() is None
    assert CliRunner().invoke(local_app, ["down"]).stderr == ""


def test_logs_show_the_last_lines_of_one_server_or_of_all_with_their_names(stack: Stack) -> None:
    for name in ("redis", "mongo"):
        stack.log_file(name).parent.mkdir(parents=True)
        stack.log_file(name).write_text(f"{name} one\n{name} two\n")
    assert run("logs", "redis", "-n", "1") == (0, "redis two\n")
    assert run("logs") == (0, "mongo | mongo one\nmongo | mongo two\nredis | redis one\nredis | redis two\n")


def test_reset_deletes_only_after_the_typed_name(stack: Stack) -> None:
    data = stack.folder / "mongo" / "data"
    data.mkdir(parents=True)
    with pytest.raises(UsageError, match="nothing was deleted"):
        run("reset", typed="yes\n")
    assert data.exists()
    assert run("reset", typed=f"{INSTANCE}\n")[0] == 0
    assert not data.exists()


def test_reset_deletes_dagsters_storage_too_and_says_so(stack: Stack) -> None:
    storage = DagsterProcess(stack.root, INSTANCE).storage
    (storage / "history").mkdir(parents=True)
    answer = CliRunner().invoke(local_app, ["reset", "--yes"])
    assert not storage.exists()
    assert f"deleted: {stack.folder} and {storage}" in answer.stderr


def test_an_unconfirmed_reset_is_a_usage_error_and_deletes_nothing(stack: Stack) -> None:
    stack.folder.mkdir(parents=True)
    with pytest.raises(UsageError, match="nothing was deleted"):
        run("reset")
    assert stack.folder.exists()


def test_an_unknown_server_is_a_usage_error_of_one_line(stack: Stack) -> None:
    with pytest.raises(
        UsageError,
        match=r"'mysql' is not a server of the stack: choose one of aws, mongo, .*, beacon, witness$",
    ):
        run("logs", "mysql")
