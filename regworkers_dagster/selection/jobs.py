"""Jobs of the selection. All run from the launchpad and with `dagster job execute`, in one process."""

from __future__ import annotations

import dagster as dg

from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_dagster.selection import assets, checks
from regworkers_dagster.selection.operations import retry_mapping, retry_market_op, top_up_mapping, top_up_op
from regworkers_dagster.selection.specs import DRAW_JOB
from regworkers_dagster.tags import DRAIN_TAG, OPERATION_TAG, long_run, short_run

# A worker that dies is followed by another, which goes on at the step that was not finished. A step that fails
# tells why and is not repeated by itself: `watch_campaigns` takes it up again after a pause.
_RESUMED = {
    "dagster/max_retries": "3",
    "dagster/retry_strategy": "FROM_FAILURE",
    "dagster/retry_on_asset_or_op_failure": "false",
}

DRAW = dg.define_asset_job(
    DRAW_JOB,
    selection=dg.AssetSelection.assets(*assets.STEPS).without_checks()
    | dg.AssetSelection.checks(*checks.OF_A_DRAW),
    tags={**_RESUMED, **long_run()},
    executor_def=dg.in_process_executor,
    description="The draw of one campaign, from the frozen pool to the publication. Every step finds what was "
    "decided before, so it can be launched again at any time: nothing is drawn twice. Publishes only with "
    "`confirm` in the config of `publication`, or when `selection.autoPublish` says so.",
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


@dg.job(
    config=top_up_mapping,
    tags={**_RESUMED, **long_run()},
    executor_def=dg.in_process_executor,
    description="More seats for a campaign that was drawn: a further phase in the same order, in which every "
    "winner keeps what they have. A winner of an earlier phase is not upgraded, so truthful preferences are "
    "the best ones within a phase only. Terms and reason are published with the phase. "
    'Config: {"campaignId": "...", "capacities": {"<marketId>": <new total>}, "reason": "...", "confirm": '
    '"<campaignId>:<phase>"}; also `reserves` {"<marketId>": {"<segment>": seats}} and `strikes` ["ref|REASON"].',
)
def top_up() -> None:
    """One op."""
    top_up_op()


@dg.job(
    config=retry_mapping,
    tags=short_run(),
    executor_def=dg.in_process_executor,
    description="Takes a market up again that stands still: plans it when codes were missing, and sends the "
    "chunks that are not done. Nothing is assigned or told twice. "
    'Config: {"campaignId": "...", "marketId": "..."} (marketId `-`: the messages to those who did not win).',
)
def retry_market_selection() -> None:
    """One op."""
    retry_market_op()


JOBS = (
    DRAW,
    ELIGIBILITY_REPORT,
    PROCESS_SELECTIONS,
    SEND_NOTIFICATIONS,
    CHECK_SELECTION,
    top_up,
    retry_market_selection,
)
