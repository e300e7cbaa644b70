"""The export of events to Kafka: the assets of the graph, the drain of the analytics queue, its check and its
sensors.
"""

from functools import partial

import dagster as dg

from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.domain.snapshot import QueueState
from regworkers_core.operations.alerts.evaluate import watch_renewals
from regworkers_core.operations.health.sources import put_age_metrics, read_analytics_queue
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.observing import (
    Reading,
    depth_of,
    dlq_check,
    minutes_outside,
    observed,
    pause_state,
)
from regworkers_dagster.drains.running import automated
from regworkers_dagster.drains.sensing import Answer, depth_tick, ticking
from regworkers_dagster.factories import CAMPAIGN_PARTITIONS, KEPT_FRESH, Flow, sensor

FLOW = Flow("analytics", owner="analytics")
_OBSERVE_INTERVAL_SECONDS = 30

ANALYTICS_QUEUE = FLOW.asset(
    "analytics_queue",
    "SQS queue with one event (CloudEvents 1.0, without mail addresses or names) per eligibility check, per saved "
    "state of an entry, per published step of a draw, per selection and per message to a fan. Observed: its depth, "
    "the age of its oldest message and the time until that message would be lost.",
    {"sqs"},
    # The check that writes an entry (`demand_table`), replication, a draw's steps, its selections and messages.
    deps=["demand_table", "entries", "commitment", "draw", "selections", "notifications"],
    freshness_policy=KEPT_FRESH,
)
CAMPAIGN_FUNNEL = FLOW.asset(
    "campaign_funnel",
    "Registered, replicated, eligible, won, coded, notified: per market, segment and day, with plots, and "
    "which numbers do not add up and why. Works at any time of a campaign; a stage that is not reached has no number. "
    "The page is `reports/<campaignId>/funnel.html`; the job `campaign_funnel` and `regworkers report funnel` make it.",
    {"s3", "html", "pandas"},
    deps=["demand_table", "entries", "frozen_pool", "draw", "selections", "notifications"],
    partitions_def=CAMPAIGN_PARTITIONS,
)
ANALYTICS_DLQ = FLOW.asset(
    "analytics_dlq",
    "Events that do not fit the schema of their type, each with the path that failed. Should be empty. History: "
    "collection `dead_letters`.",
    {"sqs"},
    deps=[ANALYTICS_QUEUE],
    freshness_policy=KEPT_FRESH,
)
KAFKA_EVENTS = FLOW.asset(
    "kafka_events",
    "Every business event on its Kafka topic. Filled by `publish_events`: its numbers every minute. "
    "A repeated event keeps its id: readers drop it.",
    {"kafka"},
    deps=[ANALYTICS_QUEUE],
    freshness_policy=KEPT_FRESH,
)


analytics_dlq_empty = dlq_check(
    ANALYTICS_DLQ, lambda names: names.analytics_queue, sensor="observe_analytics", lost="event"
)
publish_tick = depth_tick(PUBLISH)
DRAINS = (
    automated(
        PUBLISH,
        KAFKA_EVENTS,
        tick=publish_tick,
        uses={"aws", "mongo", "kafka"},
        before=watch_renewals,
        more="While Kafka is unavailable it returns what it holds to the queue and ends; nothing is lost or given up.",
    ),
)


@ticking
def observe_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Read the queue, write its metrics, and record what changed enough since the last record."""
    queue = read_analytics_queue(runtime)
    put_age_metrics(runtime, queue)
    on_minutes = partial(minutes_outside, context.instance, runtime, {KAFKA_EVENTS.key: PUBLISH})
    return observed(runtime.settings, context.cursor, read_all(runtime, queue), on_minutes=on_minutes)


def read_all(runtime: Runtime, queue: QueueState | None) -> list[Reading]:
    """The queue, as it was read, its dead letters, and the events in Kafka while none waits."""
    names = runtime.names
    numbers = {
        "messages": float(queue.waiting) if queue else None,
        "oldest_at_least_seconds": queue.oldest_seconds if queue else None,
        "time_to_data_loss_seconds": queue.seconds_left if queue else None,
        **pause_state(runtime, PUBLISH.name),
    }
    return [
        Reading.of(ANALYTICS_QUEUE, numbers),
        Reading.of(ANALYTICS_DLQ, depth_of(runtime, names.dead_letter_queue(names.analytics_queue))),
        *([Reading.of(KAFKA_EVENTS, {"waiting": 0.0})] if queue and not queue.waiting else ()),
    ]


SENSORS = (
    sensor(
        "observe_analytics",
        observe_tick,
        every_seconds=_OBSERVE_INTERVAL_SECONDS,
        description="Records depth and age of the analytics queue when they changed, and the minutes of drains that "
        "are no runs; writes its metrics, and updates the check `analytics_dlq_empty`.",
    ),
)
