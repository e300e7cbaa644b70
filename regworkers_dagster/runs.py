"""Tags of runs, and the audit log of those that people launch. `dagster.yaml` limits the concurrent runs of one value
of a tag.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import dagster as dg

from regworkers_core.operations.health.scheduler import work_of
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings

# All of these begin with it. The web application accepts none of them from a client.
OUR_TAGS = "regworkers/"
# On every drain, started by a sensor or by hand: sensors find active drains by it.
DRAIN_TAG = "regworkers/drain"
# On reconcile and backfill: one of each at a time.
OPERATION_TAG = "regworkers/operation"
# On every retry of a market: `<campaignId>:<marketId>:<phase>`.
MARKET_TAG = "regworkers/market"
# On runs launched in the UI: the name of the person. The web application sets it.
OPERATOR_TAG = "regworkers/operator"
# Dagster's own, on every run of a partition: for a draw, the campaign's id.
PARTITION_TAG = "dagster/partition"
PARTITION_RANGE_TAG = "dagster/asset_partition_range_start"
# Dagster's own, in seconds: its run monitoring terminates a run that takes longer, and marks it as failed.
MAX_RUNTIME_TAG = "dagster/max_runtime"

# When a worker dies, another run resumes at the unfinished step. A step that fails says why and is not retried.
RESUMED = {
    "dagster/max_retries": "3",
    "dagster/retry_strategy": "FROM_FAILURE",
    "dagster/retry_on_asset_or_op_failure": "false",
}

_PROGRESS_SECONDS = 30.0


@cache
def short_run() -> dict[str, str]:
    """For a job that takes minutes at any volume: one that takes longer hangs. Reads the settings."""
    return {MAX_RUNTIME_TAG: f"{load_settings().dagster.max_run_seconds:g}"}


@cache
def long_run() -> dict[str, str]:
    """For a job whose time grows with a campaign, the archive or a list. Reads the settings. Drains, backfill and
    reconcile have neither tag: heartbeats, leases and progress show whether they hang.
    """
    return {MAX_RUNTIME_TAG: f"{load_settings().dagster.max_long_run_seconds:g}"}


# Dagster sets one of them on each run that a sensor or a schedule requested.
_AUTOMATIC = ("dagster/sensor_name", "dagster/schedule_name")


def is_by_hand(run: dg.DagsterRun) -> bool:
    """Whether a person launched the run, not a sensor or schedule. A re-executed run copies the tags of the one before,
    and a client can send any tag: the tag with the person's name decides.
    """
    return OPERATOR_TAG in run.tags or not any(tag in run.tags for tag in _AUTOMATIC)


def who_launched(run: dg.DagsterRun) -> str:
    """The person whom the web application named; without one (`dagster job execute`), the run's id."""
    return run.tags.get(OPERATOR_TAG) or f"dagster {run.run_id}"


@contextmanager
def launched_by_hand(
    run: dg.DagsterRun,
    runtime: Runtime,
    what: str,
    target: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    dry_run: bool = False,
) -> Iterator[dict[str, Any]]:
    """Record a run that a person launched in the audit log, with its id among the arguments; the block fills the
    result. Dry runs and what sensors and schedules start are not recorded.

    Raises TransientFailure before the block runs when MongoDB does not answer.
    """
    if dry_run or not is_by_hand(run):
        yield {}
        return
    given = {**(arguments or {}), "runId": run.run_id}
    with runtime.operator_actions.recorded(what, target, given, who=who_launched(run)) as result:
        yield result


def jobs_of_assets(repository: dg.RepositoryDefinition | None) -> dict[str, list[str]]:
    """The jobs that run each asset."""
    found: dict[str, list[str]] = {}
    for job in repository.get_all_jobs() if repository else ():
        for key in job.asset_layer.executable_asset_keys:
            found.setdefault(key.to_user_string(), []).append(job.name)
    return found


def work_of_run(run: dg.DagsterRun, jobs_of: Mapping[str, Sequence[str]]) -> str:
    """The job whose work the run does, also if *Materialize* started it."""
    return work_of(run.job_name, (key.to_user_string() for key in run.asset_selection or ()), jobs_of)


def throttled(log: Callable[[str], None]) -> Callable[[str | Callable[[], str]], None]:
    """`log`, for progress: at most one line every half minute, because Dagster stores each line as an event. A function
    is called only for a line that is logged.
    """
    logged_at = time.monotonic()

    def show(text: str | Callable[[], str]) -> None:
        nonlocal logged_at
        if time.monotonic() - logged_at >= _PROGRESS_SECONDS:
            logged_at = time.monotonic()
            log(text if isinstance(text, str) else text())

    return show
