"""The pods that dagster-k8s makes of our files: the contexts of instance and code location and the job tag, merged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import yaml
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.storage.dagster_run import DagsterRun
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import construct_dagster_k8s_job
from kubernetes.client import ApiClient

from regworkers_core.settings import PROJECT_ROOT
from regworkers_dagster.definitions import defs

DEPLOY = PROJECT_ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
RELEASE, NAMESPACE = "dagster", "regworkers"
# What an operator enters into environment.yaml.
IMAGES = ("nginx", "oauth2-proxy", "fluent-bit")
NETWORKS = ("postgres", "mongodb", "redis", "kafka", "aws", "services", "kubernetes-api")
ENVIRONMENT = {
    **{name: f"sha256:{number:064x}" for number, name in enumerate(IMAGES, 1)},
    **{name: f"10.0.{number}.0/24" for number, name in enumerate(NETWORKS, 1)},
}
_NO_CLUSTER = """
apiVersion: v1
kind: Config
current-context: none
clusters: [{name: none, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
users: [{name: none, user: {}}]
"""


def values() -> dict[str, Any]:
    """Of the Helm chart."""
    return dict(yaml.safe_load((KUBERNETES / "values.yaml").read_text(encoding="utf-8")))


def manifests() -> Iterator[dict[str, Any]]:
    """All of our own, the jobs that are created by hand included."""
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        if path.name not in ("values.yaml", "kustomization.yaml"):
            yield from filter(None, yaml.safe_load_all(path.read_text(encoding="utf-8")))


def entered(folder: Path, environment: Mapping[str, str]) -> Path:
    """A copy of our manifests in which these values are entered where environment.yaml names them."""
    copy = Path(shutil.copytree(KUBERNETES, folder / "kubernetes", dirs_exist_ok=True))
    text = (copy / "environment.yaml").read_text(encoding="utf-8")
    for name, value in environment.items():
        text, count = re.subn(rf"(?m)^  # {name}:$", f"  {name}: {value}", text)
        assert count == 1, name
    (copy / "environment.yaml").write_text(text, encoding="utf-8")
    return copy


def kustomized(folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What kustomize makes of our manifests with these values."""
    copy = entered(folder, environment)
    return subprocess.run(["kubectl", "kustomize", str(copy)], capture_output=True, text=True)


def jobs() -> list[dg.JobDefinition]:
    """Every job of the definitions, the implicit one for assets included."""
    return list(defs.get_repository_def().get_all_jobs())


def launcher_of_the_chart(folder: Path) -> K8sRunLauncher:
    """As the chart writes it into the instance (its helper `dagsterYaml.runLauncher.k8s`)."""
    given = values()
    ours = given["runLauncher"]["config"]["k8sRunLauncher"]
    run = ours["runK8sConfig"]
    return _launcher(
        folder,
        job_namespace=NAMESPACE,
        image_pull_policy=ours["imagePullPolicy"],
        service_account_name=given["serviceAccount"]["name"],
        dagster_home=given["global"]["dagsterHome"],
        instance_config_map=f"{RELEASE}-instance",
        postgres_password_secret=given["global"]["postgresqlSecretName"],
        env_config_maps=[each["name"] for each in ours.get("envConfigMaps", [])],
        env_secrets=[each["name"] for each in ours.get("envSecrets", [])],
        run_k8s_config={
            "container_config": run["containerConfig"],
            "pod_spec_config": run["podSpecConfig"],
            "job_spec_config": run["jobSpecConfig"],
            "pod_template_spec_metadata": run["podTemplateSpecMetadata"],
        },
    )


def launcher_of_the_instance(folder: Path) -> K8sRunLauncher:
    """Of deploy/dagster.yaml."""
    config = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))["run_launcher"]["config"]
    return _launcher(folder, **{**config, "job_namespace": NAMESPACE})


def _launcher(folder: Path, **config: Any) -> K8sRunLauncher:
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(_NO_CLUSTER)
    config |= {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
    result = dg._check.not_none(
        _process(K8sRunLauncher.config_type(), config), "the configuration of the launcher"
    )
    return K8sRunLauncher(**result)


def _process(schema: Any, config: Mapping[str, Any]) -> Any:
    from dagster._config import process_config, resolve_to_config_type

    result = process_config(resolve_to_config_type(schema), dict(config))
    assert result.success, [error.message for error in result.errors or []]
    return result.value


@cache
def context_of_the_code_location() -> dict[str, Any]:
    """What the code server of code-server.yaml passes on to runs: nothing, unless its environment says so."""
    (server,) = (
        each for each in manifests() if each["kind"] == "Deployment" and "code" in each["metadata"]["name"]
    )
    (container,) = server["spec"]["template"]["spec"]["containers"]
    names = {each["name"] for each in container["env"]}
    assert not names & {"DAGSTER_CONTAINER_CONTEXT", "DAGSTER_CLI_API_GRPC_CONTAINER_CONTEXT"}
    return {}


# As the chart would make it of a code server of its own (its helper `dagsterUserDeployments.k8sContainerContext`).
CONTEXT_OF_THE_CHART = {
    "k8s": {
        "image_pull_policy": "IfNotPresent",
        "env_config_maps": ["dagster-regworkers-user-env", "regworkers-settings"],
        "env_secrets": ["regworkers-sensors"],
        "resources": {"requests": {"cpu": "10m", "memory": "1Mi"}, "limits": {"memory": "1Mi"}},
        "namespace": NAMESPACE,
        "service_account_name": "regworkers-sensors",
        "run_k8s_config": {"pod_spec_config": {"automount_service_account_token": True}},
    }
}


def pod_of_a_run(
    job: dg.JobDefinition, launcher: K8sRunLauncher, context: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The spec of the pod in which a run of the job is executed."""
    return dict(template_of_a_run(job, launcher, context)["spec"])


def template_of_a_run(
    job: dg.JobDefinition, launcher: K8sRunLauncher, context: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The same with its labels."""
    origin = JobPythonOrigin(
        job.name,
        RepositoryPythonOrigin(
            executable_path="python",
            code_pointer=dg._core.code_pointer.ModuleCodePointer("regworkers_dagster.definitions", "defs"),
            container_image="regworkers:1",
            container_context=dict(context or context_of_the_code_location()),
        ),
    )
    run = DagsterRun(job_name=job.name, tags=dict(job.tags), job_code_origin=origin)
    # What the launcher hands on of its daemon's environment.
    with mock.patch.dict(os.environ, dict.fromkeys(launcher.env_vars or (), "the daemon's")):
        merged = launcher.get_container_context_for_run(run)
        made = construct_dagster_k8s_job(
            job_config=merged.get_k8s_job_config(job_image="regworkers:1", run_launcher=launcher),
            args=["dagster", "api", "execute_run"],
            job_name="run",
            user_defined_k8s_config=merged.run_k8s_config,
        )
    return dict(ApiClient().sanitize_for_serialization(made)["spec"]["template"])
