"""The runs of a drain, as the instance knows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from regworkers_core.settings import DrainSettings
from regworkers_dagster.drains.life import Dead, DrainRun
from regworkers_dagster.tags import DRAIN_TAG

_RECENT_RUNS = 10
ACTIVE = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def drain_runs(
    instance: dg.DagsterInstance,
    drain: str,
    settings: DrainSettings,
    now: float,
    named: Iterable[str] = (),
) -> list[DrainRun]:
    """The runs of a drain, however they were launched, that have not ended for Dagster, and those that `named` has the
    ids of, as far as they are runs of Dagster; `now` in epoch seconds.
    """
    active = dg.RunsFilter(tags={DRAIN_TAG: drain}, statuses=list(ACTIVE))
    records = {record.dagster_run.run_id: record for record in instance.get_run_records(active)}
    if others := sorted(set(named) - set(records)):
        found = instance.get_run_records(dg.RunsFilter(run_ids=others))
        records |= {record.dagster_run.run_id: record for record in found}
    return [_drain_run(record, drain, settings, now) for record in records.values()]


def report_dead(instance: dg.DagsterInstance, dead: Dead) -> bool:
    """Mark the run as failed; False when it is none of Dagster's, or has ended meanwhile."""
    run = instance.get_run_by_id(dead.run_id)
    if run is None or run.is_finished:
        return False
    instance.report_run_failed(run, f"Reported as failed by the drain's sensor: {dead.why}.")
    return True


def crashes_in_a_row(
    instance: dg.DagsterInstance, tags: Mapping[str, str], now: float, *, job_name: str | None = None
) -> tuple[int, float]:
    """How many of the latest runs with these tags failed one after the other, and seconds since the last of
    them ended.
    """
    filters = dg.RunsFilter(job_name=job_name, tags=dict(tags), statuses=list(ENDED))
    records = instance.get_run_records(filters, limit=_RECENT_RUNS)
    failed = 0
    for record in records:
        if record.dagster_run.status is not dg.DagsterRunStatus.FAILURE:
            break
        failed += 1
    if not failed:
        return 0, 0.0
    ended = max(record.end_time or record.update_timestamp.timestamp() for record in records[:failed])
    return failed, now - ended


def _drain_run(record: dg.RunRecord, drain: str, settings: DrainSettings, now: float) -> DrainRun:
    run = record.dagster_run
    config: Any = run.run_config
    for part in ("ops", drain, "config"):
        config = config.get(part, {}) if isinstance(config, dict) else {}

    def limit(name: str, default: float) -> float:
        value = config.get(name) if isinstance(config, dict) else None
        return default if value is None else float(value)

    return DrainRun(
        run.run_id,
        ended=run.status not in ACTIVE,
        seconds_running=None if record.start_time is None else now - record.start_time,
        idle_seconds=limit("idle_seconds", settings.idle_seconds),
        max_seconds=limit("max_seconds", settings.max_seconds),
    )
