"""What a cluster gets of this release, as the program in render/ prints it.

`make rollout-render` builds the program and names its folder in REGWORKERS_TEST_ROLLOUT.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import yaml

from tests.infrastructure.deploy.pods import ENVIRONMENT, KUBERNETES, NAMESPACE, RELEASE, entered

FOLDER = Path(os.environ.get("REGWORKERS_TEST_ROLLOUT", ""))
# A folder or an archive, `published`, or `none`.
CHART = os.environ.get("REGWORKERS_TEST_CHART", "none")
REPOSITORY = "https://dagster-io.github.io/helm/"


@dataclass(frozen=True)
class Rendered:
    """`chart` has name and version of Dagster's chart, and is empty without it; `wrong` is what a strict decoder
    refused, and `foreign` are the kinds that Kubernetes itself does not have.
    """

    chart: str
    objects: list[dict[str, Any]]
    foreign: list[str]
    wrong: list[str]

    def of(self, *kinds: str) -> dict[str, dict[str, Any]]:
        """The objects of these kinds, by name. Those of `kubectl create` have a prefix of a name."""
        return {
            each["metadata"].get("name") or each["metadata"]["generateName"]: each
            for each in self.objects
            if each["kind"] in kinds
        }

    def templates(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every pod's template, by the name of what makes it."""
        for name, each in self.of("Deployment", "DaemonSet", "Job", "CronJob").items():
            spec = each["spec"]
            yield name, spec.get("jobTemplate", {}).get("spec", spec)["template"]


def render(*arguments: str | Path) -> Rendered:
    """Raises CalledProcessError when kustomize or Helm refuses what it is given; stderr says why."""
    command = [str(FOLDER / "render"), *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Rendered(**json.loads(done.stdout))


def rollout(folder: Path) -> Rendered:
    """Everything that docs/kubernetes.md applies, creates and installs, by way of a copy below `folder`."""
    copy = entered(folder, ENVIRONMENT)
    ours = [copy, copy / "jobs" / "migrate.yaml", copy / "jobs" / "provision.yaml", copy / "residents"]
    if CHART == "none":
        return render(*ours)
    chart = _published() if CHART == "published" else CHART
    values = KUBERNETES / "values.yaml"
    release = ["-release", RELEASE, "-namespace", NAMESPACE]
    return render("-chart", chart, "-values", values, *release, *ours)


def _published() -> Path:
    """The archive of the chart at the version of `dagster`. Raises HTTPError when its repository cannot be read, and
    AssertionError when the archive is not what the repository's index says.
    """
    version = metadata.version("dagster")
    path = FOLDER / f"dagster-{version}.tgz"
    if not path.exists():
        index = httpx.get(urljoin(REPOSITORY, "index.yaml"), follow_redirects=True).raise_for_status().text
        entries = yaml.load(index, yaml.CSafeLoader)["entries"]["dagster"]
        (entry,) = (each for each in entries if each["version"] == version)
        address = urljoin(REPOSITORY, entry["urls"][0])
        archive = httpx.get(address, follow_redirects=True).raise_for_status().content
        assert hashlib.sha256(archive).hexdigest() == entry["digest"], address
        path.write_bytes(archive)
    return path


def of_keda(kind: str) -> dict[str, Any]:
    """The schema of one of KEDA's kinds, from its own module. It refuses every field that it does not list."""
    module = Path(json.loads((FOLDER / "keda.json").read_text(encoding="utf-8"))["Dir"])
    path = module / "config" / "crd" / "bases" / f"keda.sh_{kind.lower()}s.yaml"
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    (version,) = (each for each in definition["spec"]["versions"] if each["name"] == "v1alpha1")
    schema = version["schema"]["openAPIV3Schema"]
    _close(schema)
    # Kubernetes itself checks these.
    schema["properties"]["metadata"]["additionalProperties"] = True
    return dict(schema)


def _close(schema: Any) -> None:
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and not schema.get(
            "x-kubernetes-preserve-unknown-fields"
        ):
            schema.setdefault("additionalProperties", False)
        for each in schema.values():
            _close(each)
