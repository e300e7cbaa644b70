"""The doctor as an asset: one look at the whole system, with its rows as a table and its numbers to plot."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import time
from collections.abc import Iterator

import dagster as dg

from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.snapshot import SchedulerState
from regworkers_core.observability.logs import bind
from regworkers_core.operations.health.doctor import Examination, examine_snapshot
from regworkers_core.operations.health.rows import SECTIONS, State
from regworkers_core.operations.health.snapshot import read_system
from regworkers_dagster.drains.metadata import Metadata
from regworkers_dagster.operations.scheduler import scheduler_of
from regworkers_dagster.resources import Workers, plain_failures
from regworkers_dagster.tags import OPERATION_TAG, short_run

SYSTEM_HEALTH = dg.AssetSpec(
    "system_health",
    description="The whole system at one look: dependencies, queues and dead letters, stream, leases, drains, "
    "campaigns, parity, certificates, Dagster itself. `regworkers doctor` shows the same in a terminal; the sensor of "
    "alerts looks by itself every minute, so nothing runs this but people. docs/doctor.md explains the table.",
    kinds={"aws", "kafka", "mongodb"},
    group_name="operations",
    owners=["team:operations"],
    tags={"regworkers/flow": "operations"},
)
FINDS_NOTHING = dg.AssetCheckSpec(
    "doctor_finds_nothing",
    asset=SYSTEM_HEALTH.key,
    description="No condition of an alert holds, and everything could be read.",
)


@dg.multi_asset(name="examine_system", specs=[SYSTEM_HEALTH], check_specs=[FINDS_NOTHING], can_subset=False)
def examine_system(
    context: dg.AssetExecutionContext, tick_workers: Workers
) -> Iterator[dg.MaterializeResult[None]]:
    """Looks, and fails its run when something is wrong: the exit code of `dagster job execute` tells."""
    bind(runId=context.run.run_id, worker="doctor")
    with plain_failures():
        runtime = tick_workers.runtime
        snapshot = read_system(runtime, lambda: _scheduler(context.instance))
        examination = examine_snapshot(runtime, snapshot)
    metadata = of_examination(examination)
    check = dg.AssetCheckResult(
        check_name=FINDS_NOTHING.name,
        asset_key=SYSTEM_HEALTH.key,
        passed=examination.fine,
        severity=dg.AssetCheckSeverity.ERROR
        if examination.state is State.CRITICAL
        else dg.AssetCheckSeverity.WARN,
        description=in_words(examination),
        metadata=metadata,
    )
    yield dg.MaterializeResult(asset_key=SYSTEM_HEALTH.key, metadata=metadata, check_results=[check])
    if not examination.fine:
        raise dg.Failure(description=in_words(examination), allow_retries=False)


def _scheduler(instance: dg.DagsterInstance) -> SchedulerState:
    # Late, for they hold this asset.
    from regworkers_dagster.definitions import defs

    found = scheduler_of(instance, defs.get_repository_def(), time.time())
    if not any(found.daemons.values()):
        raise UsageError("no daemon was ever started on this instance of Dagster")
    return found


DOCTOR = dg.define_asset_job(
    "doctor",
    selection=dg.AssetSelection.assets(examine_system),
    tags={OPERATION_TAG: "doctor", **short_run()},
    executor_def=dg.in_process_executor,
    description="Everything at one look, in some seconds; changes nothing. Fails when something is wrong or could not "
    "be read. `regworkers doctor` in the terminal shows the same.",
)


def in_words(examination: Examination) -> str:
    """One line: what is wrong, the worst first."""
    wrong = [f"{each.state}: {each.summary}" for each in examination.found]
    unread = [f"{SECTIONS[row.section]}: {row.text}" for row in examination.rows if row.state is State.UNREAD]
    return "; ".join([*wrong, *unread]) or "nothing is wrong"


def of_examination(examination: Examination) -> Metadata:
    """Numbers by state, and all rows as a table in which the worst come first."""
    rows = sorted(examination.rows, key=lambda row: -list(State).index(row.state))
    metadata: Metadata = {
        "state": dg.MetadataValue.text(examination.state.value),
        "findings": dg.MetadataValue.int(len(examination.found)),
        **{
            state.value: dg.MetadataValue.int(sum(row.state is state for row in rows))
            for state in State
            if state.is_finding
        },
        "system": dg.MetadataValue.md(
            "\n".join(
                [
                    "| | | state | | since | what helps |",
                    "|---|---|---|---|---|---|",
                    *(
                        _line(SECTIONS[row.section], row.name, row.state, row.text, row.since or "", row.help)
                        for row in rows
                    ),
                ]
            )
        ),
    }
    metadata |= {
        f"waiting_{row.name.replace('-', '_')}": dg.MetadataValue.int(
            sum(int(row.facts[part]) for part in ("visible", "inFlight", "delayed"))
        )
        for row in rows
        if row.section in ("queues", "deadLetterQueues") and row.facts
    }
    return metadata


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
