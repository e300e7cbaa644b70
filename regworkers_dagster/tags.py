"""Run tags. `dagster.yaml` limits how many runs of one value there may be at once."""

from __future__ import annotations

from functools import cache

from regworkers_core.settings import load_settings

# On every drain, whoever started it: how the sensors find those at work.
DRAIN_TAG = "regworkers/drain"
# On reconcile and backfill: one of each at a time.
OPERATION_TAG = "regworkers/operation"
# On every retry of a market: `<campaignId>:<marketId>:<phase>`.
MARKET_TAG = "regworkers/market"
# On what people launch in the UI: the name of the person. The web application sets it, over any that the client sends.
OPERATOR_TAG = "regworkers/operator"
# On every run of a manager's job: the campaign's id, so that its runs are found together.
CAMPAIGN_TAG = "regworkers/campaign"
# Dagster's own, on every run of a partition: of a campaign's draw, its id.
PARTITION_TAG = "dagster/partition"
# Dagster's own, in seconds: its run monitoring ends a run that takes longer, and marks it as failed.
MAX_RUNTIME_TAG = "dagster/max_runtime"

# A worker that dies is followed by another, which goes on at the step that was not finished. A step that fails tells
# why and is not repeated by itself.
RESUMED = {
    "dagster/max_retries": "3",
    "dagster/retry_strategy": "FROM_FAILURE",
    "dagster/retry_on_asset_or_op_failure": "false",
}


@cache
def short_run() -> dict[str, str]:
    """For a job that takes minutes whatever there is: one that takes longer hangs. Reads the settings."""
    return {MAX_RUNTIME_TAG: f"{load_settings().dagster.max_run_seconds:g}"}


@cache
def long_run() -> dict[str, str]:
    """For a job whose time grows with a campaign, the archive or a list. Reads the settings. Without either tag are
    drains, backfill and reconcile: their heartbeats, leases and progress tell whether they hang.
    """
    return {MAX_RUNTIME_TAG: f"{load_settings().dagster.max_long_run_seconds:g}"}
