"""What Dagster loads: the table of contents. Reads the settings (files and environment, no network)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import dagster as dg

from regworkers_core import flows
from regworkers_core.acts import every_operation
from regworkers_dagster.analytics import archive, publishing
from regworkers_dagster.drains.running import automated
from regworkers_dagster.launching import job
from regworkers_dagster.operations import (
    first_checks,
    health,
    outcomes,
    pruning,
    upkeep,
)
from regworkers_dagster.pods import DUTY_TAG, FOR_TAG, POD_TAG, size_of
from regworkers_dagster.replication import assets, checks
from regworkers_dagster.replication import automation as replication
from regworkers_dagster.resources import connections
from regworkers_dagster.selection import assets as selection_assets
from regworkers_dagster.selection import automation as selection
from regworkers_dagster.selection import checks as selection_checks
from regworkers_dagster.selection import specs as selection_specs

_DESCRIBED = (*replication.DRAINS, *selection.DRAINS, *publishing.DRAINS)
DRAINS = (
    *_DESCRIBED,
    *(automated(spec) for spec in flows.DRAINS if spec not in [each.spec for each in _DESCRIBED]),
)

_SENSORS = [
    *(drain.sensor for drain in DRAINS),
    *replication.SENSORS,
    *selection.SENSORS,
    *publishing.SENSORS,
    *health.SENSORS,
    *first_checks.SENSORS,
    *outcomes.SENSORS,
]
_SCHEDULES = [
    *replication.SCHEDULES,
    *archive.SCHEDULES,
    *pruning.SCHEDULES,
    *upkeep.SCHEDULES,
]
_STARTED = {target.job_name for sensor in _SENSORS for target in sensor.targets}
_STARTED |= {each.job_name for each in _SCHEDULES}

_RECORDED = (
    assets.REPLICATION_QUEUE,
    publishing.CAMPAIGN_FUNNEL,
    *selection_specs.EXTERNAL,
    *selection_specs.STEPS,
)
_ASSETS = {spec.key.to_user_string(): spec for spec in _RECORDED}
OPERATIONS = [
    job(each, _ASSETS, _STARTED, selection_assets.event_of)
    for each in every_operation()
    if each.job and not each.check
]
defs = dg.Definitions(
    assets=[
        assets.DEMAND_TABLE,
        assets.REPLICATION_DLQ,
        assets.RECONCILE_RESULTS,
        *(drain.asset for drain in DRAINS),
        *selection_specs.EXTERNAL,
        *selection_assets.STEPS,
        publishing.ANALYTICS_QUEUE,
        publishing.ANALYTICS_DLQ,
        archive.archive_events,
        publishing.CAMPAIGN_FUNNEL,
        health.examine_system,
        *upkeep.ASSETS.values(),
    ],
    asset_checks=[
        checks.replication_dlq_empty,
        checks.dependencies_answer,
        checks.lag_within_objective,
        checks.parity,
        *selection_checks.OF_A_DRAW,
        *selection_checks.OF_QUEUES,
        selection_checks.selections_kept,
        archive.one_row_per_id,
        publishing.analytics_dlq_empty,
    ],
    jobs=[
        *(drain.job for drain in DRAINS),
        replication.RECONCILE_ENTRIES,
        checks.verify_entries,
        *selection.JOBS,
        archive.ARCHIVE_EVENTS,
        archive.CHECK_ARCHIVE,
        health.DOCTOR,
        first_checks.FIRST_CHECKS,
        pruning.prune_runs,
        *OPERATIONS,
    ],
    sensors=_SENSORS,
    schedules=_SCHEDULES,
    resources={
        **connections(),
        # No step has an output to keep. Dagster's default takes a folder from the config of a run.
        "io_manager": dg.IOManagerDefinition(
            lambda _: dg.InMemoryIOManager(),  # type: ignore[no-untyped-call]
            config_schema={},
        ),
    },
    executor=dg.in_process_executor,
)


@cache
def tags_of_jobs() -> Mapping[str, Mapping[str, str]]:
    """The tags of every job of ours, by its name."""
    jobs = defs.get_repository_def().get_all_jobs()
    return {each.name: each.run_tags for each in jobs if DUTY_TAG in each.run_tags}


def duty_of(job: str) -> str:
    """The duty of a job. Raises LookupError for one that is not ours."""
    return tags_of_jobs()[job][DUTY_TAG]


def managers_jobs() -> frozenset[str]:
    """What a manager may launch: every step of a campaign (docs/campaigns.md)."""
    return frozenset(name for name, tags in tags_of_jobs().items() if tags[FOR_TAG] == "manager")


def pod_of_assets(jobs_of_each: Iterable[Iterable[str]]) -> dict[str, str]:
    """The tag for assets that are materialised without their job: of the largest job that has all of them. Empty when
    there is none: then the run has no rights.
    """
    common = set.intersection(*(set(jobs) & tags_of_jobs().keys() for jobs in jobs_of_each))
    if not common:
        return {}
    largest = max(sorted(common), key=lambda job: size_of(tags_of_jobs()[job]))
    return {POD_TAG: tags_of_jobs()[largest][POD_TAG]}
