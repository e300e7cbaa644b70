"""Tags of runs, the audit log of those that people launch, and what Dagster knows of itself: daemons, ticks, failed
runs. `dagster.yaml` limits the concurrent runs of one value of a tag.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any

import dagster as dg

from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.snapshot import FailedRun, SchedulerState, TickState
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.health.scheduler import (
    LOOKED_AT,
    MATERIALIZE,
    MOST_RUNS,
    NO_RUN,
    REFUSED_TAG,
    LastTick,
    Work,
    look_back_seconds,
    schedule_state,
    still_failed,
    work_of,
)
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings
from regworkers_dagster.internals import CheckError

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

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
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


# Dagster's interval for a sensor that sets none.
_SENSOR_SECONDS = 30.0
_ON = ("RUNNING", "DECLARED_IN_CODE")


def scheduler_of(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition | None, now: float
) -> SchedulerState:
    """The state of the daemons, ticks and runs in the instance's storage. `repository` names the sensors and schedules,
    `now` is in epoch seconds.
    """
    beats = instance.get_daemon_heartbeats()
    return SchedulerState(
        daemons={
            kind: iso(beats[kind].timestamp) if kind in beats else None
            for kind in instance.get_required_daemon_types()
        },
        ticks=tuple(_ticks(instance, repository)) if repository is not None else (),
        failed_runs=failed_runs(instance, repository, now),
        queued_runs=instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])),
    )


def _ticks(instance: dg.DagsterInstance, repository: dg.RepositoryDefinition) -> Iterator[TickState]:
    """The last tick of each sensor and schedule that is on: switched on by hand, or by default and not switched off."""
    states = {state.instigator_name: state for state in instance.all_instigator_state()}
    for watcher in repository.sensor_defs:
        by_default = watcher.default_status is dg.DefaultSensorStatus.RUNNING
        state = states.get(watcher.name)
        if not _is_on(state, by_default):
            continue
        last, error = _last_tick(instance, state)
        data: Any = state and state.instigator_data
        since = data.last_sensor_start_timestamp if data else None
        interval = float(watcher.minimum_interval_seconds or _SENSOR_SECONDS)
        yield TickState(watcher.name, interval, _iso(last), error, _iso(since))
    for schedule in repository.schedule_defs:
        by_default = schedule.default_status is dg.DefaultScheduleStatus.RUNNING
        state = states.get(schedule.name)
        if not _is_on(state, by_default):
            continue
        last, error = _last_tick(instance, state)
        data = state and state.instigator_data
        crons = schedule.cron_schedule
        cron = crons if isinstance(crons, str) else next(iter(crons))
        yield schedule_state(schedule.name, cron, last, error, data.start_timestamp if data else None)


def _is_on(state: Any, by_default: bool) -> bool:
    """Whether it runs. Before the daemon has seen it there is no state, and its default counts."""
    return by_default if state is None else state.status.value in _ON


def _last_tick(instance: dg.DagsterInstance, state: Any) -> LastTick:
    if state is None:
        return LastTick()
    last = next(iter(instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)), None)
    if last is None:
        return LastTick()
    return LastTick(last.timestamp, (last.error.cls_name or "error") if last.error else "")


def _iso(at: float | None) -> str | None:
    return None if at is None else iso(at)


def failed_runs(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition | None, now: float
) -> tuple[FailedRun, ...]:
    """Runs that failed, each the last that ended of its work, under the job whose work they did."""
    jobs_of = jobs_of_assets(repository)

    def counted(filters: dg.RunsFilter) -> Iterator[FailedRun]:
        for record in instance.get_run_records(filters, limit=MOST_RUNS):
            run = record.dagster_run
            if REFUSED_TAG not in run.tags:
                ended = record.end_time or record.update_timestamp.timestamp()
                yield FailedRun(
                    run.run_id, work_of_run(run, jobs_of), iso(ended), run.tags.get(PARTITION_TAG, "")
                )

    failed = dict.fromkeys(
        run
        for job in (None, *LOOKED_AT)
        for run in counted(
            dg.RunsFilter(
                job_name=job,
                statuses=[dg.DagsterRunStatus.FAILURE],
                updated_after=datetime.fromtimestamp(now - look_back_seconds(job or ""), UTC),
            )
        )
    )
    latest: dict[Work, str] = {}
    for job, partition in dict.fromkeys((run.job, run.partition) for run in failed):
        tags = {PARTITION_TAG: partition} if partition else {}
        ended = [
            run
            for name in (job, MATERIALIZE)
            for run in counted(dg.RunsFilter(job_name=name, tags=tags, statuses=list(ENDED)))
            if run.job == job
        ]
        latest[job, partition] = max(ended, key=lambda run: run.ended_at, default=NO_RUN).run_id
    return still_failed([*failed], latest)


def scheduler_here(context: dg.OpExecutionContext) -> SchedulerState:
    """The state of Dagster as a run reads it from its own instance. Raises UsageError on one without a daemon."""
    repository = None
    # A run in the process of its caller has no code location.
    with suppress(CheckError):
        repository = context.repository_def
    found = scheduler_of(context.instance, repository, time.time())
    if not any(found.daemons.values()):
        raise UsageError("no daemon was ever started on this instance of Dagster")
    return found
