"""Jobs of the selection. All run from the launchpad and with `dagster job execute`, in one process."""

from __future__ import annotations

import dagster as dg

from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_dagster.selection import assets, campaign_jobs, checks, code_jobs, draw_jobs, message_jobs
from regworkers_dagster.selection.specs import DRAW_JOB
from regworkers_dagster.tags import DRAIN_TAG, OPERATION_TAG, RESUMED, long_run, short_run

DRAW = dg.define_asset_job(
    DRAW_JOB,
    selection=dg.AssetSelection.assets(*assets.STEPS).without_checks()
    | dg.AssetSelection.checks(*checks.OF_A_DRAW),
    tags={**RESUMED, **long_run()},
    executor_def=dg.in_process_executor,
    description="The draw of one campaign, from the frozen pool to the publication. Every step finds what was "
    "decided before, so it can be launched again at any time: nothing is drawn twice. Choose the campaign's partition; "
    "no config is needed. It ends with the report: `confirm_draw` lets the result go out.",
)

ELIGIBILITY_REPORT = dg.define_asset_job(
    "eligibility_report",
    selection=dg.AssetSelection.assets(assets.eligibility_report),
    tags=long_run(),
    executor_def=dg.in_process_executor,
    description="Judges every entry of one campaign as it is now, whatever its status, and shows the reasons per "
    "market and day. Always a preview: it needs the campaign's partition and no config, and decides nothing; the job "
    "`draw` judges for good.",
)

PROCESS_SELECTIONS = dg.define_asset_job(
    "process_selections",
    selection=dg.AssetSelection.assets(assets.process_selections).without_checks(),
    tags={DRAIN_TAG: SELECTIONS.name},
    executor_def=dg.in_process_executor,
    description="Drain of the selection queue: codes, selections and rows of the outbox. Leaves when idle; "
    "terminating it lets it finish what is in flight.",
)

SEND_NOTIFICATIONS = dg.define_asset_job(
    "send_notifications",
    selection=dg.AssetSelection.assets(assets.send_notifications).without_checks(),
    tags={DRAIN_TAG: NOTIFICATIONS.name},
    executor_def=dg.in_process_executor,
    description="Drain of the outbox into the mailer's queue, one sender at a time: a canary, then the rest. "
    "`regworkers notifications pause` stops it.",
)

CHECK_SELECTION = dg.define_asset_job(
    "check_selection",
    selection=dg.AssetSelection.checks(checks.selections_kept),
    config=checks.check_mapping,
    tags={OPERATION_TAG: "check_selection", **short_run()},
    executor_def=dg.in_process_executor,
    description="Judges the promises about codes and messages: codes and winners biject, capacity, counts match. A "
    "broken one fails the run. Started by `watch_campaigns` for every phase that completes. "
    'Config: {"campaignId": "..."}; none: every published campaign.',
)


MANAGERS_JOBS = (*campaign_jobs.JOBS, *code_jobs.JOBS, *draw_jobs.JOBS, *message_jobs.JOBS)

JOBS = (
    DRAW,
    ELIGIBILITY_REPORT,
    PROCESS_SELECTIONS,
    SEND_NOTIFICATIONS,
    CHECK_SELECTION,
    *MANAGERS_JOBS,
)
