"""Every job's pod as dagster-k8s makes it: account, size, environment, and nothing that it does not need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.definitions.dependency import NodeHandle
from dagster_k8s import K8sRunLauncher

from regworkers_core.infrastructure.policies.platform import ROLES
from regworkers_dagster.definitions import duty_of, pod_of_assets
from regworkers_dagster.factories import LARGE
from tests.infrastructure.deploy.pods import (
    CONTEXT_OF_THE_CHART,
    DEPLOY,
    jobs,
    launcher_of_the_chart,
    launcher_of_the_instance,
    manifests,
    pod_of_a_run,
    template_of_a_run,
)
from tests.infrastructure.deploy.test_manifests import mentioned

ASSET_JOB = "__ASSET_JOB"
NEEDS_DISK = {"archive_events", "check_archive", "draw", "reconcile_entries", "simulate_draw", "top_up"}
NEEDS_DISK |= {"weekly_review", "monthly_review", "quarterly_review"}
Launcher = Callable[[Path], K8sRunLauncher]


@pytest.fixture(scope="module", params=[launcher_of_the_chart, launcher_of_the_instance])
def launcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> K8sRunLauncher:
    made: Launcher = request.param
    return made(tmp_path_factory.mktemp("kubeconfig"))


def container_of(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    return dict(container)


@pytest.fixture(scope="module")
def pods(launcher: K8sRunLauncher) -> dict[str, dict[str, Any]]:
    return {job.name: pod_of_a_run(job, launcher) for job in jobs()}


def test_every_job_runs_under_the_account_of_its_duty(pods: dict[str, dict[str, Any]]) -> None:
    accounts = {each["metadata"]["name"] for each in manifests() if each["kind"] == "ServiceAccount"}
    found = {name: pod["serviceAccountName"] for name, pod in pods.items()}
    assert set(found.values()) <= accounts
    assert found.pop(ASSET_JOB) == "regworkers-run"
    assert found == {name: f"regworkers-{duty_of(name)}" for name in found}
    assert {duty_of(name) for name in found} <= set(ROLES)


def test_the_network_knows_every_run_by_the_duty_of_its_job(launcher: K8sRunLauncher) -> None:
    for job in jobs():
        labels = template_of_a_run(job, launcher)["metadata"]["labels"]
        assert labels["regworkers/duty"] == ("run" if job.name == ASSET_JOB else duty_of(job.name)), job.name


def test_every_job_has_the_settings_and_the_secret_of_its_duty_and_no_other_but_dagsters_database(
    pods: dict[str, dict[str, Any]],
) -> None:
    for name, pod in pods.items():
        sources = container_of(pod)["envFrom"]
        maps = [each["configMapRef"]["name"] for each in sources if "configMapRef" in each]
        assert maps == ["regworkers-settings"], name
        ours = set() if name == ASSET_JOB else {f"regworkers-{duty_of(name)}"}
        assert mentioned(pod, "secretRef", "secretKeyRef", "secret") == {
            *ours,
            # The login of Dagster's database: a run writes its events there.
            "dagster-postgres",
        }, name


def variables(found: Any) -> set[str]:
    """What an instance's configuration reads from the environment: `{env: NAME}`."""
    if isinstance(found, dict):
        name = found.get("env")
        own = {name} if isinstance(name, str) else set()
        return own.union(*(variables(each) for each in found.values()))
    return set().union(*map(variables, found)) if isinstance(found, list) else set()


def test_every_run_has_the_variables_that_the_instance_without_the_chart_reads(tmp_path: Path) -> None:
    instance = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
    read = variables(instance)
    assert {"DAGSTER_PG_URL", "REGWORKERS_LOG_BUCKET"} <= read
    launcher = launcher_of_the_instance(tmp_path)
    for job in jobs():
        given = {each["name"]: each for each in container_of(pod_of_a_run(job, launcher))["env"]}
        assert read <= set(given), job.name
        assert "value" not in given["DAGSTER_PG_URL"], "it has a password"


def test_every_pod_states_what_it_takes_and_writes_only_to_its_disk(pods: dict[str, dict[str, Any]]) -> None:
    for name, pod in pods.items():
        container = container_of(pod)
        resources = container["resources"]
        assert {"cpu", "memory", "ephemeral-storage"} == set(resources["requests"]), name
        assert {"memory", "ephemeral-storage"} == set(resources["limits"]), name
        assert {"name": "tmp", "emptyDir": {}} in pod["volumes"], name
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], name
        assert {"name": "HOME", "value": "/tmp"} in container["env"], name
        gibibytes = int(resources["limits"]["ephemeral-storage"].removesuffix("Gi"))
        assert gibibytes >= (4 if name in NEEDS_DISK else 1), name
    assert container_of(pods["draw"])["resources"]["requests"]["ephemeral-storage"] == LARGE.disk


def test_no_run_keeps_an_output_because_the_root_is_read_only() -> None:
    # Dagster writes every other output below DAGSTER_HOME.
    kept = {
        f"{job.name}: {node.name}.{out.name}"
        for job in jobs()
        for node in job.nodes
        for out in node.definition.output_defs
        if not out.dagster_type.is_nothing
        # Results of checks are events.
        and not job.asset_layer.get_asset_check_key_for_node_output(NodeHandle(node.name, None), out.name)
    }
    assert kept == set()


def test_every_pod_is_confined_and_has_time_to_end(pods: dict[str, dict[str, Any]]) -> None:
    for name, pod in pods.items():
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }, name
        assert container_of(pod)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert pod["terminationGracePeriodSeconds"] == 60, name


def test_a_code_server_of_the_chart_would_change_neither_account_nor_size(
    launcher: K8sRunLauncher, pods: dict[str, dict[str, Any]]
) -> None:
    for job in jobs():
        if job.name != ASSET_JOB:
            pod = pod_of_a_run(job, launcher, CONTEXT_OF_THE_CHART)
            assert pod["serviceAccountName"] == pods[job.name]["serviceAccountName"], job.name
            assert container_of(pod)["resources"] == container_of(pods[job.name])["resources"], job.name


def test_assets_without_their_job_get_the_pod_of_the_largest_job_that_has_them_all() -> None:
    def pod(*names: set[str]) -> str:
        return pod_of_assets(names).get("dagster-k8s/config", "")

    assert "regworkers-replication" in pod({"save_entries", ASSET_JOB}, {"save_entries"})
    assert "20Gi" in pod({"draw", "check_selection"})
    assert not pod({"save_entries"}, {"draw"})
    assert not pod(set())
