"""Runbooks as jobs: what `regworkers runbook <name>` does, from the launchpad. Defaults only look."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.operations.runbooks import (
    campaign_configuration,
    cost,
    kafka,
    out_of_sync,
    selection_failures,
    stream_lag,
    time_outs,
    total_failure,
)
from regworkers_core.operations.runbooks.runbook import Row, RunbookReport
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.metadata import Metadata
from regworkers_dagster.operations.audit import launched_by_hand
from regworkers_dagster.resources import Workers, plain_failures
from regworkers_dagster.tags import OPERATION_TAG, short_run

_DRY = "Only look. Set it to false to change something; that is written down in the audit log."
_CAMPAIGN = "Only this campaign; empty: all."


class LookConfig(dg.Config):
    """How far to look back."""

    minutes: float = Field(default=30.0, ge=1, description="Minutes of `drain_log` to look back.")


class CostConfig(dg.Config):
    """How far to look back."""

    days: float = Field(default=7.0, gt=0, le=40, description="Days of `drain_log` to look back.")


class RecoveryConfig(dg.Config):
    """Whether to do it, and how fast."""

    dry_run: bool = Field(default=True, description=_DRY)
    entries: int = Field(default=1_000_000, ge=1, description="Stretch the times to so many entries.")
    rate: float | None = Field(
        default=None, gt=0, description="Keys a second; empty: replication.backfillItemsPerSecond."
    )


class SyncConfig(dg.Config):
    """What to compare, and whether to repair."""

    dry_run: bool = Field(default=True, description=_DRY)
    campaign_id: str | None = Field(default=None, description=_CAMPAIGN)
    yes_remove: int | None = Field(
        default=None,
        ge=0,
        description="A repair refuses to remove much of the replica. So many removals are right all the same.",
    )


class SelectionConfig(dg.Config):
    """What to explain, and whether to take it up again."""

    dry_run: bool = Field(default=True, description=_DRY)
    campaign_id: str | None = Field(
        default=None, description="Only this campaign; empty: all that are drawn."
    )
    market_id: str | None = Field(default=None, description="Take up only this market; empty: all.")


class ConfigurationConfig(dg.Config):
    """What to compare, and whether to clear Redis."""

    dry_run: bool = Field(default=True, description=_DRY)
    campaign_id: str | None = Field(
        default=None, description="Only this campaign; empty: all that are not completed."
    )


@dg.op(name="stream_lag", description="What bounds replication now, and which setting to change.")
def stream_lag_op(context: dg.OpExecutionContext, config: LookConfig, workers: Workers) -> None:
    """Changes nothing."""
    _look(context, workers, lambda runtime: stream_lag.run(runtime, minutes=config.minutes))


@dg.op(
    name="kafka", description="Brokers, topics, certificate, producer, age of the queue, time to data loss."
)
def kafka_op(context: dg.OpExecutionContext, config: LookConfig, workers: Workers) -> None:
    """Changes nothing."""
    _look(context, workers, lambda runtime: kafka.run(runtime, minutes=config.minutes))


@dg.op(name="time_outs", description="Whom the drains waited for, and how long each dependency takes now.")
def time_outs_op(context: dg.OpExecutionContext, config: LookConfig, workers: Workers) -> None:
    """Changes nothing."""
    _look(context, workers, lambda runtime: time_outs.run(runtime, minutes=config.minutes))


@dg.op(name="cost", description="Calls for a million entries by drain and service, and their list prices.")
def cost_op(context: dg.OpExecutionContext, config: CostConfig, workers: Workers) -> None:
    """Changes nothing."""
    _look(context, workers, lambda runtime: cost.run(runtime, days=config.days))


@dg.op(
    name="total_failure", description="Provisions, looks, rebuilds the replica, verifies; times each step."
)
def total_failure_op(context: dg.OpExecutionContext, config: RecoveryConfig, workers: Workers) -> None:
    """Can be repeated at any time."""

    def act(runtime: Runtime) -> RunbookReport:
        with StopSignal().on_signals() as stop:
            return total_failure.run(
                runtime,
                apply=not config.dry_run,
                entries=config.entries,
                rate=config.rate,
                on_line=context.log.info,
                stop=stop,
            )

    _act(context, workers, "total-failure", "all", {"rate": config.rate}, config.dry_run, act)


@dg.op(name="out_of_sync", description="Compares the replica with its source, repairs, compares again.")
def out_of_sync_op(context: dg.OpExecutionContext, config: SyncConfig, workers: Workers) -> None:
    """Can be repeated at any time."""

    def act(runtime: Runtime) -> RunbookReport:
        return out_of_sync.run(
            runtime,
            config.campaign_id,
            apply=not config.dry_run,
            yes_remove=config.yes_remove,
            on_line=context.log.info,
        )

    arguments = {"yesRemove": config.yes_remove}
    _act(context, workers, "out-of-sync", config.campaign_id, arguments, config.dry_run, act)


@dg.op(name="selection_failures", description="Explains what of a selection stands still, takes it up again.")
def selection_failures_op(context: dg.OpExecutionContext, config: SelectionConfig, workers: Workers) -> None:
    """Can be repeated at any time: nothing is assigned or told twice."""

    def act(runtime: Runtime) -> RunbookReport:
        return selection_failures.run(
            runtime, config.campaign_id, config.market_id, apply=not config.dry_run, run_id=context.run_id
        )

    arguments = {"market": config.market_id}
    _act(context, workers, "selection-failures", config.campaign_id, arguments, config.dry_run, act)


@dg.op(
    name="campaign_configuration", description="Compares campaigns in Redis with their source, clears those."
)
def campaign_configuration_op(
    context: dg.OpExecutionContext, config: ConfigurationConfig, workers: Workers
) -> None:
    """Does no harm."""

    def act(runtime: Runtime) -> RunbookReport:
        return campaign_configuration.run(runtime, config.campaign_id, apply=not config.dry_run)

    _act(context, workers, "campaign-configuration", config.campaign_id, {}, config.dry_run, act)


def _look(context: dg.OpExecutionContext, workers: Workers, look: Callable[[Runtime], RunbookReport]) -> None:
    bind(runId=context.run_id, worker="runbook")
    with plain_failures():
        report = look(workers.runtime)
    _tell(context, report)


def _act(
    context: dg.OpExecutionContext,
    workers: Workers,
    name: str,
    target: str | None,
    arguments: Mapping[str, Any],
    dry_run: bool,
    act: Callable[[Runtime], RunbookReport],
) -> None:
    bind(runId=context.run_id, worker="runbook")
    with plain_failures():
        runtime = workers.runtime
        what = f"runbook {name}"
        with launched_by_hand(
            context.run, runtime, what, target or "all", arguments, dry_run=dry_run
        ) as result:
            report = act(runtime)
            result["done"] = report.changed
    _tell(context, report)


def _tell(context: dg.OpExecutionContext, report: RunbookReport) -> None:
    """Metadata for the UI; a finding fails the run, so that its exit code tells."""
    context.log.info(report.summary)
    context.add_output_metadata(_metadata(report))
    if report.changed:
        context.log.info(report.changed)
    for finding in report.findings:
        context.log.warning(f"{finding.text}: {finding.advice}" if finding.advice else finding.text)
    if not report.fine:
        # Another try would find the same.
        raise dg.Failure(
            description="; ".join(each.text for each in report.findings),
            metadata=_metadata(report),
            allow_retries=False,
        )


def _metadata(report: RunbookReport) -> Metadata:
    found: Metadata = {
        "summary": dg.MetadataValue.text(report.summary),
        "page": dg.MetadataValue.text(report.page),
    }
    found |= {
        name: dg.MetadataValue.text(value) if isinstance(value, str) else dg.MetadataValue.float(float(value))
        for name, value in report.facts.items()
        if value is not None
    }
    found |= {name: _table(rows) for name, rows in report.tables.items() if rows}
    if report.findings:
        advice = [{"finding": each.text, "whatHelps": each.advice} for each in report.findings]
        found["findings"] = _table(advice)
    return found


def _table(rows: Any) -> dg.TableMetadataValue:
    def cell(value: object) -> str | int | float | bool | None:
        return value if value is None or isinstance(value, str | int | float | bool) else str(value)

    lines: list[Row] = list(rows)
    return dg.MetadataValue.table(
        records=[dg.TableRecord({name: cell(value) for name, value in line.items()}) for line in lines],
        schema=dg.TableSchema(columns=[dg.TableColumn(name, "any") for name in lines[0]]),
    )


def _job(op: dg.OpDefinition, operation: str, description: str) -> dg.JobDefinition:
    """One op, one job; runs of one `operation` are not at work at the same time. Those that are a reconcile or a
    backfill have no time limit, either.
    """
    graph = dg.GraphDefinition(name=f"runbook_{op.name}", node_defs=[op])
    return graph.to_job(
        tags={OPERATION_TAG: operation, **({} if operation in ("backfill", "reconcile") else short_run())},
        executor_def=dg.in_process_executor,
        description=f"{description} docs/runbooks/{op.name.replace('_', '-')}.md",
    )


_LOOKS = "Changes nothing. Fails when something is wrong, with what helps."
_ACTS = "Defaults only look: set dry_run to false to act. Fails when something is wrong, with what helps."
JOBS = [
    _job(
        stream_lag_op,
        "runbook-stream-lag",
        f"What bounds replication: shards, drains, throttling, save. {_LOOKS}",
    ),
    _job(
        total_failure_op,
        "backfill",
        f"After the loss of everything: provision, look, rebuild the replica, verify, each step timed. {_ACTS}",
    ),
    _job(out_of_sync_op, "reconcile", f"Replica and source: compare, repair, compare again. {_ACTS}"),
    _job(
        selection_failures_op,
        "runbook-selection-failures",
        f"Which draws and markets stand still, why, and taking them up again. {_ACTS}",
    ),
    _job(
        campaign_configuration_op,
        "runbook-campaign-configuration",
        f"Campaigns in Redis, MongoDB and the Campaign Service, compared; clears Redis where it differs. {_ACTS}",
    ),
    _job(
        kafka_op,
        "runbook-kafka",
        f"Brokers, topics, certificate, producer, queue, time to data loss. {_LOOKS}",
    ),
    _job(time_outs_op, "runbook-time-outs", f"Which dependency is slow, then and now. {_LOOKS}"),
    _job(cost_op, "runbook-cost", f"What a million entries cost, by service and drain. {_LOOKS}"),
]
