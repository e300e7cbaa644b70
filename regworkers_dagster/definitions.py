"""What Dagster loads: the table of contents. Reads the settings (files and environment, no network)."""

from __future__ import annotations

import dagster as dg

from regworkers_core import flows
from regworkers_core.acts import every_operation
from regworkers_dagster.analytics import archive, funnel, publishing
from regworkers_dagster.drains.running import automated
from regworkers_dagster.launching import job
from regworkers_dagster.operations import (
    deployment,
    first_checks,
    health,
    on_call,
    outcomes,
    pruning,
    retention,
    reviews,
)
from regworkers_dagster.replication import assets, checks, cycle
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
    *deployment.SCHEDULES,
    *pruning.SCHEDULES,
    *retention.SCHEDULES,
    *reviews.SCHEDULES,
]
_STARTED = {target.job_name for sensor in _SENSORS for target in sensor.targets}
_STARTED |= {each.job_name for each in _SCHEDULES}

_ASSETS = {
    spec.key.to_user_string(): spec
    for spec in (assets.REPLICATION_QUEUE, *selection_specs.EXTERNAL, *selection_specs.STEPS)
}
OPERATIONS = [job(each, _ASSETS, _STARTED) for each in every_operation() if each.job and not each.check]
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
        funnel.campaign_funnel,
        deployment.inspect_certificate,
        health.examine_system,
        *reviews.ASSETS,
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
        cycle.verify_entries,
        *selection.JOBS,
        archive.ARCHIVE_EVENTS,
        archive.CHECK_ARCHIVE,
        funnel.CAMPAIGN_FUNNEL_JOB,
        deployment.find_resources,
        deployment.show_config,
        deployment.CHECK_CERTIFICATE,
        health.DOCTOR,
        first_checks.FIRST_CHECKS,
        *on_call.JOBS,
        pruning.prune_runs,
        retention.housekeeping,
        *reviews.REVIEW_JOBS.values(),
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
