"""A cluster decodes every object strictly, and every name in one is that of another, or of a step of the docs."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from dagster_k8s import K8sRunLauncher

from regworkers_core.settings import PROJECT_ROOT, Settings
from tests.infrastructure.deploy import pods
from tests.infrastructure.deploy.pods import ENVIRONMENT, KUBERNETES, NAMESPACE, entered
from tests.rollout.rendered import CHART, FOLDER, Rendered, of_keda, render, rollout

pytestmark = pytest.mark.skipif(not FOLDER.name, reason="run `make rollout-render`")
with_chart = pytest.mark.skipif(CHART == "none", reason="without Dagster's chart (CHART=none)")
# What a step of the docs creates: comments of values.yaml list it, those of proxy.yaml have the commands.
_BY_HAND = re.compile(r"#   (?:kubectl create )?(secret|configmap) +(?:generic |tls )?([\w<>-]+)")
_ADDRESS = re.compile(r"\b((?:dagster|regworkers)-[a-z-]+):(\d+)\b")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return rollout(tmp_path_factory.mktemp("rollout"))


@pytest.fixture(scope="module")
def by_hand() -> set[tuple[str, str]]:
    text = "".join((KUBERNETES / name).read_text(encoding="utf-8") for name in ("values.yaml", "proxy.yaml"))
    (line,) = re.findall(r"for ((?:\w+, )+\w+ and \w+):", text.replace("\n#" + " " * 34, " "))
    roles = re.split(", | and ", line)
    found = set()
    for kind, name in _BY_HAND.findall(text):
        found |= {(kind, name.replace("<role>", role)) for role in (roles if "<role>" in name else [""])}
    assert len(found) == 6 + len(roles) and all("<" not in name for _, name in found)
    return found


@pytest.fixture(scope="module")
def launcher(rendered: Rendered, tmp_path_factory: pytest.TempPathFactory) -> K8sRunLauncher:
    """As the daemon makes it of the file that the chart writes."""
    instance = yaml.safe_load(rendered.of("ConfigMap")["dagster-instance"]["data"]["dagster.yaml"])
    assert instance["run_launcher"]["class"] == "K8sRunLauncher"
    return pods._launcher(tmp_path_factory.mktemp("launcher"), **instance["run_launcher"]["config"])


def test_a_strict_decoder_knows_every_field(rendered: Rendered) -> None:
    assert rendered.wrong == []
    assert {each.rpartition("/")[0] for each in rendered.foreign} == {"keda.sh/v1alpha1"}
    assert len(rendered.objects) >= (50 if rendered.chart else 40)


def test_keda_knows_every_field(rendered: Rendered) -> None:
    checked = [each for each in rendered.objects if each["apiVersion"] == "keda.sh/v1alpha1"]
    assert len(checked) == len(rendered.foreign) >= 4
    for each in checked:
        jsonschema.validate(each, of_keda(each["kind"]))
    checked[-1]["spec"]["pollingintervall"] = 15
    with pytest.raises(jsonschema.ValidationError, match="pollingintervall"):
        jsonschema.validate(checked[-1], of_keda(checked[-1]["kind"]))


@pytest.mark.parametrize(
    ("old", "new"),
    [("targetPort: grpc", "targetport: grpc"), ("maxUnavailable: 0", "maxUnavailable: 0, maxSurge: 2")],
)
def test_a_misspelt_and_a_repeated_field_are_refused(tmp_path: Path, old: str, new: str) -> None:
    text = (KUBERNETES / "code-server.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "wrong.yaml").write_text(text.replace(old, new))
    (wrong,) = render(tmp_path / "wrong.yaml").wrong
    assert "unknown field" in wrong or "already set" in wrong


def test_kustomize_refuses_a_rollout_without_one_of_its_values(tmp_path: Path) -> None:
    given = {name: value for name, value in ENVIRONMENT.items() if name != "nginx"}
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render(entered(tmp_path, given))
    assert "data.nginx" in refused.value.stderr


def test_everything_is_in_the_namespace_that_the_docs_create(rendered: Rendered) -> None:
    docs = (PROJECT_ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    created = re.findall(r"kubectl create namespace ([\w-]+)", docs)
    assert created == [NAMESPACE]
    assert docs.index("create namespace") < docs.index("\n   kubectl ")
    # `kubectl create` and Helm have it as their option -n.
    assert {each["metadata"].get("namespace", NAMESPACE) for each in rendered.objects} == {NAMESPACE}
    assert set(re.findall(r" -n ([\w-]+)", docs)) == {NAMESPACE}
    for binding in rendered.of("RoleBinding").values():
        for subject in binding["subjects"]:
            assert subject.get("namespace", NAMESPACE) == NAMESPACE


def found(node: Any, *keys: str) -> Iterator[Any]:
    """The value of each of these keys, anywhere in an object."""
    if isinstance(node, list):
        for each in node:
            yield from found(each, *keys)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in keys:
                yield value
            yield from found(value, *keys)


def check_names(pod: dict[str, Any], rendered: Rendered, by_hand: set[tuple[str, str]]) -> None:
    """AssertionError when the pod names an account, a config map or a secret that nothing creates."""
    maps = {*rendered.of("ConfigMap"), *(name for kind, name in by_hand if kind == "configmap")}
    if not rendered.chart:
        maps.add("dagster-instance")
    secrets = {*rendered.of("Secret"), *(name for kind, name in by_hand if kind == "secret")}
    account = pod.get("serviceAccountName")
    assert account in rendered.of("ServiceAccount") or pod.get("automountServiceAccountToken") is False
    assert {each["name"] for each in found(pod, "configMapRef", "configMapKeyRef", "configMap")} <= maps
    named = {
        each.get("name") or each["secretName"] for each in found(pod, "secretRef", "secretKeyRef", "secret")
    }
    assert named <= secrets
    # Its own role's secret, and no other's.
    assert {each for each in named if each.startswith("regworkers-")} <= {account}
    for each in found(pod, "secretKeyRef"):
        assert (each["name"], each["key"]) == ("dagster-postgres", "postgresql-password")
    volumes = {each["name"] for each in pod.get("volumes", [])}
    assert {each["name"] for mounts in found(pod, "volumeMounts") for each in mounts} <= volumes


def test_every_pod_names_accounts_config_maps_and_secrets_that_something_creates(
    rendered: Rendered, by_hand: set[tuple[str, str]]
) -> None:
    checked = {
        name: check_names(template["spec"], rendered, by_hand) for name, template in rendered.templates()
    }
    assert {"dagster-proxy", "regworkers-logs", "regworkers-save", "dagster-migrate-"} <= set(checked)
    assert not rendered.chart or {"dagster-daemon", "dagster-dagster-webserver"} <= set(checked)


@with_chart
def test_every_run_gets_the_pod_that_the_tests_of_pods_look_at(
    rendered: Rendered, launcher: K8sRunLauncher, by_hand: set[tuple[str, str]], tmp_path: Path
) -> None:
    simulated = pods.launcher_of_the_chart(tmp_path)
    for job in pods.jobs():
        template = pods.template_of_a_run(job, launcher)
        assert template == pods.template_of_a_run(job, simulated), job.name
        check_names(template["spec"], rendered, by_hand)


def test_runs_get_the_image_of_the_code_server(rendered: Rendered) -> None:
    (server,) = rendered.of("Deployment")["regworkers-code-server"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "DAGSTER_CURRENT_IMAGE", "value": server["image"]} in server["env"]
    ours = {each for each in found(rendered.objects, "image") if each.startswith("regworkers")}
    assert ours == {server["image"]} and ":" in server["image"]


def test_every_variable_of_ours_is_a_setting(rendered: Rendered) -> None:
    names = {each["name"] for env in found(rendered.objects, "env") for each in env}
    names |= set(
        re.findall(r"REGWORKERS_[A-Z]+__[A-Z_]+(?=[ .,:])", (KUBERNETES / "values.yaml").read_text())
    )
    ours = {name.removeprefix("REGWORKERS_").lower() for name in names if name.startswith("REGWORKERS_")}
    assert len(ours) >= 5
    for name in ours:
        section, field = name.split("__")
        assert field in type(getattr(Settings.model_fields[section], "default", None)).model_fields, name


def test_every_address_in_the_cluster_is_that_of_a_service_with_pods(rendered: Rendered) -> None:
    services = rendered.of("Service")
    named = set(_ADDRESS.findall(json.dumps(rendered.objects)))
    if rendered.chart:
        workspace = yaml.safe_load(
            rendered.of("ConfigMap")["dagster-workspace-yaml"]["data"]["workspace.yaml"]
        )
        servers = [each["grpc_server"] for each in workspace["load_from"]]
        named |= {(each["host"], str(each["port"])) for each in servers}
    else:
        named = {(host, port) for host, port in named if not host.startswith("dagster-dagster-")}
    for host, port in named:
        assert int(port) in [each["port"] for each in services[host]["spec"]["ports"]], host
    labels = {name: template["metadata"]["labels"] for name, template in rendered.templates()}
    containers = {name: template["spec"]["containers"] for name, template in rendered.templates()}
    for name, service in services.items():
        spec = service["spec"]
        behind = [each for each in labels if spec["selector"].items() <= labels[each].items()]
        assert behind, name
        for pod in behind:
            ports = [port for each in containers[pod] for port in each.get("ports", [])]
            open_ = {port["name"] for port in ports} | {port["containerPort"] for port in ports}
            assert {each.get("targetPort", each["port"]) for each in spec["ports"]} <= open_, name


def test_what_scales_or_is_scaled_by_hand_is_there(rendered: Rendered) -> None:
    deployments = rendered.of("Deployment")
    for scaled in rendered.of("ScaledObject").values():
        assert scaled["spec"]["scaleTargetRef"]["name"] in deployments
    docs = (PROJECT_ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    by_hand = set(re.findall(r"deployment/([\w-]+)", docs))
    assert len(by_hand) == 3
    assert not rendered.chart or by_hand <= set(deployments)
    for file in re.findall(r"-f (deploy/[\w/.-]+)", docs):
        assert (PROJECT_ROOT / file).is_file()
