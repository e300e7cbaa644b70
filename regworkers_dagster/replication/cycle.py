"""The cycle of reconcile on several workers at once: steps that an executor runs beside each other."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.observability.logs import bind
from regworkers_core.replication.operations import compared
from regworkers_core.replication.reconcile.reconciliation import reconcile
from regworkers_dagster.factories import fields_of
from regworkers_dagster.launching import materialised, verdict
from regworkers_dagster.pods import Declared, tags_of
from regworkers_dagster.replication.checks import PARITY
from regworkers_dagster.resources import STORES, plain_failures, runtime_of
from regworkers_dagster.runs import OPERATION_TAG


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
        report = compared(reconcile(runtime_of(context), cycle=True, on_phase=context.log.info))
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
