"""Identity and size of each job's pod on Kubernetes: the tag `dagster-k8s/config`, which has priority over the
instance's and the code location's config. Outside Kubernetes nothing reads it.

A job has the service account and the secret of one duty. A run of no job here has the instance's account
`regworkers-run`, which can only write its logs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from regworkers_core.acts import every_operation
from regworkers_core.flows import DRAINS
from regworkers_core.operation import Size

POD_TAG = "dagster-k8s/config"
# All tags that change a run's pod begin with it.
POD_TAGS = "dagster-k8s/"


@dataclass(frozen=True, slots=True)
class PodSize:
    """Requests of CPU and memory, the limit of memory, and the disk for temporary files (request and limit), as
    Kubernetes writes them. The settings bound the memory of draws, reconciliations and the archive, which then spill.
    """

    cpu: str
    memory: str
    memory_limit: str
    disk: str


SMALL = PodSize("250m", "384Mi", "1Gi", "1Gi")
DRAIN = PodSize("500m", "512Mi", "1Gi", "1Gi")
# Reports with figures, and uploaded files.
REPORT = PodSize("500m", "1Gi", "2Gi", "4Gi")
# A draw of 10 million entries takes 828 MiB and 5 GB of disk (benchmarks/README.md).
LARGE = PodSize("2", "2Gi", "3Gi", "20Gi")
_SIZES = (SMALL, DRAIN, REPORT, LARGE)
_SIZE_OF: dict[Size, PodSize] = {"small": SMALL, "drain": DRAIN, "report": REPORT, "large": LARGE}

# Every other job by its duty, which is a role in regworkers_core/infrastructure/policies. Operations and drains name
# their own.
JOBS: dict[str, dict[PodSize, tuple[str, ...]]] = {
    "replication": {
        DRAIN: ("backfill_entries",),
        LARGE: (
            "reconcile_entries",
            "drill_recovery",
            "undo_acceptance",
            "verify_entries",
        ),
    },
    "selection": {
        SMALL: ("check_selection",),
        REPORT: ("make_receipt",),
        LARGE: (
            "draw",
            "eligibility_report",
            "export_draw",
            "publish_draw_page",
            "simulate_draw",
            "top_up",
        ),
    },
    "analytics": {
        REPORT: ("campaign_funnel",),
        LARGE: ("archive_events", "check_archive"),
    },
    "operations": {
        SMALL: (
            "acknowledge_alert",
            "check_certificate",
            "doctor",
            "erase_entry",
            "find_resources",
            "prune_runs",
            "repeat_erasures",
            "show_config",
        ),
        # It evaluates checks of draws and of the archive.
        LARGE: ("first_checks",),
        REPORT: ("housekeeping", "weekly_review", "monthly_review", "quarterly_review"),
    },
}
for _spec in DRAINS:
    _sizes = JOBS[_spec.duty]
    _sizes[DRAIN] = (*_sizes.get(DRAIN, ()), _spec.job)
_PODS = {job: (duty, size) for duty, sizes in JOBS.items() for size, jobs in sizes.items() for job in jobs}
_PODS |= {each.job: (each.duty, _SIZE_OF[each.size]) for each in every_operation() if each.job}
JOB_NAMES = frozenset(_PODS)
# What a manager may launch: every step of a campaign (docs/campaigns.md).
MANAGERS_JOBS = frozenset(
    {
        "campaign_funnel",
        "draw",
        "eligibility_report",
        "export_draw",
        "make_receipt",
        "publish_draw_page",
        "simulate_draw",
        "top_up",
        *(each.job for each in every_operation() if each.job and each.role == "manager"),
    }
)


def duty_of(job: str) -> str:
    """The duty of a job. Raises LookupError for a job that is no operation and not in `JOBS`."""
    if job not in _PODS:
        raise LookupError(f"job {job} has no pod: add it to JOBS in regworkers_dagster/pods.py")
    return _PODS[job][0]


def pod_of(job: str) -> dict[str, str]:
    """The tag of a job's runs. Raises LookupError as `duty_of`."""
    duty, size = duty_of(job), _PODS[job][1]
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
    return {POD_TAG: json.dumps(config)}


def pod_of_assets(jobs_of_each: Iterable[Iterable[str]]) -> dict[str, str]:
    """The tag for assets that are materialised without their job: of the largest job that has all of them. Empty when
    there is none: then the run has no rights.
    """
    common = set.intersection(*(set(jobs) & set(_PODS) for jobs in jobs_of_each))
    return pod_of(max(sorted(common), key=lambda job: _SIZES.index(_PODS[job][1]))) if common else {}
