"""Jobs of replication. All run with their defaults from the launchpad, and in one process."""

from __future__ import annotations

import dagster as dg

from regworkers_dagster.replication.assets import enqueue_entries, save_entries
from regworkers_dagster.replication.backfill import backfill_op
from regworkers_dagster.replication.checks import LAG_WITHIN_OBJECTIVE
from regworkers_dagster.replication.parity import parity
from regworkers_dagster.tags import DRAIN_TAG, OPERATION_TAG

ENQUEUE_ENTRIES = dg.define_asset_job(
    "enqueue_entries",
    selection=dg.AssetSelection.assets(enqueue_entries),
    tags={DRAIN_TAG: "enqueue"},
    executor_def=dg.in_process_executor,
    description="Drain of the demand table's stream into the replication queue. Leaves when idle; terminating "
    "it lets it finish what is in flight.",
)

SAVE_ENTRIES = dg.define_asset_job(
    "save_entries",
    # Without `parity`, which takes minutes: as a step of every drain it would hold up the next one.
    selection=dg.AssetSelection.assets(save_entries).without_checks()
    | dg.AssetSelection.checks(LAG_WITHIN_OBJECTIVE.key),
    tags={DRAIN_TAG: "save"},
    executor_def=dg.in_process_executor,
    description="Drain of the replication queue into the replica. Leaves when idle; terminating it lets it "
    "finish what is in flight.",
)

RECONCILE_ENTRIES = dg.define_asset_job(
    "reconcile_entries",
    selection=dg.AssetSelection.checks(parity),
    tags={OPERATION_TAG: "reconcile"},
    executor_def=dg.in_process_executor,
    description="Compares demand table and replica, content and all. Differences fail the check `parity` of "
    "`entries` and then the run, so that the exit code of `dagster job execute` and a failed-run alert tell. "
    "Set `repair` to mend what differs.",
)


@dg.job(
    tags={OPERATION_TAG: "backfill"},
    executor_def=dg.in_process_executor,
    description="Queues the key of every entry of the table, or of one campaign, under a rate limit; the save "
    "drain does the rest, and cannot overwrite newer changes. Rebuilds an emptied replica.",
)
def backfill_entries() -> None:
    """One op."""
    backfill_op()
