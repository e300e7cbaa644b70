"""The first result of every asset check: without it a new deployment has checks without a result until the night, or
until the next quarter. Sensors evaluate some of them with each tick; a run per duty evaluates the others, once, and
again if it died. Later a result is repeated after each materialisation of its asset, because the UI hides it.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from regworkers_core.engine.queue import QUEUE_SERVICE
from regworkers_core.replication.enqueue.stream_probe import stream_lag
from regworkers_core.runtime import Runtime
from regworkers_dagster import analytics, replication
from regworkers_dagster.drains.observing import has_ended, is_outdated, repeated
from regworkers_dagster.drains.sensing import Answer, ticking
from regworkers_dagster.factories import POD_TAG, Declared, asset_job, sensor
from regworkers_dagster.operations import upkeep
from regworkers_dagster.replication import RECONCILE_ENTRIES
from regworkers_dagster.selection import automation as selection

Steps = Sequence[dg.AssetsDefinition]
# One run each, because each needs the rights and the size of the job that it is named after here.
_ALONE: dict[str, Sequence[dg.AssetChecksDefinition]] = {
    "draw": (*selection.OF_A_DRAW, selection.selections_kept),
    "check_archive": (analytics.one_row_per_id,),
}
# A run of the job itself: `parity` can repair, which no second job offers, and what has an asset materialises it.
_OF_JOBS: dict[str, Steps] = {
    RECONCILE_ENTRIES.name: (replication.parity,),
    **{job: (made,) for job, made in upkeep.ASSETS.items()},
}
_RUNS: dict[str, Steps] = {**_OF_JOBS, **_ALONE}
_EVERY_SECONDS = 30
# After a run that died: one that dies each time is not started at each tick.
_AGAIN_SECONDS = 120.0

FIRST_CHECKS = asset_job(
    "first_checks",
    dg.AssetSelection.checks(*(step for steps in _ALONE.values() for step in steps)),
    # Not excluded by the nightly runs: all of them only read.
    tags={},
    # It evaluates checks of draws and of the archive.
    declared=Declared("operations", "large", "system"),
    description="Evaluates checks that have no result yet. The sensor of the same name launches it with those that "
    "are missing.",
)


@ticking
def first_checks_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Read which checks have a result or are being evaluated, and launch the others."""
    keys = [key for steps in _RUNS.values() for step in steps for key in step.check_keys]
    known = context.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    ended = {key for key, last in known.items() if has_ended(last)}
    again = [
        repeated(known[key]) for key in keys if key in ended and is_outdated(context.instance, known[key])
    ]
    begun = {key: known[key] for key in known.keys() - ended}
    missing = set(keys) - known.keys() | _left_behind(context.instance, begun)
    if not missing:
        being = f"{len(begun)} checks have a run, or wait for another one after it died"
        reason = dg.SkipReason(being if begun else "every check has a result")
        return dg.SensorResult(asset_events=again, skip_reason=reason) if again else reason
    silent = runtime.probe("dynamodb", QUEUE_SERVICE, "mongo")
    if silent is not None:
        return dg.SkipReason(f"{silent} does not answer; {len(missing)} checks have no result")
    if replication.PARITY.key in missing and _is_behind(runtime):
        # It would find what is only late, and open an incident.
        missing.remove(replication.PARITY.key)
    wanted = {job: [step for step in steps if missing & set(step.check_keys)] for job, steps in _RUNS.items()}
    return dg.SensorResult(
        run_requests=[_request(context.repository_def, job, steps) for job, steps in wanted.items() if steps],
        asset_events=again,
    )


def _left_behind(
    instance: dg.DagsterInstance, begun: Mapping[dg.AssetCheckKey, Any]
) -> set[dg.AssetCheckKey]:
    """The checks whose run ended, or is gone, without a result, some time ago."""
    runs = {last.run_id for last in begun.values()}
    records = instance.get_run_records(dg.RunsFilter(run_ids=sorted(runs))) if runs else ()
    alive = {each.dagster_run.run_id for each in records if not each.dagster_run.is_finished}
    due = time.time() - _AGAIN_SECONDS
    return {key for key, last in begun.items() if last.run_id not in alive and last.create_timestamp <= due}


def _is_behind(runtime: Runtime) -> bool:
    """Whether changes wait for replication, or that could not be read. The next tick asks again."""
    unread = stream_lag(runtime.streams, runtime.leases, now=runtime.clock())
    waiting = runtime.queue(runtime.names.replication_queue).depth().total
    return bool(waiting) or unread is None or unread > 0


def _request(repository: Any, like: str, steps: Steps) -> dg.RunRequest:
    return dg.RunRequest(
        job_name=like if like in _OF_JOBS else FIRST_CHECKS.name,
        tags={POD_TAG: repository.get_job(like).run_tags[POD_TAG]},
        asset_selection=[key for step in steps for key in step.keys],
        asset_check_keys=[key for step in steps for key in step.check_keys],
    )


SENSORS = (
    sensor(
        FIRST_CHECKS.name,
        first_checks_tick,
        jobs=[FIRST_CHECKS, RECONCILE_ENTRIES, *upkeep.JOBS],
        every_seconds=_EVERY_SECONDS,
        description="Launches the checks that have no result yet: on a new instance of Dagster, after a release "
        "that adds one, and two minutes after a run that died before it had them. Repeats results that are older than "
        "their asset.",
    ),
)
