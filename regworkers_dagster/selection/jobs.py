"""The jobs of a selection. All run from the launchpad and with `dagster job execute`, in one process."""

from __future__ import annotations

import dagster as dg

from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_dagster.factories import asset_job, flat
from regworkers_dagster.runs import DRAIN_TAG, OPERATION_TAG, RESUMED, long_run, short_run
from regworkers_dagster.selection import assets, campaign_jobs, checks, code_jobs, draw_jobs
from regworkers_dagster.selection.specs import DRAW_JOB

DRAW = asset_job(
    DRAW_JOB,
    dg.AssetSelection.assets(*assets.STEPS).without_checks() | dg.AssetSelection.checks(*checks.OF_A_DRAW),
    tags={**RESUMED, **long_run()},
    description="The draw of one campaign, from the frozen pool to the publication. Every step finds what was decided "
    "before, so it can be launched again at any time: nothing is drawn twice. Choose the campaign's partition; no "
    "config is needed. It ends with the report: `confirm_draw` publishes the result.",
)
ELIGIBILITY_REPORT = asset_job(
    "eligibility_report",
    dg.AssetSelection.assets(assets.eligibility_report),
    tags=long_run(),
    description="Judges every entry of one campaign as it is now, in any status, and shows the reasons per market and "
    "day. Always a preview: it needs the campaign's partition and no config, and decides nothing; the job `draw` "
    "judges for good.",
)
PROCESS_SELECTIONS = asset_job(
    "process_selections",
    dg.AssetSelection.assets(assets.process_selections).without_checks(),
    tags={DRAIN_TAG: SELECTIONS.name},
    description="Drain of the selection queue: codes, selections and rows of the outbox. Ends when idle; a terminated "
    "run finishes what is in flight.",
)
SEND_NOTIFICATIONS = asset_job(
    "send_notifications",
    dg.AssetSelection.assets(assets.send_notifications).without_checks(),
    tags={DRAIN_TAG: NOTIFICATIONS.name},
    description="Drain of the outbox into the mailer's queue, one sender at a time: a canary, then the rest. "
    "`regworkers notifications pause` stops it.",
)
CHECK_SELECTION = asset_job(
    "check_selection",
    dg.AssetSelection.checks(checks.selections_kept),
    config=flat("selection_promises", checks.CheckConfig),
    tags={OPERATION_TAG: "check_selection", **short_run()},
    description="Checks codes and messages: one code per winner, capacity, counts. A check that does not hold fails "
    "the run. Started by `watch_campaigns` for every phase that completes. "
    'Config: {"campaign_id": "..."}; none: every published campaign.',
)

MANAGERS_JOBS = (*campaign_jobs.JOBS, *code_jobs.JOBS, *draw_jobs.JOBS, *campaign_jobs.MESSAGE_JOBS)
JOBS = (
    DRAW,
    ELIGIBILITY_REPORT,
    PROCESS_SELECTIONS,
    SEND_NOTIFICATIONS,
    CHECK_SELECTION,
    *MANAGERS_JOBS,
)
