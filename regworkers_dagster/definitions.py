"""What Dagster loads: the table of contents. Reads the settings (files and environment, no network)."""

from __future__ import annotations

import dagster as dg

from regworkers_core.settings import load_settings
from regworkers_dagster.analytics import archive, funnel
from regworkers_dagster.analytics import assets as analytics
from regworkers_dagster.analytics import checks as analytics_checks
from regworkers_dagster.analytics import jobs as analytics_jobs
from regworkers_dagster.analytics import sensors as analytics_sensors
from regworkers_dagster.analytics import specs as analytics_specs
from regworkers_dagster.eligibility import invites
from regworkers_dagster.operations import (
    alerts,
    dead_letters,
    doctor,
    erasure,
    housekeeping,
    reviews,
    runbooks,
)
from regworkers_dagster.operations import certificate as certificates
from regworkers_dagster.operations import pruning_jobs as maintenance
from regworkers_dagster.operations import resources as aws_resources
from regworkers_dagster.replication import assets, checks, jobs, parity, schedules, sensors, specs
from regworkers_dagster.resources import Workers
from regworkers_dagster.selection import assets as selection
from regworkers_dagster.selection import checks as selection_checks
from regworkers_dagster.selection import jobs as selection_jobs
from regworkers_dagster.selection import sensors as selection_sensors
from regworkers_dagster.selection import specs as selection_specs

# How long a sensor's tick waits for one answer.
_TICK_CALL_SECONDS = 2.0

# Wrong settings end the load here, with a line that names key and file.
_on = load_settings().sensors_on

defs = dg.Definitions(
    assets=[
        *specs.EXTERNAL,
        assets.enqueue_entries,
        assets.save_entries,
        invites.INVITES,
        *selection_specs.EXTERNAL,
        *selection.STEPS,
        *selection.DRAINS,
        *analytics_specs.EXTERNAL,
        analytics.publish_events,
        archive.archive_events,
        funnel.campaign_funnel,
        certificates.look_at_certificate,
        doctor.examine_system,
        *reviews.ASSETS,
    ],
    asset_checks=[
        checks.replication_dlq_empty,
        checks.dependencies_answer,
        parity.parity,
        *selection_checks.OF_A_DRAW,
        *selection_checks.OF_QUEUES,
        selection_checks.selections_kept,
        archive.one_row_per_id,
        analytics_checks.analytics_dlq_empty,
    ],
    jobs=[
        jobs.ENQUEUE_ENTRIES,
        jobs.SAVE_ENTRIES,
        jobs.RECONCILE_ENTRIES,
        jobs.backfill_entries,
        *invites.JOBS,
        maintenance.prune_runs,
        housekeeping.housekeeping,
        *dead_letters.JOBS,
        erasure.erase_entry,
        *selection_jobs.JOBS,
        analytics_jobs.PUBLISH_EVENTS,
        archive.ARCHIVE_EVENTS,
        archive.CHECK_ARCHIVE,
        funnel.CAMPAIGN_FUNNEL_JOB,
        certificates.CHECK_CERTIFICATE,
        doctor.DOCTOR,
        aws_resources.find_resources,
        *runbooks.JOBS,
        *reviews.REVIEW_JOBS.values(),
        reviews.drill_recovery,
    ],
    sensors=[
        *sensors.build_sensors(on=_on),
        *selection_sensors.build_sensors(on=_on),
        *analytics_sensors.build_sensors(on=_on),
        *alerts.build_sensors(on=_on),
    ],
    schedules=[
        *schedules.build_schedules(on=_on),
        *maintenance.build_schedules(on=_on),
        *housekeeping.build_schedules(on=_on),
        *certificates.build_schedules(on=_on),
        *archive.build_schedules(on=_on),
        *reviews.build_schedules(on=_on),
    ],
    resources={"workers": Workers(), "tick_workers": Workers(call_seconds=_TICK_CALL_SECONDS)},
    executor=dg.in_process_executor,
)
