"""The health of the system: the doctor as an asset, the sensor of alerts, and what both know of Dagster itself
(daemons, ticks, failed runs).
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
import orjson
import structlog

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.snapshot import Budget, Snapshot, Unread
from regworkers_core.domain.timestamps import iso
from regworkers_core.observability.logs import describe
from regworkers_core.observability.metrics import BUDGET_LEFT, CONCURRENCY, EVALUATED, Metering
from regworkers_core.operation import EVERYTHING, Call, Report, Table, operation
from regworkers_core.operations.alerts.conditions.availability import ALERTS_SENSOR
from regworkers_core.operations.alerts.evaluate import SENSOR, Evaluation, Outage, evaluate
from regworkers_core.operations.doctor import Examination, examine_snapshot
from regworkers_core.operations.health.objectives import read_budgets
from regworkers_core.operations.health.rows import SECTIONS, RowState
from regworkers_core.operations.health.snapshot import read_system
from regworkers_core.operations.upkeep import Nothing
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.observing import unless_known
from regworkers_dagster.drains.sensing import Answer, ticking
from regworkers_dagster.factories import Declared, Flow, asset_job, sensor
from regworkers_dagster.launching import answered, verdict
from regworkers_dagster.resources import (
    ALL,
    TICK_CALL_SECONDS,
    AwsResource,
    KafkaResource,
    MongoResource,
    RedisResource,
    plain_failures,
    runtime_with,
)
from regworkers_dagster.runs import (
    OPERATION_TAG,
    scheduler_of,
    short_run,
)

log = structlog.get_logger(__name__)


SYSTEM_HEALTH = Flow("operations", owner="operations").asset(
    "system_health",
    "The state of the whole system: dependencies, queues and dead letters, stream, leases, drains, campaigns, parity, "
    "certificates, Dagster itself. `regworkers doctor` shows the same in a terminal. The sensor of alerts looks every "
    "minute and keeps the check up to date, so this runs only when an operator launches it. docs/doctor.md explains "
    "the table.",
    {"aws", "kafka", "mongodb"},
)
FINDS_NOTHING = dg.AssetCheckSpec(
    "doctor_finds_nothing",
    asset=SYSTEM_HEALTH.key,
    description="No condition of an alert holds, and everything could be read.",
)


@operation("", "doctor", uses=EVERYTHING, quick=True)
def doctor(call: Call, given: Nothing) -> Report:
    """Check everything in a few seconds, and change nothing. Fails when something is wrong or could not be read.

    The table says for each finding since when it holds, and what helps.
    """
    if call.face.scheduler is None:
        raise TypeError("the job asks Dagster itself; a terminal has a doctor of its own")
    snapshot = read_system(call.runtime, call.face.scheduler)
    report = report_of(examine_snapshot(call.runtime, snapshot))
    left = {f"budget_left_{each.objective}": 100 * each.left for each in _budgets(call.runtime, snapshot)}
    return replace(report, document=report.document | left)


@dg.multi_asset(
    name="examine_system",
    specs=[SYSTEM_HEALTH],
    check_specs=[FINDS_NOTHING],
    can_subset=False,
)
def examine_system(
    context: dg.AssetExecutionContext,
    aws: AwsResource,
    mongo: MongoResource,
    redis: RedisResource,
    kafka: KafkaResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Check the system. A finding fails the run, and with it the exit code of `dagster job execute`."""
    with plain_failures():
        runtime = runtime_with(aws, mongo, redis, kafka, call_seconds=TICK_CALL_SECONDS)
    report, metadata, _ = answered(doctor, context.op_execution_context, dg.Config(), runtime)
    check = dg.AssetCheckResult(**_verdict(report))
    yield dg.MaterializeResult(asset_key=SYSTEM_HEALTH.key, metadata=metadata, check_results=[check])
    if report.left:
        raise dg.Failure(description=report.left, allow_retries=False)


def _verdict(report: Report) -> dict[str, Any]:
    """Fields of a result of the doctor's check."""
    critical = report.document["state"] == RowState.CRITICAL
    severity = dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN
    return {**verdict(report, FINDS_NOTHING), "severity": severity}


DOCTOR = asset_job(
    doctor.job,
    dg.AssetSelection.assets(examine_system),
    tags={OPERATION_TAG: doctor.job, **short_run()},
    declared=Declared("operations"),
    description=doctor.description,
)


def report_of(examination: Examination) -> Report:
    """The numbers by state, all rows as a table, the worst first, and one line of what is wrong."""
    rows = sorted(examination.rows, key=lambda row: -row.state.rank)
    cells = [
        (SECTIONS[row.section].title, row.name, row.state, row.text, row.since or "", row.help)
        for row in rows
    ]
    facts: dict[str, Any] = {"state": examination.state.value, "findings": len(examination.found)}
    facts |= {state.value: sum(row.state is state for row in rows) for state in RowState if state.is_finding}
    facts |= {
        f"waiting_{row.name.replace('-', '_')}": sum(
            int(row.facts[part]) for part in ("visible", "inFlight", "delayed")
        )
        for row in rows
        if row.section in ("queues", "deadLetterQueues") and row.facts
    }
    wrong = [f"{each.state}: {each.summary}" for each in examination.found]
    wrong += [
        f"{SECTIONS[row.section].title}: {row.text}"
        for row in examination.rows
        if row.state is RowState.UNREAD
    ]
    words = "; ".join(wrong) or "nothing is wrong"
    table = Table("system", ("section", "name", "state", "", "since", "what to do"), cells)
    said, left = ([words], "") if examination.fine else ([], words)
    return Report(document=facts, tables=[table], said=said, left=left)


# The default of `alerts.lookSeconds`: an evaluation costs about a second of CPU, and every other sensor waits for it.
_INTERVAL_SECONDS = 60


@ticking
def alerts_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Read a snapshot (up to 3 s), open and close incidents, and notify the channels (up to 4 s)."""
    snapshot = read_system(
        runtime, lambda: scheduler_of(context.instance, context.repository_def, time.time())
    )
    found = evaluate(runtime, snapshot, by=SENSOR, outage=outage_of(context.cursor))
    if found.outage is None:
        runtime.metrics.put([Metering(EVALUATED, 1), *_running(snapshot), *_hourly(runtime, snapshot)])
    examination = examine_snapshot(runtime, snapshot)
    check = dg.AssetCheckEvaluation(**_verdict(report_of(examination)))
    return dg.SensorResult(
        skip_reason=alerts_in_words(found),
        cursor=orjson.dumps(found.outage.as_state()).decode() if found.outage else "",
        asset_events=unless_known(context.instance, check),
    )


def _running(snapshot: Snapshot) -> Iterator[Metering]:
    for drain in () if isinstance(snapshot.drains, Unread) else snapshot.drains:
        yield Metering(CONCURRENCY, drain.active_runs, {"Drain": drain.name})


def _hourly(runtime: Runtime, snapshot: Snapshot) -> list[Metering]:
    """What is left of the budgets in percent, once or twice an hour: it reads a month of `drain_log`."""
    if runtime.clock() % 3600 > 2 * _INTERVAL_SECONDS:
        return []
    return [
        Metering(BUDGET_LEFT, 100 * each.left, {"Objective": each.objective})
        for each in _budgets(runtime, snapshot)
    ]


def _budgets(runtime: Runtime, snapshot: Snapshot) -> tuple[Budget, ...]:
    """None where they could not be read."""
    if isinstance(snapshot.campaigns, Unread):
        return ()
    try:
        return read_budgets(runtime, snapshot.campaigns)
    except TransientFailure as failure:
        log.warning("budgets not read", error=describe(failure))
        return ()


def outage_of(cursor: str | None) -> Outage | None:
    """What the last tick knew of an outage of MongoDB. A cursor is a hint: unknown content is ignored."""
    try:
        state = orjson.loads(cursor or "")
    except orjson.JSONDecodeError:
        return None
    return Outage.parse(state) if isinstance(state, dict) else None


def alerts_in_words(found: Evaluation) -> str:
    """The result of an evaluation, for the sensor's page in the UI."""
    if found.outage:
        notified = ", ".join(sorted(found.outage.notified)) or "no channel yet"
        since = iso(found.outage.since)
        return f"MongoDB does not answer since {since}: no incident is opened or closed; notified: {notified}"
    lines = [f"{len(found.open)} incidents are open"]
    lines += [f"{each.alert.severity.value} {each.alert.key}: {each.alert.summary}" for each in found.open]
    by_reason: dict[str, list[str]] = {}
    for name, why in found.unknown.items():
        by_reason.setdefault(why, []).append(name)
    lines += [f"could not be read: {', '.join(names)} ({why})" for why, names in by_reason.items()]
    return "\n".join(lines)


SENSORS = (
    sensor(
        ALERTS_SENSOR,
        alerts_tick,
        every_seconds=_INTERVAL_SECONDS,
        uses=ALL,
        description="Checks the whole system every minute, opens and closes incidents, and notifies every channel. "
        "docs/alerts.md lists the conditions; `regworkers alerts` shows open incidents.",
    ),
)
