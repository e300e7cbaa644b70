"""The durable things of replication, in the order in which the data flows: what the UI's graph shows."""

from __future__ import annotations

import dagster as dg

GROUP = "replication"
OWNERS = ["team:replication"]
TAGS = {"regworkers/flow": "replication"}

DEMAND_TABLE = dg.AssetSpec(
    "demand_table",
    description="DynamoDB table that the platform writes entries to, and its stream. Observed: the age of the "
    "oldest unread stream record.",
    kinds={"dynamodb"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS | {"regworkers/contains": "personal-data"},
)

REPLICATION_QUEUE = dg.AssetSpec(
    "replication_queue",
    deps=[DEMAND_TABLE],
    description="SQS queue with keys of changed entries, up to 100 a message. Filled by `enqueue_entries`: one "
    "materialisation per drain of the stream. Observed: its depth.",
    kinds={"sqs"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
)

REPLICATION_DLQ = dg.AssetSpec(
    "replication_dlq",
    deps=[REPLICATION_QUEUE],
    description="Messages of the replication queue that no repeat can help, each with its reason. Should be "
    "empty. History: collection `dead_letters`.",
    kinds={"sqs"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
)

ENTRIES = dg.AssetSpec(
    "entries",
    deps=[REPLICATION_QUEUE],
    description="MongoDB collection of the Entry Service: every entry of the demand table as it is now, and a "
    "tombstone for each removed one. Filled by `save_entries`: one materialisation per drain of the queue. "
    "Observed: documents, tombstones included.",
    kinds={"mongodb"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS | {"regworkers/contains": "personal-data"},
)

EXTERNAL = (DEMAND_TABLE, REPLICATION_DLQ)
