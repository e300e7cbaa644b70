"""What Dagster knows of itself: daemons, ticks of what is switched on, runs that failed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from regworkers_core.domain.snapshot import SELECTION_JOBS, FailedRun, SchedulerState, TickState
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.health.scheduler import (
    MOST_RUNS,
    REFUSED_TAG,
    Work,
    look_back_seconds,
    schedule_state,
    still_failed,
)
from regworkers_dagster.drains.runs import ENDED
from regworkers_dagster.tags import PARTITION_TAG

# What a sensor without an interval of its own has.
_SENSOR_SECONDS = 30.0
_ON = ("RUNNING", "DECLARED_IN_CODE")


def scheduler_of(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition | None, now: float
) -> SchedulerState:
    """From the instance's storage; `repository` says what sensors and schedules there are, `now` is in epoch
    seconds.
    """
    beats = instance.get_daemon_heartbeats()
    return SchedulerState(
        daemons={
            kind: iso(beats[kind].timestamp) if kind in beats else None
            for kind in instance.get_required_daemon_types()
        },
        ticks=tuple(_ticks(instance, repository)) if repository is not None else (),
        failed_runs=_failed_runs(instance, now),
        queued_runs=instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])),
    )


def _ticks(instance: dg.DagsterInstance, repository: dg.RepositoryDefinition) -> Iterator[TickState]:
    """One of each that is switched on: by hand, or by its definition as long as nobody switched it off."""
    states = {state.instigator_name: state for state in instance.all_instigator_state()}
    for sensor in repository.sensor_defs:
        by_default = sensor.default_status is dg.DefaultSensorStatus.RUNNING
        state = states.get(sensor.name)
        if not _is_on(state, by_default):
            continue
        last, error = _last_tick(instance, state)
        data: Any = state and state.instigator_data
        since = data.last_sensor_start_timestamp if data else None
        interval = float(sensor.minimum_interval_seconds or _SENSOR_SECONDS)
        yield TickState(sensor.name, interval, _iso(last), error, _iso(since))
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
    """Before the daemon has seen it there is no state, and what its definition says counts."""
    return by_default if state is None else state.status.value in _ON


def _last_tick(instance: dg.DagsterInstance, state: Any) -> tuple[float | None, str]:
    if state is None:
        return None, ""
    last = next(iter(instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)), None)
    if last is None:
        return None, ""
    # Without the error's text, which may print anything.
    return last.timestamp, (last.error.cls_name or "error") if last.error else ""


def _iso(at: float | None) -> str | None:
    return None if at is None else iso(at)


def _failed_runs(instance: dg.DagsterInstance, now: float) -> tuple[FailedRun, ...]:
    failed = list(
        dict.fromkeys(
            _failed(record)
            for job in (None, *SELECTION_JOBS)
            for record in instance.get_run_records(
                dg.RunsFilter(
                    job_name=job,
                    statuses=[dg.DagsterRunStatus.FAILURE],
                    updated_after=datetime.fromtimestamp(now - look_back_seconds(job or ""), UTC),
                ),
                limit=MOST_RUNS,
            )
            if _counts(record)
        )
    )
    latest: dict[Work, str] = {}
    for job, partition in dict.fromkeys((run.job, run.partition) for run in failed):
        tags = {PARTITION_TAG: partition} if partition else {}
        ended = dg.RunsFilter(job_name=job, tags=tags, statuses=list(ENDED))
        for record in filter(_counts, instance.get_run_records(ended, limit=MOST_RUNS)):
            latest.setdefault((job, partition), record.dagster_run.run_id)
    return still_failed(failed, latest)


def _counts(record: dg.RunRecord) -> bool:
    """One that was refused neither is a trouble nor ends one."""
    return REFUSED_TAG not in record.dagster_run.tags


def _failed(record: dg.RunRecord) -> FailedRun:
    run = record.dagster_run
    ended = record.end_time or record.update_timestamp.timestamp()
    return FailedRun(run.run_id, run.job_name, iso(ended), run.tags.get(PARTITION_TAG, ""))
