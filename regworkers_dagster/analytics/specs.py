"""The durable things of the export: what the UI's graph shows between the flows and Kafka."""

from __future__ import annotations

import dagster as dg

GROUP = "analytics"
OWNERS = ["team:analytics"]
TAGS = {"regworkers/flow": "analytics"}

ANALYTICS_QUEUE = dg.AssetSpec(
    "analytics_queue",
    # The check that writes an entry (`demand_table`), replication, a draw's steps, its selections and messages.
    deps=["demand_table", "entries", "commitment", "draw", "selections", "notifications"],
    description="SQS queue with one event (CloudEvents 1.0, without mail or names) per judged entry, per saved state "
    "of one, per step of a draw that is published, per selection and per message to a fan. Observed: its depth, and "
    "how old its oldest message is and how long until it would be lost.",
    kinds={"sqs"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
)

ANALYTICS_DLQ = dg.AssetSpec(
    "analytics_dlq",
    deps=[ANALYTICS_QUEUE],
    description="Events that do not keep to the schema of their type, each with the path that failed. Should be "
    "empty. History: collection `dead_letters`.",
    kinds={"sqs"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
)

KAFKA_EVENTS = dg.AssetSpec(
    "kafka_events",
    deps=[ANALYTICS_QUEUE],
    description="Every business event on its Kafka topic. Filled by `publish_events`: one materialisation per drain "
    "of the queue. A repeat has the id that it had: readers drop it.",
    kinds={"kafka"},
    group_name=GROUP,
    owners=OWNERS,
    tags=TAGS,
)

EXTERNAL = (ANALYTICS_QUEUE, ANALYTICS_DLQ)
