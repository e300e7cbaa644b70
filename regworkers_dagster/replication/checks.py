"""The promises of replication, as checks: lag within its objective, no dead letters."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import dagster as dg

from regworkers_core.engine.drain import DrainReport
from regworkers_core.operations.health.dependency_status import ask
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.observing import SILENT_LOOKS, Answering
from regworkers_dagster.replication.specs import ENTRIES, REPLICATION_DLQ
from regworkers_dagster.resources import Workers, plain_failures

LAG_WITHIN_OBJECTIVE = dg.AssetCheckSpec(
    "lag_within_objective",
    asset=ENTRIES.key,
    description="95 % of the changes that a drain saved were in the replica within "
    "`replication.lagObjectiveSeconds` of their `updatedAt`.",
)
DLQ_EMPTY = "replication_dlq_empty"
DEPENDENCIES_ANSWER = "dependencies_answer"
_NEEDED = sorted({*ENQUEUE.needs, *SAVE.needs})


def lag_result(report: DrainReport, objective_seconds: float) -> dg.AssetCheckResult:
    """Judges one drain. A drain without a change keeps the promise."""
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


@dg.asset_check(
    asset=REPLICATION_DLQ.key,
    name=DLQ_EMPTY,
    description="No message of the replication queue was given up. The sensor `observe_replication` judges "
    "this every half minute; a run of the check reads it now.",
)
def replication_dlq_empty(workers: Workers) -> dg.AssetCheckResult:
    """Counts messages of the dead-letter queue, those in flight included."""
    with plain_failures():
        runtime = workers.runtime
        queue = runtime.queue(runtime.names.dead_letter_queue(runtime.names.replication_queue))
        depth = queue.depth().total
    return dg.AssetCheckResult(passed=depth == 0, metadata={"messages": depth})


@dg.asset_check(
    asset=ENTRIES.key,
    name=DEPENDENCIES_ANSWER,
    description="Whatever replication cannot do without answers. The sensor `observe_replication` judges this every "
    f"half minute, and fails it when somebody is silent for {SILENT_LOOKS} looks; a run of the check asks now.",
)
def dependencies_answer(tick_workers: Workers) -> dg.AssetCheckResult:
    """Asks all of them at once, without retries."""
    with plain_failures():
        found = answering(tick_workers.runtime)
    evaluation = found.evaluation(found.away)
    return dg.AssetCheckResult(
        passed=evaluation.passed, description=evaluation.description, metadata=evaluation.metadata
    )


def answering(runtime: Runtime) -> Answering:
    """One look. Raises UsageError when there is nobody to ask."""
    return Answering(ask(runtime, _NEEDED), DEPENDENCIES_ANSWER, ENTRIES.key)


def dlq_evaluation(depth: int) -> dg.AssetCheckEvaluation:
    """The same judgement, for a sensor to record."""
    return dg.AssetCheckEvaluation(
        check_name=DLQ_EMPTY,
        asset_key=REPLICATION_DLQ.key,
        passed=depth == 0,
        metadata={"messages": dg.MetadataValue.int(depth)},
    )
