"""Run tags. `dagster.yaml` limits how many runs of one value there may be at once."""

from __future__ import annotations

# On every drain, whoever started it: how the sensors find those at work.
DRAIN_TAG = "regworkers/drain"
# On reconcile and backfill: one of each at a time.
OPERATION_TAG = "regworkers/operation"
# On every retry of a market: `<campaignId>:<marketId>:<phase>`.
MARKET_TAG = "regworkers/market"
# Dagster's own, on every run of a partition: of a campaign's draw, its id.
PARTITION_TAG = "dagster/partition"
