"""The assets of replication, in the order of the data flow, and the two drains that materialise them."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_dagster.drains.observing import or_none
from regworkers_dagster.drains.running import CONTINUOUS, DrainConfig, drain_asset, drained
from regworkers_dagster.factories import KEPT_FRESH, Flow
from regworkers_dagster.metadata import Metadata
from regworkers_dagster.resources import STORES, plain_failures, runtime_of

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
    "SQS queue with keys of changed entries, up to 100 a message. Filled by `enqueue_entries`: one materialisation per "
    "drain of the stream. Observed: its depth.",
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
    "removed one. Filled by `save_entries`: one materialisation per drain of the queue. Observed: documents, "
    "tombstones included.",
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
LAG_WITHIN_OBJECTIVE = dg.AssetCheckSpec(
    "lag_within_objective",
    asset=ENTRIES.key,
    description="95 % of the changes that a drain saved were in the replica within "
    "`replication.lagObjectiveSeconds` of their `updatedAt`.",
)

enqueue_entries = drain_asset(
    ENQUEUE,
    REPLICATION_QUEUE,
    "Read the demand table's stream and send the keys of changed entries to the replication queue.",
)


@dg.multi_asset(
    name=SAVE.name,
    specs=[ENTRIES],
    check_specs=[LAG_WITHIN_OBJECTIVE],
    required_resource_keys=set(STORES),
)
def save_entries(
    context: dg.AssetExecutionContext, config: DrainConfig
) -> Iterator[dg.MaterializeResult[None]]:
    """Read changed entries from the demand table and write them to the replica."""
    with plain_failures(context):
        runtime = runtime_of(context)
        done = drained(context, config, runtime, SAVE)
        # First in the metadata, so that the asset's overview is not empty after a drain without work.
        held = or_none(runtime.replica.count)
    whole: Metadata = {} if held is None else {"documents_in_the_replica": dg.MetadataValue.int(held)}
    yield dg.MaterializeResult(
        asset_key=ENTRIES.key,
        metadata=whole | done.metadata,
        data_version=CONTINUOUS,
        check_results=[lag_result(done.report, runtime.settings.replication.lag_objective_seconds)],
    )


def nothing_lags() -> dg.AssetCheckEvaluation:
    """The same check where no drain is needed."""
    return dg.AssetCheckEvaluation(
        asset_key=ENTRIES.key,
        check_name=LAG_WITHIN_OBJECTIVE.name,
        passed=True,
        severity=dg.AssetCheckSeverity.WARN,
        description="nothing waits",
    )


def lag_result(report: DrainReport, objective_seconds: float) -> dg.AssetCheckResult:
    """The check of one drain. It passes for a drain without a change."""
    p95 = report.lag.summary()["p95"]
    numbers: dict[str, float] = {"objective_seconds": objective_seconds, "changes": float(report.lag.count)}
    if p95 is not None:
        numbers["lag_p95_seconds"] = p95
    return dg.AssetCheckResult(
        check_name=LAG_WITHIN_OBJECTIVE.name,
        asset_key=ENTRIES.key,
        passed=p95 is None or p95 <= objective_seconds,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=numbers,
    )
