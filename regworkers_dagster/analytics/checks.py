"""The promise of the export, as a check: no event was given up."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import dagster as dg

from regworkers_dagster.analytics.specs import ANALYTICS_DLQ
from regworkers_dagster.drains.observing import Reading
from regworkers_dagster.resources import Workers, plain_failures

DLQ_EMPTY = "analytics_dlq_empty"


@dg.asset_check(
    asset=ANALYTICS_DLQ.key,
    name=DLQ_EMPTY,
    description="No event was given up. The sensor `observe_analytics` judges this every half minute; a run of the "
    "check reads it now.",
)
def analytics_dlq_empty(workers: Workers) -> dg.AssetCheckResult:
    """Counts messages of the dead-letter queue, those in flight included."""
    with plain_failures():
        runtime = workers.runtime
        depth = runtime.queue(runtime.names.dead_letter_queue(runtime.names.analytics_queue)).depth().total
    return dg.AssetCheckResult(passed=depth == 0, metadata={"messages": depth})


def dlq_evaluation(reading: Reading) -> dg.AssetCheckEvaluation | None:
    """The same judgement of the observed dead-letter queue, for a sensor to record."""
    if reading.asset != ANALYTICS_DLQ.key.to_user_string() or reading.total is None:
        return None
    return dg.AssetCheckEvaluation(
        check_name=DLQ_EMPTY,
        asset_key=ANALYTICS_DLQ.key,
        passed=reading.total == 0,
        metadata={"messages": dg.MetadataValue.int(reading.total)},
    )
