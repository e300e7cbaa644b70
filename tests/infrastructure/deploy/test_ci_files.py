"""The pipeline's jobs in deploy/ci: they parse, and what they run exists with the options that they give it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import pytest
import typer
import yaml

from regworkers_core.cli.main import build
from regworkers_core.infrastructure.policies.platform import WORKERS
from regworkers_core.settings import PROJECT_ROOT
from regworkers_dagster.definitions import defs

CI = PROJECT_ROOT / "deploy" / "ci"
SCRIPTS = sorted(CI.glob("*.sh"))


def jobs(file: str) -> Any:
    return yaml.safe_load((CI / file).read_text(encoding="utf-8"))


def commands(script: Path) -> list[list[str]]:
    """The words of every call of ours, with the options that are put together before."""
    text = script.read_text(encoding="utf-8")
    words = " ".join(re.findall(r"arguments\+?=\((.*?)\)", text))
    text = text.replace('"${arguments[@]}"', words)
    return [shlex.split(line.split("|")[0]) for line in text.splitlines() if line.startswith("regworkers ")]


def test_both_pipelines_run_the_same_scripts_which_exist_and_may_be_executed() -> None:
    gitlab = {name: job for name, job in jobs("gitlab.yml").items() if not name.startswith(".")}
    generic = {job["name"]: job for job in jobs("generic.yml")["jobs"]}
    assert gitlab.keys() == generic.keys() == {"find-resources", "alert cert expiration"}
    for name, job in gitlab.items():
        assert job["script"] == [generic[name]["command"]]
        assert job["artifacts"]["paths"] == [generic[name]["report"]]
        assert os.access(PROJECT_ROOT / generic[name]["command"], os.X_OK)
        assert generic[name]["report"] in (PROJECT_ROOT / generic[name]["command"]).read_text()
        assert generic[name]["policy"] in {worker.name for worker in WORKERS}
    assert {f"deploy/ci/{script.name}" for script in SCRIPTS} == {job["command"] for job in generic.values()}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_valid_and_calls_commands_with_options_that_exist(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    (words,) = commands(script)
    command: Any = typer.main.get_command(build())
    options: list[str] = []
    for word in words[1:]:
        if hasattr(command, "commands") and not word.startswith("-"):
            assert word in command.commands, f"there is no command {word}"
            command = command.commands[word]
        elif word.startswith("-"):
            options.append(word)
    known = {name for parameter in command.params for name in parameter.opts}
    assert options and set(options) <= known


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_without_an_environment_does_not_look_at_the_wrong_one(script: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CONFIG_ENV"}
    done = subprocess.run(
        ["bash", str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    # 1 would be a finding.
    assert done.returncode == 2 and "CONFIG_ENV" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_executes_a_job_of_dagster_that_exists(script: Path) -> None:
    (name,) = re.findall(
        r"dagster job execute -m regworkers_dagster\.definitions -j (\w+)", script.read_text(encoding="utf-8")
    )
    job = defs.get_repository_def().get_job(name)
    for config in (
        {},
        *map(orjson.loads, re.findall(r"config='({.+})'", script.read_text(encoding="utf-8"))),
    ):
        assert dg.validate_run_config(job, config)


@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize(("command", "job", "code"), [(1, 0, 1), (0, 1, 1), (2, 1, 2), (0, 0, 0)])
def test_the_script_after_a_deployment_hands_on_report_and_exit_code(
    tmp_path: Path, state: bool, command: int, job: int, code: int
) -> None:
    program = tmp_path / "bin" / "regworkers"
    program.parent.mkdir()
    for name, exits in (("regworkers", command), ("dagster", job)):
        (program.parent / name).write_text(f'#!/usr/bin/env bash\necho "$@"\nexit {exits}\n')
        (program.parent / name).chmod(0o755)
    if state:
        (tmp_path / "state.json").write_text("{}")
    environment = {**os.environ, "CONFIG_ENV": "qa", "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(CI / "after-deployment.sh")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "job execute -m regworkers_dagster.definitions -j find_resources" in done.stderr
    wanted = "aws find-resources --format json" + (" --terraform state.json" if state else "")
    # The job's log says why it is red.
    assert (tmp_path / "resources.json").read_text() == done.stdout == f"{wanted}\n"
