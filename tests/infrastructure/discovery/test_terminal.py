"""`regworkers aws ...` and the job `find_resources`: exit codes, output, files that are no state, and workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import graphql
import orjson
import pytest
from click.testing import Result
from dagster_graphql.schema import create_schema
from typer.testing import CliRunner

from regworkers_core.cli.main import build
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import Unread
from regworkers_core.infrastructure.declared import JOBS, QUERY, ResourceKind, declared_workers, find_workers
from regworkers_core.infrastructure.policies.platform import ROLES
from regworkers_core.infrastructure.terraform import read_state
from regworkers_core.runtime import Runtime
from regworkers_dagster.definitions import defs
from tests.dagster.support import use
from tests.support.faces import Face

pytestmark = pytest.mark.namespace("module")

Terminal = Callable[..., Result]


@pytest.fixture
def terminal(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    use(monkeypatch, runtime)
    return lambda *words: CliRunner().invoke(build("aws"), ("aws", *words))


def state_of(*resources: dict[str, Any]) -> bytes:
    return orjson.dumps({"format_version": "1.0", "values": {"root_module": {"resources": list(resources)}}})


def queue(name: str, **values: Any) -> dict[str, Any]:
    known = {"name": name, "message_retention_seconds": 345600, "visibility_timeout_seconds": 2}
    return {"address": f"aws_sqs_queue.{name}", "type": "aws_sqs_queue", "values": {**known, **values}}


def test_a_provisioned_environment_is_fine_and_one_with_a_change_is_a_finding(
    runtime: Runtime, face: Face
) -> None:
    assert face.does("aws find-resources").fine
    group = f"/{runtime.names.prefix}regworkers"
    logs = runtime.aws.client("logs")
    logs.put_retention_policy(logGroupName=group, retentionInDays=1)
    found = face.does("aws find-resources")
    logs.put_retention_policy(logGroupName=group, retentionInDays=3)
    assert not found.fine and f"log group {group}: retentionDays: declared 3, found 1" in found.text


def test_terraforms_state_is_compared_and_undeclared_resources_in_it_are_listed(
    runtime: Runtime, terminal: Terminal, tmp_path: Path
) -> None:
    names = runtime.names
    path = tmp_path / "state.json"
    path.write_bytes(
        state_of(
            queue(names.replication_queue, message_retention_seconds=60),
            queue(names.prefix + "forgotten-queue"),
        )
    )
    answer = terminal("find-resources", "--terraform", str(path), "--format", "json")
    assert answer.exit_code == 1
    lines = {each["name"]: each for each in orjson.loads(answer.stdout_bytes)["resources"]}
    assert (
        "retentionSeconds: declared 345600, Terraform has 60" in lines[names.replication_queue]["differences"]
    )
    assert lines[names.selection_queue]["differences"] == ["not in Terraform's state"]
    assert lines[names.prefix + "forgotten-queue"]["declared"] is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"{", "not JSON in line 1"),
        (b"\xff\xfe{\x00}\x00", "not JSON"),
        (b"[]", "should be an object"),
        (b"{}", "format_version is missing"),
        (b'{"version": 4, "resources": []}', "a raw state file"),
        (b'{"format_version": "1.0", "planned_values": {}}', "a plan"),
        (b'{"format_version": "1.0", "values": 3}', "values should be an object"),
        (b'{"format_version": "1.0", "values": {"root_module": []}}', None),
        (b'{"format_version": "1.0", "values": {"root_module": [1]}}', "a module should be an object"),
        (
            b'{"format_version": "1.0", "values": {"root_module": {"resources": [7]}}}',
            "resource 1 of a module has no type",
        ),
        (state_of({"type": "aws_sqs_queue", "address": "q"}), "q has no values"),
        (state_of({"type": "aws_sqs_queue", "address": "q", "values": {}}), "q is not as Terraform writes"),
        (state_of(queue("q", message_retention_seconds="soon")), "is not as Terraform writes"),
        (state_of(queue("q", redrive_policy="{")), "is not as Terraform writes"),
    ],
)
def test_a_file_that_is_no_state_is_one_line_that_names_it(
    tmp_path: Path, content: bytes, problem: str | None
) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    if problem is None:
        assert read_state(path) == {}
        return
    with pytest.raises(UsageError, match=problem) as caught:
        read_state(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_a_folder_is_one_line_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_state(tmp_path / "none.json")
    with pytest.raises(UsageError, match="cannot be read"):
        read_state(tmp_path)


def test_a_state_of_nothing_and_child_modules_are_read(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b'{"format_version": "1.0"}')
    assert read_state(path) == {}
    nested = {"root_module": {"child_modules": [{"child_modules": [{"resources": [queue("deep")]}]}]}}
    path.write_bytes(orjson.dumps({"format_version": "1.0", "values": nested}))
    assert set(read_state(path)) == {(ResourceKind.QUEUE, "deep")}


def test_when_nothing_answers_nothing_is_called_absent(
    runtime: Runtime, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: Any, **__: Any) -> None:
        raise TransientFailure("aws", "unavailable")

    monkeypatch.setattr("regworkers_core.infrastructure.found._Reader._call", unavailable)
    answer = terminal("find-resources")
    assert answer.exit_code == 2
    assert "could not read" in answer.stdout and "absent" not in answer.stdout


def test_the_policy_of_one_role_is_printed_for_the_environment_and_unknown_ones_are_refused(
    terminal: Terminal, runtime: Runtime
) -> None:
    one = orjson.loads(terminal("iam-policy", "--role", "replication", "--account", "1" * 12).stdout_bytes)
    assert one["Version"] == "2012-10-17"
    assert f"111111111111:table/{runtime.names.demand_table}" in str(one["Statement"])
    assert set(orjson.loads(terminal("iam-policy").stdout_bytes)) == set(ROLES)
    assert "runs of save_entries" in terminal("iam-policy", "--list").stdout
    assert b"runs of save_entries" in terminal("iam-policy", "--list", "--format", "json").stdout_bytes
    assert isinstance(terminal("iam-policy", "--role", "unknown").exception, UsageError)
    assert isinstance(terminal("iam-policy", "--account", "12").exception, UsageError)


DECLARED = declared_workers(local=False)
IMAGE = f"registry.example.com:5000/regworkers:{DECLARED['version']}"


def entry(jobs: Any = JOBS, image: str = IMAGE, off: tuple[str, ...] = ()) -> dict[str, Any]:
    sensors = [
        {"name": name, "sensorState": {"status": "STOPPED" if name in off else "RUNNING"}}
        for name in ("a", "b")
    ]
    schedules = [{"name": "c", "scheduleState": {"status": "STOPPED" if "c" in off else "RUNNING"}}]
    repository = {"jobs": [{"name": name} for name in jobs], "sensors": sensors, "schedules": schedules}
    return {
        "name": "workers",
        "displayMetadata": [{"key": "image", "value": image}] if image else [],
        "locationOrLoadError": {"__typename": "RepositoryLocation", "repositories": [repository]},
    }


def found(*entries: Any, environment: str = "prod", url: str = "https://dagster.example.com") -> Any:
    answer = {"workspaceOrError": {"__typename": "Workspace", "locationEntries": list(entries)}}
    runtime: Any = SimpleNamespace(
        settings=SimpleNamespace(environment=environment, dagster=SimpleNamespace(url=url)),
        dagster=SimpleNamespace(ask=lambda query: answer),
    )
    return find_workers(runtime)


def test_what_is_deployed_as_declared_has_no_difference() -> None:
    assert found(entry(["another_team"]), entry()) == DECLARED


@pytest.mark.parametrize(
    ("entries", "fact", "value"),
    [
        ([entry(JOBS - {"publish_events", "save_entries"})], "jobs", "without publish_events, save_entries"),
        ([entry(JOBS - {"draw", "archive_events"})], "jobs", "without archive_events, draw"),
        ([entry(off=("b", "c"))], "sensorsAndSchedules", "off: b, c"),
        ([entry(image="regworkers:0.9")], "version", "0.9"),
        (
            [{"name": "x", "displayMetadata": [], "locationOrLoadError": {"__typename": "PythonError"}}],
            "codeLocation",
            "does not load: x",
        ),
    ],
)
def test_what_differs_is_named(entries: list[Any], fact: str, value: str) -> None:
    assert found(*entries)[fact] == value


def test_an_image_without_a_tag_is_unknown_and_no_code_location_is_absent() -> None:
    for image in ("", "regworkers@sha256:" + "0" * 64):
        assert isinstance(found(entry(image=image))["version"], Unread)
    assert found(entry(["another_team"])) is None and found() is None


def test_on_a_laptop_dagster_may_be_off_and_has_no_image() -> None:
    assert found(environment="local-dev", url="") is None
    assert found(entry(image=""), environment="local-dev") == declared_workers(local=True)


def test_the_question_fits_dagster_and_knows_jobs_that_there_are() -> None:
    assert graphql.validate(create_schema().graphql_schema, graphql.parse(QUERY)) == []
    assert set(defs.get_repository_def().job_names) >= JOBS
