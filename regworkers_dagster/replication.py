"""Replication: its assets in the order of the data flow, its checks, and what starts its drains and observes queues,
stream and replica.

The checks: no dead letters, dependencies that answer, a replica that equals its source. The cycle of the last one also
runs on several workers at once, as steps that an executor runs beside each other.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.adapters.aws.streams import known_stream
from regworkers_core.adapters.mongo.activity import ReconcileSummary
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.entry import FIELDS, REPLICA_FIELDS
from regworkers_core.drains.runner import DrainSpec, number_of
from regworkers_core.observability.logs import bind
from regworkers_core.observability.metrics import ITERATOR_AGE, Metering
from regworkers_core.operations.dependency_status import ask
from regworkers_core.operations.health.activity import Activity
from regworkers_core.replication import operations
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_core.replication.enqueue.stream_probe import oldest_unread, stream_lag
from regworkers_core.replication.reconcile.reconciliation import Comparing, reconcile
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.decisions import Decision, by_age
from regworkers_dagster.drains.observing import (
    DOCUMENTS,
    SILENT_PROBES,
    Answering,
    Reading,
    depth_of,
    dlq_check,
    minutes_outside,
    observed,
    or_none,
    pause_state,
    unless_known,
)
from regworkers_dagster.drains.running import automated
from regworkers_dagster.drains.sensing import Answer, Startable, depth_tick, ticking
from regworkers_dagster.factories import (
    KEPT_FRESH,
    Declared,
    Flow,
    columns_of,
    fields_of,
    schedule,
    sensor,
    tags_of,
)
from regworkers_dagster.launching import check, job_of_check, materialised, verdict
from regworkers_dagster.resources import (
    TICK_CALL_SECONDS,
    AwsResource,
    MongoResource,
    plain_failures,
    runtime_with,
)
from regworkers_dagster.runs import OPERATION_TAG

_FLOW = Flow("replication", owner="replication")
_PERSONAL = {"regworkers/contains": "personal-data"}
# Both sides of replication have them.
_COLUMNS = {name: FIELDS[name].wanted if name in FIELDS else "" for name in REPLICA_FIELDS}

DEMAND_TABLE = _FLOW.asset(
    "demand_table",
    "DynamoDB table that the platform writes entries to, and its stream. Observed: the age of the oldest unread "
    "stream record.",
    {"dynamodb"},
    columns=_COLUMNS,
    tags=_PERSONAL,
    freshness_policy=KEPT_FRESH,
)
REPLICATION_QUEUE = _FLOW.asset(
    "replication_queue",
    "SQS queue with keys of changed entries, up to 100 a message. Filled by `enqueue_entries`: its numbers "
    "every minute. Observed: its depth.",
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
    "removed one. Filled by `save_entries`: its numbers every minute. Observed: documents, tombstones included.",
    {"mongodb"},
    columns=_COLUMNS,
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
    columns=columns_of(ReconcileSummary),
    deps=[DEMAND_TABLE, ENTRIES],
    freshness_policy=dg.FreshnessPolicy.cron("0 6 * * *", timedelta(hours=24)),
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
)
def dependencies_answer(aws: AwsResource, mongo: MongoResource) -> dg.AssetCheckResult:
    """Probe all of them at once, without retries."""
    with plain_failures():
        found = answering(runtime_with(aws, mongo, call_seconds=TICK_CALL_SECONDS))
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
)
def lag_within_objective(aws: AwsResource, mongo: MongoResource) -> dg.AssetCheckResult:
    """The lag is what all drains have recorded, in whichever way they run."""
    with plain_failures():
        found = lag_evaluation(runtime_with(aws, mongo))
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
)
def verify_segments(context: dg.OpExecutionContext, aws: AwsResource, mongo: MongoResource) -> None:
    """One of the workers, which have the budget of read units together."""
    bind(runId=context.run_id, worker="verify")
    workers = VerifyConfig(**context.op_config).workers
    with plain_failures(context):
        runtime = runtime_with(aws, mongo)
        reconcile(runtime, Comparing(cycle=True), workers=workers, on_phase=context.log.info)


@dg.op(
    name="report",
    description="Compares what a lost worker has left, and evaluates `parity`.",
    ins={"done": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
)
def report_cycle(
    context: dg.OpExecutionContext, aws: AwsResource, mongo: MongoResource
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output[None]]:
    """A difference fails the check and then the run."""
    bind(runId=context.run_id, worker="verify")
    with plain_failures(context):
        report = operations.compared(
            reconcile(runtime_with(aws, mongo), Comparing(cycle=True), on_phase=context.log.info)
        )
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
    description="Compares as `reconcile_entries` does, on several workers (machines, where an executor starts pods) at "
    "once, and repairs nothing.",
)
def verify_entries() -> None:
    """Share, verify, report."""
    report_cycle(share_cycle().map(verify_segments).collect())


RECONCILE_ENTRIES = job_of_check(operations.reconcile, parity)
SCHEDULES = (
    schedule(
        "reconcile_nightly",
        RECONCILE_ENTRIES,
        "10 2 * * *",
        "Compares every segment of both sides once a night, within the budget of read units, and repairs nothing. It "
        "goes on where a night before had not come to.",
        operations.reconcile.request(cycle=True),
    ),
)
_ENQUEUE, _SAVE = Startable(ENQUEUE), Startable(SAVE)
_OBSERVE_INTERVAL_SECONDS = 30
_UNREAD = "oldest_unread_seconds"


@ticking
def enqueue_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Starts a drain of the demand table's stream when records are unread and no drain reads them, and the next one
    shortly before the last one ends. On an idle system it starts the save drain, too, which is ready when the first
    message arrives.
    """
    staff = _ENQUEUE.staff(context, runtime)
    decision = by_age(
        # It peeks into the stream only while no drain reads it: a shard supports two readers.
        None if staff.active else oldest_unread(runtime.streams, runtime.leases, now=runtime.clock()),
        staff,
        objective_seconds=runtime.settings.replication.lag_objective_seconds,
        max_drains=number_of(runtime.settings, ENQUEUE.most_drains),
    )
    obstacle = _ENQUEUE.obstacle(context, runtime, decision)
    if obstacle is not None:
        return dg.SkipReason(obstacle)
    requests = _ENQUEUE.requests(runtime, decision)
    # Where residents are wanted, the sensor of the queue starts both of its own.
    alone = not staff.residents and not _SAVE.staff(context, runtime).active
    ahead = Decision(int(alone), "none is active")
    if _SAVE.obstacle(context, runtime, ahead) is None:
        requests += _SAVE.requests(runtime, ahead)
    return dg.SensorResult(run_requests=requests)


save_tick = depth_tick(SAVE)
_SAVE_ENTRIES = automated(SAVE, ENTRIES, tick=save_tick)
DRAINS = (
    automated(ENQUEUE, REPLICATION_QUEUE, tick=enqueue_tick, also=[_SAVE_ENTRIES]),
    _SAVE_ENTRIES,
)


@ticking
def observe_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Write what changed enough since it was last written."""
    # Probed first: an open breaker then spares the readings the wait for an unavailable dependency.
    found = answering(runtime)
    lags = or_none(lambda: lag_evaluation(runtime))
    readings = read_all(runtime, lags)
    put_iterator_age(runtime, readings)
    drains: dict[dg.AssetKey, DrainSpec[Any]] = {REPLICATION_QUEUE.key: ENQUEUE, ENTRIES.key: SAVE}
    on_minutes = partial(minutes_outside, context.instance, runtime, drains)
    news = partial(unless_known, context.instance)
    answer = observed(runtime.settings, context.cursor, readings, found, news=news, on_minutes=on_minutes)
    return dg.SensorResult(
        asset_events=[*answer.asset_events, *(unless_known(context.instance, lags) if lags else ())],
        cursor=answer.cursor,
        skip_reason=answer.skip_reason,
    )


def read_all(runtime: Runtime, lags: dg.AssetCheckEvaluation | None) -> list[Reading]:
    """Read every asset of replication. Raises nothing for what does not answer. `lags` is the check of the lag."""
    names = runtime.names
    unread, queue = or_none(lambda: _lag(runtime)), depth_of(runtime, names.replication_queue)
    behind = unread is None or unread > runtime.settings.replication.lag_objective_seconds
    return [
        Reading.of(DEMAND_TABLE, {_UNREAD: unread, **pause_state(runtime, ENQUEUE.name)}),
        Reading.of(REPLICATION_QUEUE, {**queue, **pause_state(runtime, SAVE.name)}),
        Reading.of(REPLICATION_DLQ, depth_of(runtime, names.dead_letter_queue(names.replication_queue))),
        Reading.of(
            ENTRIES,
            {DOCUMENTS: or_none(runtime.replica.estimate)},
            current=not behind and (set(queue.values()) == {0.0} or is_in_time(lags)),
        ),
        # A comparison makes it fresh, and no look at it.
        Reading.of(
            RECONCILE_RESULTS, {DOCUMENTS: or_none(runtime.reconcile_results.estimate)}, current=False
        ),
    ]


def put_iterator_age(runtime: Runtime, readings: Iterable[Reading]) -> None:
    """Write the age as a metric, with every tick: AWS measures it only for its own functions. Once for the table, which
    alarms name, and once for the stream, as the operations manual names it.
    """
    name = DEMAND_TABLE.key.to_user_string()
    age = next((reading.numbers.get(_UNREAD) for reading in readings if reading.asset == name), None)
    if age is None:
        return
    stream = or_none(lambda: known_stream(runtime.leases, runtime.names.demand_table))
    places = [{"TableName": runtime.names.demand_table}]
    places += [{"StreamLabel": stream.arn.rpartition("/")[2]}] if stream else []
    runtime.metrics.put([Metering(ITERATOR_AGE, age * 1000, place) for place in places])


def _lag(runtime: Runtime) -> float | None:
    lag = stream_lag(runtime.streams, runtime.leases, now=runtime.clock())
    return None if lag is None else round(lag, 1)


SENSORS = (
    sensor(
        "observe_replication",
        observe_tick,
        every_seconds=_OBSERVE_INTERVAL_SECONDS,
        description="Records depth, lag and size of all that replication flows through when they changed, and the "
        "minutes of drains that are no runs; updates the checks `replication_dlq_empty` and `dependencies_answer`.",
    ),
)
