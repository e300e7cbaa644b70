"""The assets of replication, in the order of the data flow, which two drains fill."""

from datetime import timedelta

import dagster as dg

from regworkers_dagster.factories import KEPT_FRESH, Flow

_FLOW = Flow("replication", owner="replication")
_PERSONAL = {"regworkers/contains": "personal-data"}

DEMAND_TABLE = _FLOW.asset(
    "demand_table",
    "DynamoDB table that the platform writes entries to, and its stream. Observed: the age of the oldest unread "
    "stream record.",
    {"dynamodb"},
    tags=_PERSONAL,
    freshness_policy=KEPT_FRESH,
)
REPLICATION_QUEUE = _FLOW.asset(
    "replication_queue",
    "SQS queue with keys of changed entries, up to 100 a message. Filled by `enqueue_entries`: its numbers "
    "every minute. Observed: its depth.",
    {"sqs"},
    deps=[DEMAND_TABLE],
    freshness_policy=KEPT_FRESH,
)
REPLICATION_DLQ = _FLOW.asset(
    "replication_dlq",
    "Messages of the replication queue that no retry can help, each with its reason. Should be empty. History: "
    "collection `dead_letters`.",
    {"sqs"},
    deps=[REPLICATION_QUEUE],
    freshness_policy=KEPT_FRESH,
)
ENTRIES = _FLOW.asset(
    "entries",
    "MongoDB collection of the Entry Service: every entry of the demand table as it is now, and a tombstone for each "
    "removed one. Filled by `save_entries`: its numbers every minute. Observed: documents, tombstones included.",
    {"mongodb"},
    deps=[REPLICATION_QUEUE],
    tags=_PERSONAL,
    freshness_policy=KEPT_FRESH,
)
RECONCILE_RESULTS = _FLOW.asset(
    "reconcile_results",
    "MongoDB collection: what each comparison of the demand table with `entries` found. One materialisation per "
    "comparison of all campaigns by the job `reconcile_entries`, which runs every night; out of date at 06:00 UTC "
    "without one within a day.",
    {"mongodb"},
    deps=[DEMAND_TABLE, ENTRIES],
    freshness_policy=dg.FreshnessPolicy.cron("0 6 * * *", timedelta(hours=24)),
)
