"""The checks of replication: no dead letters, dependencies that answer, a replica that equals its source. The cycle of
the last one also runs on several workers at once, as steps that an executor runs beside each other.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.domain.activity import DrainWindow
from regworkers_core.observability.logs import bind
from regworkers_core.operations.dependency_status import ask
from regworkers_core.operations.health.activity import Activity
from regworkers_core.replication import operations
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_core.replication.reconcile.reconciliation import reconcile
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.observing import SILENT_PROBES, Answering, dlq_check
from regworkers_dagster.factories import fields_of
from regworkers_dagster.launching import check, materialised, verdict
from regworkers_dagster.pods import Declared, tags_of
from regworkers_dagster.replication.assets import ENTRIES, RECONCILE_RESULTS, REPLICATION_DLQ
from regworkers_dagster.resources import (
    STORES,
    TICK_CALL_SECONDS,
    plain_failures,
    runtime_of,
)
from regworkers_dagster.runs import OPERATION_TAG

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
    """The lag is what all drains have recorded, in whichever way they run."""
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


parity = check(operations.reconcile, PARITY)


class VerifyConfig(dg.Config):
    """Among how many workers."""

    workers: int = Field(
        default=4, ge=1, le=64, description="Steps that compare at once, as the executor runs them."
    )


@dg.op(
    name="share",
    description="Shares the cycle among workers.",
    config_schema=fields_of(VerifyConfig),
    out=dg.DynamicOut(dg.Nothing),
)
def share_cycle(context: dg.OpExecutionContext) -> Iterator[dg.DynamicOutput[None]]:
    """A worker has no part of its own: each takes the segments that are due, under their leases."""
    for number in range(VerifyConfig(**context.op_config).workers):
        yield dg.DynamicOutput(None, mapping_key=str(number))


@dg.op(
    name="verify",
    description="Compares segments that are due until none is left.",
    config_schema=fields_of(VerifyConfig),
    ins={"start": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    required_resource_keys=set(STORES),
)
def verify_segments(context: dg.OpExecutionContext) -> None:
    """One of the workers, which have the budget of read units together."""
    bind(runId=context.run_id, worker="verify")
    workers = VerifyConfig(**context.op_config).workers
    with plain_failures(context):
        reconcile(runtime_of(context), cycle=True, workers=workers, on_phase=context.log.info)


@dg.op(
    name="report",
    description="Compares what a lost worker has left, and evaluates `parity`.",
    ins={"done": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    required_resource_keys=set(STORES),
)
def report_cycle(
    context: dg.OpExecutionContext,
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output[None]]:
    """A difference fails the check and then the run."""
    bind(runId=context.run_id, worker="verify")
    with plain_failures(context):
        report = operations.compared(reconcile(runtime_of(context), cycle=True, on_phase=context.log.info))
    yield from materialised(report, PARITY)
    yield dg.AssetCheckEvaluation(**verdict(report, PARITY))
    if report.left:
        raise dg.Failure(description=report.left, allow_retries=False)
    yield dg.Output(None)


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"ops": {step: {"config": config} for step in ("share", "verify")}}


@dg.job(
    name="verify_entries",
    config=dg.ConfigMapping(_shared, config_schema=fields_of(VerifyConfig)),
    tags={OPERATION_TAG: "reconcile", **tags_of(Declared("replication", "large"))},
    executor_def=dg.multi_or_in_process_executor,
    description="The cycle of `reconcile_entries` on several workers at once. An executor that starts pods spreads "
    "them over machines. Repairs nothing.",
)
def verify_entries() -> None:
    """Share, verify, report."""
    report_cycle(share_cycle().map(verify_segments).collect())
