"""The drain of the analytics queue as an asset."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import dagster as dg

from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.operations.alerts.evaluate import watch_renewals
from regworkers_core.operations.health.queues import read_analytics_queue
from regworkers_dagster.analytics.specs import KAFKA_EVENTS
from regworkers_dagster.drains.running import CONTINUOUS, DrainConfig, drained
from regworkers_dagster.resources import Workers, plain_failures


@dg.multi_asset(name=PUBLISH.name, specs=[KAFKA_EVENTS])
def publish_events(
    context: dg.AssetExecutionContext, config: DrainConfig, workers: Workers
) -> dg.MaterializeResult[None]:
    """Take events off the analytics queue and publish them to Kafka."""
    with plain_failures():
        runtime = workers.runtime
        watch_renewals(runtime)
        done = drained(context, config, runtime, PUBLISH)
        left = read_analytics_queue(runtime)
    numbers = (
        {} if left is None else {"waiting": left.waiting, "time_to_data_loss_seconds": left.seconds_left}
    )
    known = {
        name: dg.MetadataValue.float(float(value)) for name, value in numbers.items() if value is not None
    }
    return dg.MaterializeResult(
        asset_key=KAFKA_EVENTS.key, metadata={**done.metadata, **known}, data_version=CONTINUOUS
    )
