"""What Dagster knows of itself: daemons, ticks of what is switched on, runs that failed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from regworkers_core.domain.snapshot import SELECTION_JOBS, FailedRun, SchedulerState, TickState
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.snapshot.cron import longest_gap_seconds
from regworkers_core.operations.snapshot.scheduler import (
    MOST_RUNS,
    Work,
    look_back_seconds,
    standing,
)
from regworkers_dagster.draining.runs import ENDED
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
    intervals: dict[str, float] = {
        sensor.name: float(sensor.minimum_interval_seconds or _SENSOR_SECONDS)
        for sensor in repository.sensor_defs
    }
    by_default = {
        sensor.name
        for sensor in repository.sensor_defs
        if sensor.default_status is dg.DefaultSensorStatus.RUNNING
    }
    for schedule in repository.schedule_defs:
        crons = schedule.cron_schedule
        intervals[schedule.name] = longest_gap_seconds(crons if isinstance(crons, str) else next(iter(crons)))
        if schedule.default_status is dg.DefaultScheduleStatus.RUNNING:
            by_default.add(schedule.name)
    states = {state.instigator_name: state for state in instance.all_instigator_state()}
    for name, interval in intervals.items():
        state = states.get(name)
        if state is None:
            if name in by_default:
                yield TickState(name, interval, None)
            continue
        if state.status.value not in _ON:
            continue
        last = next(iter(instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)), None)
        if last is None:
            yield TickState(name, interval, None)
            continue
        # Without the error's text, which may print anything.
        error = (last.error.cls_name or "error") if last.error else ""
        yield TickState(name, interval, iso(last.timestamp), error)


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
        )
    )
    latest: dict[Work, str] = {}
    for job, partition in dict.fromkeys((run.job, run.partition) for run in failed):
        tags = {PARTITION_TAG: partition} if partition else {}
        ended = dg.RunsFilter(job_name=job, tags=tags, statuses=list(ENDED))
        for record in instance.get_run_records(ended, limit=1):
            latest[job, partition] = record.dagster_run.run_id
    return standing(failed, latest)


def _failed(record: dg.RunRecord) -> FailedRun:
    run = record.dagster_run
    ended = record.end_time or record.update_timestamp.timestamp()
    return FailedRun(run.run_id, run.job_name, iso(ended), run.tags.get(PARTITION_TAG, ""))
