"""The deployed workers by Dagster's answer: what is missing, off, broken or of another version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import graphql
import pytest
from dagster_graphql.schema import create_schema

from regworkers_core.domain.snapshot import Unread
from regworkers_core.infrastructure.discovery.workers import JOBS, QUERY, declared_workers, find_workers
from regworkers_dagster.definitions import defs

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


def test_the_question_fits_dagster_and_knows_the_jobs_of_drains() -> None:
    assert graphql.validate(create_schema().graphql_schema, graphql.parse(QUERY)) == []
    assert set(defs.get_repository_def().job_names) >= JOBS
