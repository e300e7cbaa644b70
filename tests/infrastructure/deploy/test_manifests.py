"""Our manifests beside the Helm chart: what each pod may do and take, and whom it reaches.

`make rollout` (tests/rollout) holds fields and names against what a cluster takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._cli.api import grpc_command

from regworkers_core.infrastructure.policies.platform import SERVICE_ACCOUNTS
from regworkers_core.settings import settings_of
from tests.infrastructure.deploy.pods import (
    DEPLOY,
    KUBERNETES,
    RELEASE,
    manifests,
    values,
)

MANIFESTS = list(manifests())
# Of the chart's pods.
COMPONENTS = {"dagster-webserver", "dagster-webserver-read-only", "dagster-daemon"}


def names(kind: str) -> list[str]:
    return [each["metadata"]["name"] for each in MANIFESTS if each["kind"] == kind]


def templates() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template, by the name of what makes it."""
    for each in MANIFESTS:
        spec = each.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "containers" in spec.get("template", {}).get("spec", {}):
            yield each["metadata"].get("name") or each["metadata"]["generateName"], spec["template"]


TEMPLATES = dict(templates())


def mentioned(found: Any, *keys: str) -> set[str]:
    """The names of config maps or secrets anywhere in a manifest."""
    if isinstance(found, list):
        return set().union(*(mentioned(each, *keys) for each in found))
    if not isinstance(found, dict):
        return set()
    own = {
        value if isinstance(value, str) else value.get("name") or value.get("secretName")
        for key, value in found.items()
        if key in keys
    }
    return {*own, *set().union(set(), *(mentioned(each, *keys) for each in found.values()))} - {None}


def test_every_role_has_its_account_under_the_name_that_terraform_trusts() -> None:
    prefix = settings_of("prod").names.prefix
    assert {
        each["metadata"]["name"]: each["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
        for each in MANIFESTS
        if each["kind"] == "ServiceAccount"
    } == {
        f"regworkers-{role}": f"arn:aws:iam::123456789012:role/{prefix}regworkers-{role}"
        for role in SERVICE_ACCOUNTS
    }


# The agent reads the files of the container runtime, which belong to root (test_log_agent.py tests it).
@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"regworkers-logs"}))
def test_a_pod_is_confined_and_states_what_it_takes(name: str) -> None:
    pod = TEMPLATES[name]["spec"]
    security = pod["securityContext"]
    assert security["runAsNonRoot"] and security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {each["name"] for each in pod["volumes"]}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory", "ephemeral-storage"} == set(container["resources"]["requests"])
        assert {"memory", "ephemeral-storage"} == set(container["resources"]["limits"])
        assert {each["name"] for each in container["volumeMounts"]} <= volumes


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items()
    among = selector.get("matchExpressions", [])
    return wanted <= labels.items() and all(labels.get(each["key"]) in each["values"] for each in among)


LABELS = [each["metadata"]["labels"] for each in TEMPLATES.values()] + [
    {"component": each} for each in COMPONENTS
]


def of(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each["spec"] for each in MANIFESTS if each["kind"] == kind}


def test_every_selector_finds_pods() -> None:
    for name, spec in of("Deployment").items():
        assert selects(spec["selector"], TEMPLATES[name]["metadata"]["labels"])
    for spec in of("Service").values():
        assert any(selects({"matchLabels": spec["selector"]}, labels) for labels in LABELS)
    for spec in of("PodDisruptionBudget").values():
        assert any(selects(spec["selector"], labels) for labels in LABELS)
    for spec in of("NetworkPolicy").values():
        assert any(selects(spec["podSelector"], labels) for labels in LABELS)
        for peer in (each for rule in spec.get("ingress", []) for each in rule.get("from", [])):
            assert any(selects(peer["podSelector"], labels) for labels in LABELS)


def test_a_deployment_has_two_replicas_and_keeps_one() -> None:
    scaled = {each["scaleTargetRef"]["name"]: each["minReplicaCount"] for each in of("ScaledObject").values()}
    for name, spec in of("Deployment").items():
        # Either here or by KEDA: of two numbers each `apply` would restore one.
        assert (name in scaled) != ("replicas" in spec)
        assert scaled.get(name, spec.get("replicas")) >= 2
        assert of("PodDisruptionBudget")[name]["minAvailable"] == 1
    assert values()["dagsterWebserver"]["replicaCount"] >= 2
    kept = {each["selector"]["matchLabels"].get("component") for each in of("PodDisruptionBudget").values()}
    assert {"dagster-webserver", "dagster-webserver-read-only"} <= kept


def reached_by(policy: str) -> list[dict[str, str]]:
    (rule,) = of("NetworkPolicy")[policy]["ingress"]
    return [labels for labels in LABELS if any(selects(each["podSelector"], labels) for each in rule["from"])]


def test_only_webservers_and_daemon_reach_the_code_servers_and_only_proxy_and_alerts_the_webservers() -> None:
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in of("NetworkPolicy").values()
    assert {each.get("component") for each in reached_by("regworkers-code-server")} == COMPONENTS
    assert {each.get("app") for each in reached_by("regworkers-web")} == {
        "dagster-proxy",
        "regworkers-alerts",
    }
    web = values()["dagsterWebserver"]["service"]["port"]
    ports = {
        name: [each["port"] for each in spec["ingress"][0]["ports"]]
        for name, spec in of("NetworkPolicy").items()
        if "ingress" in spec
    }
    assert ports == {"regworkers-code-server": [3030], "regworkers-web": [web], "dagster-proxy": [443, 80]}


def test_the_workspace_names_the_service_of_the_code_servers() -> None:
    (server,) = values()["dagsterWebserver"]["workspace"]["servers"]
    (port,) = of("Service")[server["host"]]["ports"]
    assert server["port"] == port["port"]
    (container,) = TEMPLATES["regworkers-code-server"]["spec"]["containers"]
    arguments = container["args"]
    assert arguments[:3] == ["dagster", "api", "grpc"]
    # Raises for an option that this version of Dagster does not have.
    grpc_command.make_context("grpc", arguments[3:])
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    (command,) = re.findall(r'^CMD \["dagster", "api", "grpc", (.+)\]$', dockerfile, flags=re.MULTILINE)
    grpc_command.make_context("grpc", [each.strip('" ') for each in command.split(",")])
    assert str(server["port"]) in arguments and "regworkers_dagster.definitions" in arguments
    # Two servers of one location: Dagster would reload it at every change of the id.
    assert arguments[arguments.index("--fixed-server-id") + 1] == "$(DAGSTER_CURRENT_IMAGE)"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": 3030, "service": "DagsterApi"}


def test_the_proxys_addresses_are_those_of_the_charts_services() -> None:
    nginx = TEMPLATES["dagster-proxy"]["spec"]["containers"][0]
    text = (DEPLOY / "proxy" / "nginx.conf").read_text(encoding="utf-8")
    replaced = re.findall(r"s([/|])(.+?)\1(.+?)\1", nginx["command"][-1])
    assert len(replaced) == 3
    for _, before, after in replaced:
        text, count = re.subn(before, after, text)
        assert count >= 1, before
    port = values()["dagsterWebserver"]["service"]["port"]
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    upstreams = [line for line in lines if line.startswith("upstream")]
    assert upstreams == [
        f"upstream dagster_operators {{ server {RELEASE}-dagster-webserver:{port}; }}",
        f"upstream dagster_readers {{ server {RELEASE}-dagster-webserver-read-only:{port}; }}",
        "upstream login { server 127.0.0.1:4180; }",
    ]
    (tls,) = (
        each["secret"]["items"] for each in TEMPLATES["dagster-proxy"]["spec"]["volumes"] if "secret" in each
    )
    for item in tls:
        assert f"/etc/nginx/tls/{item['path']}" in text


@pytest.mark.parametrize("folder", [KUBERNETES, KUBERNETES / "residents"], ids=lambda path: path.name)
def test_the_kustomization_lists_every_manifest(folder: Path) -> None:
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    found = {path.name for path in folder.glob("*.yaml")}
    assert set(listed) == found - {"values.yaml", "kustomization.yaml"}


def test_every_pod_that_opens_dagsters_database_checks_its_certificate() -> None:
    chart = yaml.safe_load((KUBERNETES / "values.yaml").read_text(encoding="utf-8"))
    params = chart["postgresql"]["postgresqlParams"]
    assert params["sslmode"] == "verify-full"
    mount = params["sslrootcert"].rpartition("/")[0]
    opened_by = [
        chart["dagsterWebserver"]["volumeMounts"],
        chart["dagsterDaemon"]["volumeMounts"],
        *(
            container["volumeMounts"]
            for name in ("code-server.yaml", "jobs/migrate.yaml")
            for document in yaml.safe_load_all((KUBERNETES / name).read_text(encoding="utf-8"))
            if document and "template" in document.get("spec", {})
            for container in document["spec"]["template"]["spec"]["containers"]
        ),
    ]
    assert len(opened_by) >= 4
    assert all(mount in [each["mountPath"] for each in mounts] for mounts in opened_by)
