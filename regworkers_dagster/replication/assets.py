"""The two drains of replication as assets."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from collections.abc import Iterator

import dagster as dg

from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_dagster.drains.metadata import Metadata
from regworkers_dagster.drains.observing import or_none
from regworkers_dagster.drains.running import CONTINUOUS, DrainConfig, drained
from regworkers_dagster.replication.checks import LAG_WITHIN_OBJECTIVE, lag_result
from regworkers_dagster.replication.specs import ENTRIES, REPLICATION_QUEUE
from regworkers_dagster.resources import Workers, plain_failures


@dg.multi_asset(name=ENQUEUE.name, specs=[REPLICATION_QUEUE])
def enqueue_entries(
    context: dg.AssetExecutionContext, config: DrainConfig, workers: Workers
) -> dg.MaterializeResult[None]:
    """Read the demand table's stream and send the keys of changed entries to the replication queue."""
    with plain_failures():
        done = drained(context, config, workers.runtime, ENQUEUE)
    return dg.MaterializeResult(
        asset_key=REPLICATION_QUEUE.key, metadata=done.metadata, data_version=CONTINUOUS
    )


@dg.multi_asset(name=SAVE.name, specs=[ENTRIES], check_specs=[LAG_WITHIN_OBJECTIVE])
def save_entries(
    context: dg.AssetExecutionContext, config: DrainConfig, workers: Workers
) -> Iterator[dg.MaterializeResult[None]]:
    """Read changed entries from the demand table and write them to the replica."""
    with plain_failures():
        runtime = workers.runtime
        done = drained(context, config, runtime, SAVE)
        # First, so that the overview of the asset does not look empty after a drain that found nothing to do.
        held = or_none(runtime.replica.count)
    whole: Metadata = {} if held is None else {"documents_in_the_replica": dg.MetadataValue.int(held)}
    yield dg.MaterializeResult(
        asset_key=ENTRIES.key,
        metadata=whole | done.metadata,
        data_version=CONTINUOUS,
        check_results=[lag_result(done.report, runtime.settings.replication.lag_objective_seconds)],
    )
