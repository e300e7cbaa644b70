"""Deletes runs that ended long ago, with their events and logs: Dagster itself keeps them for ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import dagster as dg

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@dataclass(frozen=True, slots=True)
class Pruned:
    """`runs` found and (unless it was a dry run) deleted; `more` when the cap left some for the next time."""

    runs: int
    more: bool
    dry_run: bool


def prune(
    instance: dg.DagsterInstance, *, before: datetime, batch_runs: int, max_runs: int, dry_run: bool
) -> Pruned:
    """Delete up to `max_runs` ended runs created before `before`, oldest first, `batch_runs` at a time.

    Runs that have not ended are never touched, and the latest run of each job stays, so that the assets of
    a quiet system keep their last numbers.
    """
    filters = dg.RunsFilter(statuses=list(ENDED), created_before=before)
    kept: set[str] = set()
    if dry_run:
        found = len(_old_runs(instance, filters, max_runs + 1, kept))
        return Pruned(min(found, max_runs), found > max_runs, dry_run)
    deleted = 0
    # One more than the cap is looked for, to tell whether any is left.
    while victims := _old_runs(instance, filters, min(batch_runs, max_runs + 1 - deleted), kept):
        for run_id in victims:
            if deleted == max_runs:
                return Pruned(deleted, True, dry_run)
            _delete(instance, run_id)
            deleted += 1
    return Pruned(deleted, False, dry_run)


def _old_runs(instance: dg.DagsterInstance, filters: dg.RunsFilter, limit: int, kept: set[str]) -> list[str]:
    """Up to `limit` ids, oldest first; the latest run of each job goes to `kept` instead."""
    while True:
        known = len(kept)
        records = instance.get_run_records(filters, limit=limit + known, ascending=True)
        kept.update(_latest_run(instance, job) for job in {record.dagster_run.job_name for record in records})
        found = [r.dagster_run.run_id for r in records if r.dagster_run.run_id not in kept]
        # A page of nothing but kept runs says little about what follows them.
        if found or len(kept) == known:
            return found[:limit]


def _latest_run(instance: dg.DagsterInstance, job: str) -> str:
    return instance.get_run_records(dg.RunsFilter(job_name=job), limit=1)[0].dagster_run.run_id


def _delete(instance: dg.DagsterInstance, run_id: str) -> None:
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    # SQLite keeps a file per run, which deleting the run empties and leaves behind.
    shard = getattr(instance.event_log_storage, "path_for_shard", None)
    if shard is not None:
        Path(shard(run_id)).unlink(missing_ok=True)
