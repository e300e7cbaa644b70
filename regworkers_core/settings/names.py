"""Names of the data contract."""

from __future__ import annotations


class Names:
    """Names of the data contract under the environment's prefix."""

    def __init__(self, prefix: str, *, bucket: str | None = None) -> None:
        self.prefix = prefix
        # S3 knows neither capitals nor underscores.
        self.bucket = bucket or (prefix + "regworkers-artefacts").lower().replace("_", "-")
        self.demand_table = prefix + "demand-table"
        self.lease_table = prefix + "worker-leases"
        self.replication_queue = prefix + "replication-queue"
        self.selection_queue = prefix + "selection-queue"
        self.notification_queue = prefix + "notification-queue"
        self.analytics_queue = prefix + "analytics-queue"
        self.queues = tuple(
            prefix + name
            for name in ("replication-queue", "selection-queue", "notification-queue", "analytics-queue")
        )
        self.topics = tuple(
            self.topic(flow) for flow in ("entries", "eligibility", "selections", "notifications")
        )

    def topic(self, flow: str) -> str:
        """The Kafka topic of a flow's events."""
        return f"{self.prefix}regworkers.{flow}.v1"

    @staticmethod
    def dead_letter_queue(queue: str) -> str:
        return queue + "-dlq"
