"""Runbooks as jobs: what `regworkers runbook <name>` does, from the launchpad. By default they change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_dagster.factories import ApplyConfig, Body, one_op_job
from regworkers_dagster.metadata import Metadata, facts_as_metadata, records
from regworkers_dagster.operations.health import scheduler_here
from regworkers_dagster.resources import ALL, STORES
from regworkers_dagster.runs import OPERATION_TAG, launched_by_hand, short_run

if TYPE_CHECKING:
    from regworkers_core.operations.runbook import RunbookReport

_APPLY = "Change it; the audit log records that. Without, the run only checks."
_CHECKS = "Changes nothing. Fails when something is wrong, and says what to do."
_ACTS = "Only checks, unless `apply` is true. Fails when something is wrong, and says what to do."


class PeriodConfig(dg.Config):
    minutes: float = Field(default=30.0, ge=1, description="How many minutes of `drain_log` to read.")


class CostConfig(dg.Config):
    days: float = Field(default=7.0, gt=0, le=40, description="How many days of `drain_log` to read.")


class RecoveryConfig(ApplyConfig):
    """Whether to rebuild, and how fast."""

    apply: bool = Field(default=False, description=_APPLY)
    entries: int = Field(
        default=1_000_000, ge=1, description="Extrapolate the times to this number of entries."
    )
    rate: float | None = Field(
        default=None, gt=0, description="Keys a second; empty: replication.backfillItemsPerSecond."
    )


class SyncConfig(ApplyConfig):
    """What to compare, and whether to repair."""

    apply: bool = Field(default=False, description=_APPLY)
    campaign_id: str | None = Field(
        default=None, description="Only this campaign, by id or slug; empty: all."
    )
    yes_remove: int | None = Field(
        default=None,
        ge=0,
        description="A repair refuses to remove much of the replica. This number of removals is intended.",
    )


class SelectionConfig(ApplyConfig):
    """What to explain, and whether to retry it."""

    apply: bool = Field(default=False, description=_APPLY)
    campaign_id: str | None = Field(
        default=None, description="Only this campaign, by id or slug; empty: all that are drawn."
    )
    market_id: str | None = Field(default=None, description="Retry only this market; empty: all.")


class ConfigurationConfig(ApplyConfig):
    """What to compare, and whether to clear Redis."""

    apply: bool = Field(default=False, description=_APPLY)
    campaign_id: str | None = Field(
        default=None, description="Only this campaign, by id or slug; empty: all that are not completed."
    )


def _runbook(
    name: str, description: str, operation: str = "", uses: Set[str] = STORES
) -> Callable[[Body], dg.JobDefinition]:
    """A job of one op; runs of one `operation` exclude each other. A reconcile or a backfill has no time limit."""
    tags = {OPERATION_TAG: operation or f"runbook-{name.replace('_', '-')}"}
    return one_op_job(
        f"runbook_{name}",
        step=name,
        tags=tags if operation else {**tags, **short_run()},
        worker="runbook",
        uses=uses,
        description=f"{description} docs/runbooks/{name.replace('_', '-')}.md",
    )


@_runbook(
    "stream_lag",
    f"What bounds replication: shards, drains, throttling, save. {_CHECKS}",
)
def runbook_stream_lag(context: dg.OpExecutionContext, config: PeriodConfig, runtime: Runtime) -> None:
    """What bounds replication now, and which setting to change."""
    from regworkers_core.operations.runbooks import stream_lag

    _report(context, stream_lag.run(runtime, minutes=config.minutes))


@_runbook(
    "kafka",
    f"Brokers, topics, certificate, producer, queue, time to data loss. {_CHECKS}",
    uses={"aws", "mongo", "kafka"},
)
def runbook_kafka(context: dg.OpExecutionContext, config: PeriodConfig, runtime: Runtime) -> None:
    """Brokers, topics, certificate, producer, age of the queue, time to data loss."""
    from regworkers_core.operations.runbooks import kafka

    _report(context, kafka.run(runtime, minutes=config.minutes))


@_runbook(
    "time_outs",
    f"Which dependency is slow, then and now. {_CHECKS}",
    uses=ALL,
)
def runbook_time_outs(context: dg.OpExecutionContext, config: PeriodConfig, runtime: Runtime) -> None:
    """Which dependency the drains waited for, and how long each takes now."""
    from regworkers_core.operations.runbooks import time_outs

    _report(context, time_outs.run(runtime, minutes=config.minutes))


@_runbook(
    "cost",
    f"What a million entries cost, by service and drain. {_CHECKS}",
)
def runbook_cost(context: dg.OpExecutionContext, config: CostConfig, runtime: Runtime) -> None:
    """Calls for a million entries by drain and service, and their list prices."""
    from regworkers_core.operations.runbooks import cost

    _report(context, cost.run(runtime, days=config.days))


@_runbook(
    "total_failure",
    f"After the loss of everything: provision, check, rebuild the replica, verify, each step timed. {_ACTS}",
    operation="backfill",
    uses=ALL,
)
def runbook_total_failure(context: dg.OpExecutionContext, config: RecoveryConfig, runtime: Runtime) -> None:
    """Provisions, checks, rebuilds the replica, verifies; times each step."""
    from regworkers_core.operations.runbooks import total_failure

    def act() -> RunbookReport:
        with StopSignal().on_signals() as stop:
            return total_failure.run(
                runtime,
                apply=config.apply,
                entries=config.entries,
                rate=config.rate,
                on_line=context.log.info,
                stop=stop,
                scheduler=lambda: scheduler_here(context.instance),
            )

    _act(context, runtime, "total-failure", config, None, {"rate": config.rate}, act)


@_runbook(
    "out_of_sync",
    f"Replica and source: compare, repair, compare again. {_ACTS}",
    operation="reconcile",
)
def runbook_out_of_sync(context: dg.OpExecutionContext, config: SyncConfig, runtime: Runtime) -> None:
    """Compares the replica with its source, repairs, compares again."""
    from regworkers_core.operations.runbooks import out_of_sync

    def act() -> RunbookReport:
        return out_of_sync.run(
            runtime,
            config.campaign_id and runtime.campaigns.id_of(config.campaign_id),
            apply=config.apply,
            yes_remove=config.yes_remove,
            on_line=context.log.info,
        )

    arguments = {"yesRemove": config.yes_remove}
    _act(context, runtime, "out-of-sync", config, config.campaign_id, arguments, act)


@_runbook(
    "selection_failures",
    f"Which draws and markets are stalled, why, and a retry of them. {_ACTS}",
)
def runbook_selection_failures(
    context: dg.OpExecutionContext, config: SelectionConfig, runtime: Runtime
) -> None:
    """Explains what stalls a selection, and retries it."""
    from regworkers_core.operations.runbooks import selection_failures

    def act() -> RunbookReport:
        return selection_failures.run(
            runtime, config.campaign_id, config.market_id, apply=config.apply, run_id=context.run_id
        )

    arguments = {"market": config.market_id}
    _act(context, runtime, "selection-failures", config, config.campaign_id, arguments, act)


@_runbook(
    "campaign_configuration",
    f"Campaigns in Redis, MongoDB and the Campaign Service, compared; clears Redis where it differs. {_ACTS}",
    uses={"aws", "mongo", "redis"},
)
def runbook_campaign_configuration(
    context: dg.OpExecutionContext, config: ConfigurationConfig, runtime: Runtime
) -> None:
    """Compares campaigns in Redis with their source, and clears those that differ."""
    from regworkers_core.operations.runbooks import campaign_configuration

    def act() -> RunbookReport:
        campaign_id = config.campaign_id and runtime.campaigns.id_of(config.campaign_id)
        return campaign_configuration.run(runtime, campaign_id, apply=config.apply)

    _act(context, runtime, "campaign-configuration", config, config.campaign_id, {}, act)


def _act(
    context: dg.OpExecutionContext,
    runtime: Runtime,
    name: str,
    config: ApplyConfig,
    target: str | None,
    arguments: Mapping[str, Any],
    act: Callable[[], RunbookReport],
) -> None:
    with launched_by_hand(
        context.run, runtime, f"runbook {name}", target or "all", arguments, dry_run=not config.apply
    ) as result:
        report = act()
        result["done"] = report.changed
    _report(context, report)


def _report(context: dg.OpExecutionContext, report: RunbookReport) -> None:
    """Log and metadata of the report. A finding fails the run, and with it the exit code."""
    context.log.info(report.summary)
    context.add_output_metadata(_metadata(report))
    if report.changed:
        context.log.info(report.changed)
    for finding in report.findings:
        context.log.warning(f"{finding.text}: {finding.advice}" if finding.advice else finding.text)
    if not report.fine:
        # A retry would find the same.
        raise dg.Failure(
            description="; ".join(each.text for each in report.findings),
            metadata=_metadata(report),
            allow_retries=False,
        )


def _metadata(report: RunbookReport) -> Metadata:
    numbers = {
        name: value if value is None or isinstance(value, str) else float(value)
        for name, value in report.facts.items()
    }
    tables = {name: records(list(rows)) for name, rows in report.tables.items() if rows}
    found = [{"finding": each.text, "whatHelps": each.advice} for each in report.findings]
    findings = {"findings": records(found)} if found else {}
    return facts_as_metadata(
        {"summary": report.summary, "page": report.page, **numbers, **tables, **findings}
    )


JOBS = (
    runbook_stream_lag,
    runbook_total_failure,
    runbook_out_of_sync,
    runbook_selection_failures,
    runbook_campaign_configuration,
    runbook_kafka,
    runbook_time_outs,
    runbook_cost,
)
