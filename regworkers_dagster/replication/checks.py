"""The checks of replication: no dead letters, dependencies that answer, a replica that equals its source."""

import dagster as dg

from regworkers_core.domain.activity import DrainWindow
from regworkers_core.operations.dependency_status import ask
from regworkers_core.operations.health.activity import Activity
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_core.replication.operations import reconcile
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.observing import SILENT_PROBES, Answering, dlq_check
from regworkers_dagster.launching import check
from regworkers_dagster.replication.assets import ENTRIES, RECONCILE_RESULTS, REPLICATION_DLQ
from regworkers_dagster.resources import (
    STORES,
    TICK_CALL_SECONDS,
    plain_failures,
    runtime_of,
)

DEPENDENCIES_ANSWER = "dependencies_answer"
LAG_WITHIN_OBJECTIVE = "lag_within_objective"
# The share of changes that may be late.
_LATE = 0.05
_NEEDED = sorted({*ENQUEUE.needs, *SAVE.needs})
PARITY = dg.AssetCheckSpec(
    "parity",
    # Not of `entries`, which every drain materialises: the UI would show the result until the next one.
    asset=RECONCILE_RESULTS.key,
    description="Every entry of the demand table is in the replica with the same content, and nothing else. "
    "Changes younger than the lag objective do not count. The result says since when every entry was verified.",
)

replication_dlq_empty = dlq_check(
    REPLICATION_DLQ,
    lambda names: names.replication_queue,
    sensor="observe_replication",
    lost="message of the replication queue",
)


@dg.asset_check(
    asset=ENTRIES.key,
    name=DEPENDENCIES_ANSWER,
    description="Every dependency that replication needs answers. The sensor `observe_replication` probes them every "
    f"half minute, and fails the check after {SILENT_PROBES} failed probes in a row; a run of the check probes now.",
    config_schema={},
    required_resource_keys=set(STORES),
)
def dependencies_answer(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Probe all of them at once, without retries."""
    with plain_failures():
        found = answering(runtime_of(context, call_seconds=TICK_CALL_SECONDS))
    evaluation = found.evaluation(found.unavailable)
    return dg.AssetCheckResult(
        passed=evaluation.passed, description=evaluation.description, metadata=evaluation.metadata
    )


def answering(runtime: Runtime) -> Answering:
    """One probe of each dependency. Raises UsageError when none is configured."""
    return Answering(ask(runtime, _NEEDED), DEPENDENCIES_ANSWER, ENTRIES.key)


@dg.asset_check(
    asset=ENTRIES.key,
    name=LAG_WITHIN_OBJECTIVE,
    description="95 % of the changes of the last minutes were in the replica within "
    "`replication.lagObjectiveSeconds` of their `updatedAt`. The sensor `observe_replication` looks every half minute; "
    "a run of the check looks now.",
    config_schema={},
    required_resource_keys=set(STORES),
)
def lag_within_objective(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """By what all drains have recorded, in whichever way they run."""
    with plain_failures():
        found = lag_evaluation(runtime_of(context))
    return dg.AssetCheckResult(passed=found.passed, severity=found.severity, metadata=found.metadata)


def lag_evaluation(runtime: Runtime) -> dg.AssetCheckEvaluation:
    """The check as of now; it passes without a change. Raises TransientFailure."""
    saved = Activity(runtime).last(60).get(SAVE.name) or DrainWindow(SAVE.name)
    return dg.AssetCheckEvaluation(
        asset_key=ENTRIES.key,
        check_name=LAG_WITHIN_OBJECTIVE,
        passed=saved.late <= _LATE * saved.measured,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "objective_seconds": runtime.settings.replication.lag_objective_seconds,
            "changes": saved.measured,
            "late": saved.late,
        },
    )


def is_in_time(lags: dg.AssetCheckEvaluation | None) -> bool:
    """Whether changes are being saved within the objective: under load the queue is never empty."""
    return lags is not None and lags.passed and bool(lags.metadata["changes"].value)


parity = check(reconcile, PARITY)
