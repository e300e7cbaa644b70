"""What a job declares where it is defined: its duty, its size, and who launches it. The tags of its runs follow, and
so identity and size of their pods on Kubernetes: the tag `dagster-k8s/config` has priority over the instance's and the
code location's config. Outside Kubernetes nothing reads it.

A job has the service account and the secret of one duty. A run of no job here has the instance's account
`regworkers-run`, which can only write its logs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from regworkers_core.operation import Duty, Size

POD_TAG = "dagster-k8s/config"
# All tags that change a run's pod begin with it.
POD_TAGS = "dagster-k8s/"
# On every job, and so on its runs: what it belongs to, and who launches it.
DUTY_TAG = "regworkers/duty"
FOR_TAG = "regworkers/for"


Who = Literal["manager", "on-call", "system"]


class Declared(NamedTuple):
    """What a job declares. `duty` is a role in regworkers_core/infrastructure/policies."""

    duty: Duty
    size: Size = "small"
    # Who launches it. What a manager may launch is for managers, also if a sensor or a schedule starts it as well.
    who: Who = "on-call"


@dataclass(frozen=True, slots=True)
class PodSize:
    """Resources of a pod, as Kubernetes writes them. The settings bound the memory of draws, reconciliations and the
    archive, which then spill."""

    # A request.
    cpu: str
    # A request.
    memory: str
    memory_limit: str
    # The space for temporary files: request and limit.
    disk: str


SMALL = PodSize("250m", "384Mi", "1Gi", "1Gi")
DRAIN = PodSize("500m", "512Mi", "1Gi", "1Gi")
# Reports with figures, and uploaded files.
REPORT = PodSize("500m", "1Gi", "2Gi", "4Gi")
# A draw of 10 million entries takes 828 MiB and 5 GB of disk (benchmarks/README.md).
LARGE = PodSize("2", "2Gi", "3Gi", "20Gi")
# The smallest first.
_SIZE_OF: dict[Size, PodSize] = {"small": SMALL, "drain": DRAIN, "report": REPORT, "large": LARGE}


def tags_of(declared: Declared) -> dict[str, str]:
    """The tags of a job with this declaration."""
    return {DUTY_TAG: declared.duty, FOR_TAG: declared.who, POD_TAG: _pod(declared.duty, declared.size)}


def _pod(duty: str, word: Size) -> str:
    size = _SIZE_OF[word]
    container = {
        "resources": {
            "requests": {"cpu": size.cpu, "memory": size.memory, "ephemeral-storage": size.disk},
            "limits": {"memory": size.memory_limit, "ephemeral-storage": size.disk},
        },
        "env_from": [{"secret_ref": {"name": f"regworkers-{duty}"}}],
    }
    config = {
        "container_config": container,
        "pod_spec_config": {"service_account_name": f"regworkers-{duty}"},
        # deploy/kubernetes/network-policies.yaml lets each duty reach what it needs.
        "pod_template_spec_metadata": {"labels": {"regworkers/duty": duty}},
    }
    return json.dumps(config)


def size_of(tags: Mapping[str, str]) -> int:
    """The place of a job's pod among the sizes, the smallest first, by the job's tags."""
    return [_pod(tags[DUTY_TAG], size) for size in _SIZE_OF].index(tags[POD_TAG])
