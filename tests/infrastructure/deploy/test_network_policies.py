"""What pods may connect to, by their duty, and what an operator enters before kustomize builds anything."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from regworkers_core.infrastructure.policies.platform import ROLES, SERVICE_ACCOUNTS, role_policy
from regworkers_core.infrastructure.policies.statement import PLACEHOLDERS
from regworkers_core.operation import Duty
from tests.infrastructure.deploy.pods import DEPLOY, ENVIRONMENT, IMAGES, NETWORKS, kustomized, manifests
from tests.infrastructure.deploy.test_manifests import COMPONENTS, TEMPLATES, of, selects

DUTY = "regworkers/duty"
# The chart's own pods have the labels of the chart.
DUTIES = set(SERVICE_ACCOUNTS) - {"web"}
RUNS = {*get_args(Duty), "run"}
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")


def images(found: Any) -> Iterator[str]:
    if isinstance(found, list):
        for each in found:
            yield from images(each)
    elif isinstance(found, dict):
        for key, value in found.items():
            if key == "image" and isinstance(value, str):
                yield value
            else:
                yield from images(value)


def test_no_image_of_the_cluster_is_named_by_its_tag_alone() -> None:
    found = {image for each in manifests() for image in images(each)}
    # Ours is built by those who install it; kustomization.yaml and values.yaml have its tag.
    others = {image for image in found if image.split(":")[0] != "regworkers"}
    assert len(others) == len(IMAGES)
    for image in others:
        assert re.fullmatch(r"[a-z0-9./-]+:v?\d+\.\d+[\w.-]*@sha256:(environment\.yaml|[0-9a-f]{64})", image)
        # The command that prints its digest.
        assert image.split("@")[0] in (DEPLOY / "kubernetes" / "environment.yaml").read_text(encoding="utf-8")


@needs_kubectl
@pytest.mark.parametrize("missing", ENVIRONMENT)
def test_nothing_is_built_while_a_digest_or_a_network_is_missing(tmp_path: Path, missing: str) -> None:
    done = kustomized(tmp_path, {name: value for name, value in ENVIRONMENT.items() if name != missing})
    assert done.returncode != 0 and done.stdout == ""
    assert f"`data.{missing}` is missing" in done.stderr


@needs_kubectl
def test_what_is_entered_reaches_every_image_and_policy(tmp_path: Path) -> None:
    done = kustomized(tmp_path, ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "environment.yaml" not in done.stdout
    documents = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert not [each for each in documents if each["metadata"]["name"] == "environment"]
    digests = {image.split("@")[1] for each in documents for image in images(each) if "@" in image}
    assert digests == {ENVIRONMENT[name] for name in IMAGES}
    built = {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "NetworkPolicy"}
    for name in NETWORKS[:-1]:
        (rule,) = built[f"regworkers-to-{name}"]["egress"]
        assert rule["to"] == [{"ipBlock": {"cidr": ENVIRONMENT[name]}}]
    *addresses, code = built["regworkers-web-to-its-own"]["egress"]
    reached = [(peer["ipBlock"]["cidr"], *ports(rule)) for rule in addresses for peer in rule["to"]]
    wanted = {"postgres": 5432, "mongodb": 27017, "aws": 443, "kubernetes-api": 443}
    assert reached == [(ENVIRONMENT[name], port) for name, port in wanted.items()]
    assert code["to"] == [{"podSelector": {"matchLabels": {"app": "regworkers-code-server"}}}]


def ports(rule: dict[str, Any]) -> list[int]:
    return [each["port"] for each in rule["ports"]]


def egress() -> dict[str, dict[str, Any]]:
    return {name: spec for name, spec in of("NetworkPolicy").items() if "egress" in spec}


def reach(target: str) -> set[str]:
    """The duties whose pods may connect there."""
    selector = egress()[f"regworkers-to-{target}"]["podSelector"]
    return {duty for duty in DUTIES if selects(selector, {DUTY: duty})}


def test_no_policy_allows_every_address_or_every_port() -> None:
    (closed,) = (spec for spec in of("NetworkPolicy").values() if len(spec) == 2)
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, spec in egress().items():
        assert spec["policyTypes"] == ["Egress"], name
        for rule in spec["egress"]:
            assert rule["to"] and rule["ports"], name
            for peer in rule["to"]:
                block = peer.get("ipBlock", {"cidr": "environment.yaml"})
                private = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"}
                assert block["cidr"] == "environment.yaml" or private <= set(block["except"]), name


def test_each_duty_reaches_what_its_work_needs_and_nothing_else() -> None:
    documents = {role: json.dumps(role_policy(role, PLACEHOLDERS)) for role in DUTIES}
    users = set(json.loads((DEPLOY / "mongodb-roles.json").read_text(encoding="utf-8")))
    assert reach("aws") == DUTIES
    assert reach("kafka") == {role for role, text in documents.items() if "kafka-cluster:" in text}
    assert reach("services") == {role for role in DUTIES if "services" in ROLES[role]}
    # Not the function's nor those of the webserver, and the user that sets everything up has built-in roles.
    assert reach("mongodb") == (users | {"provision"}) - {"desk", "eligibility", "web"}
    assert reach("postgres") == RUNS | {"sensors"}
    assert reach("redis") == {"sensors", "selection", "operations", "provision"}
    assert reach("internet") == {"sensors", "selection", "operations"}
    assert reach("web") == set() and selects(
        egress()["regworkers-to-web"]["podSelector"], TEMPLATES["regworkers-alerts"]["metadata"]["labels"]
    )


def test_only_webservers_and_daemon_reach_the_api_of_kubernetes() -> None:
    selector = egress()["regworkers-web-to-its-own"]["podSelector"]
    assert all(selects(selector, {"component": each}) for each in COMPONENTS)
    assert not [name for name, each in TEMPLATES.items() if selects(selector, each["metadata"]["labels"])]


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"dagster-proxy"}))
def test_a_pods_label_is_the_duty_of_its_account(name: str) -> None:
    template = TEMPLATES[name]
    assert template["spec"]["serviceAccountName"] == f"regworkers-{template['metadata']['labels'][DUTY]}"
