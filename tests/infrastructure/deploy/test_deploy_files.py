"""The files in deploy/ and at the root load, agree with each other and are pinned."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from kubernetes.config import ConfigException

from regworkers_core.cli.main import build
from regworkers_core.settings import PROJECT_ROOT, Settings
from tests.support.postgres import postgres

DEPLOY = PROJECT_ROOT / "deploy"


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _home(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(source, tmp_path / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def _tag_limits(instance: dg.DagsterInstance) -> dict[str, int]:
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    return {str(limit["key"]): int(limit["limit"]) for limit in queue.tag_concurrency_limits}


def test_the_roots_instance_keeps_everything_under_dot_dagster_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _home(tmp_path, PROJECT_ROOT / "dagster.yaml", monkeypatch)
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs_count() == 0
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        assert instance.run_coordinator.dequeue_interval_seconds == 1  # type: ignore[attr-defined]
        assert _tag_limits(instance) == {"regworkers/drain": 8, "regworkers/operation": 1}
        assert instance.compute_log_manager.get_log_data(["unknown"]).stdout is None
    assert {path.name for path in tmp_path.iterdir()} == {"dagster.yaml", ".dagster"}


def test_the_production_instance_stores_in_postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _home(tmp_path, DEPLOY / "dagster.yaml", monkeypatch)
    for name, value in {
        "REGWORKERS_LOG_BUCKET": "logs",
        "AWS_REGION": "us-east-1",
        "REGWORKERS_K8S_NAMESPACE": "regworkers",
    }.items():
        monkeypatch.setenv(name, value)

    @dg.job
    def small() -> None:
        """Nothing to do."""

    with postgres() as database:
        monkeypatch.setenv("DAGSTER_PG_URL", database.url)
        with dg.DagsterInstance.get() as instance:
            run = instance.create_run_for_job(small, tags={"regworkers/drain": "save"})
            found = instance.get_runs(dg.RunsFilter(tags={"regworkers/drain": "save"}))
            assert [each.run_id for each in found] == [run.run_id]
            assert "Postgres" in type(instance.event_log_storage).__name__
            assert type(instance.compute_log_manager).__name__ == "S3ComputeLogManager"
            assert _tag_limits(instance) == {"regworkers/drain": 32, "regworkers/operation": 1}
            # Its settings are accepted; what is missing here is only the cluster.
            with pytest.raises(ConfigException):
                _ = instance.run_launcher


def test_every_container_is_pinned_and_listens_only_on_this_machine() -> None:
    services = _yaml(DEPLOY / "docker-compose.yml")["services"]
    assert set(services) == {"mongo", "redis", "kafka", "aws"}
    for name, service in services.items():
        assert re.fullmatch(r"[a-z0-9./-]+:v?\d+\.\d+[\w.-]*", service["image"]), name
        for port in service["ports"]:
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), name
        assert service["healthcheck"]["test"], name


def test_the_emulator_has_every_service_that_the_adapters_call() -> None:
    emulator = _yaml(DEPLOY / "docker-compose.yml")["services"]["aws"]["environment"]["SERVICES"].split(",")
    code = [path.read_text(encoding="utf-8") for path in (PROJECT_ROOT / "regworkers_core").rglob("*.py")]
    called = {name for text in code for name in re.findall(r'aws\.client\(\s*"(\w+)"', text)}
    assert {"dynamodb", "sqs", "secretsmanager"} <= called <= set(emulator)


def test_the_image_is_pinned_runs_unprivileged_and_installs_packages_by_hash() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    (base,) = re.findall(r"^ARG PYTHON=(.+)$", text, flags=re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    stages = re.findall(r"^FROM (.+)$", text, flags=re.MULTILINE)
    assert stages == ["${PYTHON} AS build", "${PYTHON}"]
    assert "USER 10001" in text.splitlines() and "--require-hashes" in text
    # The last stage has no compiler's leftovers and no source.
    kept = (PROJECT_ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [
        path for line in re.findall(r"^COPY (.+) \S+$", text, flags=re.MULTILINE) for path in line.split()
    ]
    for path in copied:
        if path.startswith(("--from", "/")):
            continue
        assert f"!{path}" in kept, f"{path} is not in the context of the build"
        assert path.startswith("dist/") or (PROJECT_ROOT / path).exists(), path


def test_the_images_have_the_version_of_the_project() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [path.read_text(encoding="utf-8") for path in (DEPLOY / "kubernetes").rglob("*.yaml")]
    tags = [
        tag for text in texts for tag in re.findall(r'(?:image: regworkers:|newTag: |tag: ")([^"\s]+)', text)
    ]
    assert tags == [project["version"]] * 6


def test_the_helm_values_say_what_the_chart_needs() -> None:
    values = _yaml(DEPLOY / "kubernetes" / "values.yaml")
    for part in (values["dagsterWebserver"], values["dagsterDaemon"]):
        assert {"requests", "limits"} <= set(part["resources"])
        assert (
            part["podSecurityContext"]["runAsNonRoot"] and part["securityContext"]["readOnlyRootFilesystem"]
        )
    # The workspace without a code server of the chart's, whose account and resources runs would get.
    assert values["dagster-user-deployments"] == {"enabled": True, "enableSubchart": False}
    assert not values["postgresql"]["enabled"]
    assert not values["generatePostgresqlPasswordSecret"]
    assert values["global"]["postgresqlSecretName"]
    assert set(values["computeLogManager"]["config"]) == {"s3ComputeLogManager"}
    assert set(values["runLauncher"]["config"]) == {"k8sRunLauncher"}


def test_the_helm_values_and_the_production_instance_agree() -> None:
    values, instance = _yaml(DEPLOY / "kubernetes" / "values.yaml"), _yaml(DEPLOY / "dagster.yaml")
    daemon = values["dagsterDaemon"]
    queue, runs = daemon["runCoordinator"]["config"]["queuedRunCoordinator"], instance["concurrency"]["runs"]
    assert queue["maxConcurrentRuns"] == runs["max_concurrent_runs"]
    assert queue["tagConcurrencyLimits"] == runs["tag_concurrency_limits"]
    assert (
        queue["dequeueIntervalSeconds"] == instance["run_coordinator"]["config"]["dequeue_interval_seconds"]
    )
    monitoring = instance["run_monitoring"]
    assert daemon["runMonitoring"]["startTimeoutSeconds"] == monitoring["start_timeout_seconds"]
    assert daemon["runMonitoring"]["pollIntervalSeconds"] == monitoring["poll_interval_seconds"]
    assert daemon["sensors"]["numWorkers"] == instance["sensors"]["num_workers"]
    helm_run = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    own_run = instance["run_launcher"]["config"]["run_k8s_config"]
    assert (
        helm_run["podSpecConfig"].pop("serviceAccountName")
        == (instance["run_launcher"]["config"]["service_account_name"])
    )
    # The chart hands the password to its runs itself.
    assert own_run["container_config"]["env"].pop()["name"] == "DAGSTER_PG_URL"
    # The chart takes the names of Kubernetes, the launcher those of Python.
    parts = {
        "pod_spec_config": "podSpecConfig",
        "container_config": "containerConfig",
        "job_spec_config": "jobSpecConfig",
        "pod_template_spec_metadata": "podTemplateSpecMetadata",
    }
    assert helm_run == {parts[name]: part for name, part in own_run.items()}


@pytest.mark.parametrize("environment", ["qa", "preprod", "prod"])
def test_the_queue_has_room_for_all_drains_and_their_successors(
    environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFIG_ENV", environment)
    drains = Settings().drain
    runs = _yaml(DEPLOY / "dagster.yaml")["concurrency"]["runs"]
    limit = next(
        each["limit"] for each in runs["tag_concurrency_limits"] if each["key"] == "regworkers/drain"
    )
    assert limit >= 2 * max(drains.max_save_drains, drains.max_enqueue_drains)
    assert runs["max_concurrent_runs"] >= limit


def test_a_run_has_the_time_to_end_that_its_pod_is_given() -> None:
    instance = _yaml(DEPLOY / "dagster.yaml")
    grace = instance["run_launcher"]["config"]["run_k8s_config"]["pod_spec_config"][
        "terminationGracePeriodSeconds"
    ]
    assert instance["run_monitoring"]["cancel_timeout_seconds"] > grace


def test_the_look_from_outside_runs_what_there_is() -> None:
    job = _yaml(DEPLOY / "kubernetes" / "alerts-cronjob.yaml")
    assert job["spec"]["schedule"] == "* * * * *" and job["spec"]["concurrencyPolicy"] == "Forbid"
    run = job["spec"]["jobTemplate"]["spec"]
    assert run["backoffLimit"] == 0, "an open incident is no reason to look again"
    (container,) = run["template"]["spec"]["containers"]
    program, *words = container["command"]
    assert program == "regworkers"
    group = next(each for each in build().registered_groups if each.name == words[0])
    assert group.typer_instance is not None
    assert words[1] in {each.name for each in group.typer_instance.registered_commands}
