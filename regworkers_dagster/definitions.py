"""What Dagster loads: the table of contents. Reads the settings (files and environment, no network)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import dagster as dg

from regworkers_core import flows
from regworkers_core.acts import added_operations, every_operation
from regworkers_dagster import analytics, replication
from regworkers_dagster.drains.running import automated
from regworkers_dagster.factories import DUTY_TAG, FOR_TAG, POD_TAG, size_of
from regworkers_dagster.launching import job
from regworkers_dagster.operations import first_checks, health, outcomes, upkeep
from regworkers_dagster.resources import connections
from regworkers_dagster.selection import assets as selection_assets
from regworkers_dagster.selection import automation as selection
from regworkers_dagster.selection import specs as selection_specs

_DESCRIBED = (*replication.DRAINS, *selection.DRAINS, *analytics.DRAINS)
DRAINS = (
    *_DESCRIBED,
    *(automated(spec) for spec in flows.DRAINS if spec not in [each.spec for each in _DESCRIBED]),
)

_SENSORS = [
    *(drain.sensor for drain in DRAINS),
    *replication.SENSORS,
    *selection.SENSORS,
    *analytics.SENSORS,
    *health.SENSORS,
    *first_checks.SENSORS,
    *outcomes.SENSORS,
]
_SCHEDULES = [
    *replication.SCHEDULES,
    *analytics.SCHEDULES,
    *upkeep.SCHEDULES,
]
_STARTED = {target.job_name for sensor in _SENSORS for target in sensor.targets}
_STARTED |= {each.job_name for each in _SCHEDULES}

_RECORDED = (
    replication.REPLICATION_QUEUE,
    analytics.CAMPAIGN_FUNNEL,
    *selection_specs.EXTERNAL,
    *selection_specs.STEPS,
)
_ASSETS = {spec.key.to_user_string(): spec for spec in _RECORDED}
_MADE = (
    *(drain.job for drain in DRAINS),
    replication.RECONCILE_ENTRIES,
    replication.verify_entries,
    *selection.JOBS,
    analytics.ARCHIVE_EVENTS,
    analytics.CHECK_ARCHIVE,
    health.DOCTOR,
    first_checks.FIRST_CHECKS,
    *upkeep.JOBS,
)
# Every operation with a job, by its name. That of a check is made of the check, and a sensor that starts several jobs
# holds them.
_DECLARED = (*every_operation(), *added_operations(), upkeep.prune_runs, health.doctor)
OPERATIONS = {each.job: each for each in _DECLARED if each.job}
_OPERATIONS = [
    job(each, _ASSETS, _STARTED, selection_assets.event_of)
    for name, each in OPERATIONS.items()
    if name not in {made.name for made in _MADE}
]
defs = dg.Definitions(
    assets=[
        replication.DEMAND_TABLE,
        replication.REPLICATION_DLQ,
        replication.RECONCILE_RESULTS,
        *(drain.asset for drain in DRAINS),
        *selection_specs.EXTERNAL,
        *selection_assets.STEPS,
        analytics.ANALYTICS_QUEUE,
        analytics.ANALYTICS_DLQ,
        analytics.archive_events,
        analytics.CAMPAIGN_FUNNEL,
        health.examine_system,
        *upkeep.ASSETS.values(),
    ],
    asset_checks=[
        replication.replication_dlq_empty,
        replication.dependencies_answer,
        replication.lag_within_objective,
        replication.parity,
        *selection.OF_A_DRAW,
        *selection.OF_QUEUES,
        selection.selections_kept,
        analytics.one_row_per_id,
        analytics.analytics_dlq_empty,
    ],
    jobs=[*_MADE, *_OPERATIONS],
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


@cache
def order_of_jobs() -> Sequence[str]:
    """The jobs of ours as a list shows them: those of the pipeline in the order of the data flow, then what managers
    launch, then what engineers on call launch, then what only sensors and schedules do.
    """
    pipeline = [
        *(drain.job.name for drain in (*replication.DRAINS, *selection.DRAINS, *analytics.DRAINS)),
        analytics.ARCHIVE_EVENTS.name,
        replication.RECONCILE_ENTRIES.name,
    ]
    pipeline.insert(len(replication.DRAINS), selection_specs.DRAW_JOB)
    who = ("manager", "on-call", "system")
    forms = [name for name in (*OPERATIONS, *sorted(tags_of_jobs())) if name in tags_of_jobs()]
    forms.sort(key=lambda name: who.index(tags_of_jobs()[name][FOR_TAG]))
    return tuple(dict.fromkeys([*pipeline, *forms]))


@cache
def order_of_fields() -> Mapping[str, Sequence[str]]:
    """The fields of each launchpad of ours in the order of their declaration, by the name of its job and by the key of
    its type of config: what Dagster stores of a job has them by name. Configs in Dagster's own form, with `ops`, are
    left out.
    """
    jobs = (defs.resolve_job_def(name) for name in tags_of_jobs())
    roots: list[tuple[str, Any]] = [(each.name, each.run_config_schema.config_type) for each in jobs]
    return {
        key: tuple(root.fields)
        for name, root in roots
        if "ops" not in root.fields
        for key in (name, root.key)
    }


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
