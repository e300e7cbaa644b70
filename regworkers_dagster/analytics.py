"""The analytics queue's drain to Kafka and the archive of events on S3: their assets, checks, sensors and schedules."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from regworkers_core.analytics.archive.manifest import ROOT
from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.domain.snapshot import CopyJob, QueueState
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.operations.alerts.evaluate import watch_renewals
from regworkers_core.operations.health.sources import put_age_metrics, read_analytics_queue, read_unarchived
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.observing import (
    Reading,
    depth_of,
    dlq_check,
    minutes_outside,
    observed,
    or_none,
    pause_state,
)
from regworkers_dagster.drains.running import CONTINUOUS, automated
from regworkers_dagster.drains.sensing import Answer, depth_tick, ticking
from regworkers_dagster.factories import (
    CAMPAIGN_PARTITIONS,
    KEPT_FRESH,
    Declared,
    Flow,
    asset_job,
    fields_of,
    schedule,
    sensor,
)
from regworkers_dagster.metadata import Metadata, facts_as_metadata, of_table
from regworkers_dagster.resources import (
    TICK_CALL_SECONDS,
    AwsResource,
    KafkaResource,
    MongoResource,
    plain_failures,
    runtime_of,
    runtime_with,
)
from regworkers_dagster.runs import OPERATION_TAG, long_run

if TYPE_CHECKING:
    from regworkers_core.analytics.archive.archiver import ArchiveReport


FLOW = Flow("analytics", owner="analytics")
_OBSERVE_INTERVAL_SECONDS = 30

ANALYTICS_QUEUE = FLOW.asset(
    "analytics_queue",
    "SQS queue with one event (CloudEvents 1.0, without mail addresses or names) per eligibility check, per saved "
    "state of an entry, per published step of a draw, per selection and per message to a fan. Observed: its depth, "
    "the age of its oldest message and the time until that message would be lost.",
    {"sqs"},
    # The check that writes an entry (`demand_table`), replication, a draw's steps, its selections and messages.
    deps=[
        "demand_table",
        "entries",
        "registration_log",
        "commitment",
        "draw",
        "selections",
        "notifications",
    ],
    freshness_policy=KEPT_FRESH,
)
CAMPAIGN_FUNNEL = FLOW.asset(
    "campaign_funnel",
    "Registered, replicated, eligible, won, coded, notified: per market, segment and day, with plots, and "
    "which numbers do not add up and why. Works at any time of a campaign; a stage that is not reached has no number. "
    "The page is `reports/<campaignId>/funnel.html`; the job `campaign_funnel` and `regworkers report funnel` make it.",
    {"s3", "html", "pandas"},
    folder="reports/",
    deps=["demand_table", "entries", "frozen_pool", "draw", "selections", "notifications"],
    partitions_def=CAMPAIGN_PARTITIONS,
)
ANALYTICS_DLQ = FLOW.asset(
    "analytics_dlq",
    "Events that do not fit the schema of their type, each with the path that failed. Should be empty. History: "
    "collection `dead_letters`.",
    {"sqs"},
    deps=[ANALYTICS_QUEUE],
    freshness_policy=KEPT_FRESH,
)
KAFKA_EVENTS = FLOW.asset(
    "kafka_events",
    "Every business event on its Kafka topic. Filled by `publish_events`: its numbers every minute. "
    "A repeated event keeps its id: readers drop it.",
    {"kafka"},
    deps=[ANALYTICS_QUEUE],
    freshness_policy=KEPT_FRESH,
)


analytics_dlq_empty = dlq_check(
    ANALYTICS_DLQ, lambda names: names.analytics_queue, sensor="observe_analytics", lost="event"
)
publish_tick = depth_tick(PUBLISH)
DRAINS = (
    automated(
        PUBLISH,
        KAFKA_EVENTS,
        tick=publish_tick,
        uses={"aws", "mongo", "kafka"},
        before=watch_renewals,
    ),
)


@ticking
def observe_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Read the queue, write its metrics, and record what changed enough since the last record."""
    queue = read_analytics_queue(runtime)
    put_age_metrics(runtime, queue)
    on_minutes = partial(minutes_outside, context.instance, runtime, {KAFKA_EVENTS.key: PUBLISH})
    return observed(runtime.settings, context.cursor, read_all(runtime, queue), on_minutes=on_minutes)


def read_all(runtime: Runtime, queue: QueueState | None) -> list[Reading]:
    """The queue, as it was read, its dead letters, and the events in Kafka while none waits."""
    names = runtime.names
    numbers = {
        "messages": float(queue.waiting) if queue else None,
        "oldest_at_least_seconds": queue.oldest_seconds if queue else None,
        "time_to_data_loss_seconds": queue.seconds_left if queue else None,
        **pause_state(runtime, PUBLISH.name),
    }
    return [
        Reading.of(ANALYTICS_QUEUE, numbers),
        Reading.of(ANALYTICS_DLQ, depth_of(runtime, names.dead_letter_queue(names.analytics_queue))),
        *([Reading.of(KAFKA_EVENTS, {"waiting": 0.0})] if queue and not queue.waiting else ()),
    ]


SENSORS = (
    sensor(
        "observe_analytics",
        observe_tick,
        every_seconds=_OBSERVE_INTERVAL_SECONDS,
        description="Records depth and age of the analytics queue when they changed, and the minutes of drains that "
        "are no runs; writes its metrics, and updates the check `analytics_dlq_empty`.",
    ),
)


# How old the archive may be. A run that finds nothing new ends within a second.
_EVERY_MINUTES = 5
# A scheduled run ends shortly before the next one.
_SCHEDULED_SECONDS = 240.0

EVENT_ARCHIVE = FLOW.asset(
    "event_archive",
    "Every event of the Kafka topics as one row of Parquet on S3, by day and type. Read from Kafka with stored "
    "offsets, in no consumer group. `regworkers archive fetch` copies it; docs/archive.md says how analysts read it. "
    "One materialisation per run, also of one that found nothing new; none while another run is active, or Kafka or "
    "S3 is unavailable.",
    {"s3", "parquet"},
    folder=ROOT,
    deps=[KAFKA_EVENTS],
    skippable=True,
    freshness_policy=KEPT_FRESH,
)


class ArchiveConfig(dg.Config):
    """When the run ends."""

    max_seconds: float | None = Field(
        default=None,
        gt=0,
        description="End after these seconds; the next run resumes. Empty: drain.maxSeconds.",
    )


@dg.multi_asset(
    name="archive",
    specs=[EVENT_ARCHIVE],
    config_schema=fields_of(ArchiveConfig),
)
def archive_events(
    context: dg.AssetExecutionContext, aws: AwsResource, mongo: MongoResource, kafka: KafkaResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Materialises nothing while another run is active, nor when Kafka or S3 is unavailable: the next run resumes."""
    from regworkers_core.analytics.archive.archiver import archive_events as archive

    config = ArchiveConfig(**context.op_execution_context.op_config)
    bind(runId=context.run.run_id, worker=str(CopyJob.ARCHIVE))
    with plain_failures(), StopSignal().on_signals() as stop:
        report = archive(
            runtime_with(aws, mongo, kafka),
            run_id=context.run.run_id,
            max_seconds=config.max_seconds,
            stop=stop,
        )
    if not report.began or (report.ended in ("dependency_down", "superseded") and not report.batches):
        which = f" ({report.dependency})" if report.dependency else ""
        log = context.log.info if report.ended == "busy" else context.log.warning
        log(f"nothing archived: {report.ended}{which}")
        return
    context.log.info(f"ended ({report.ended}): {report.written} of {report.read} events written")
    for line in troubles(report):
        context.log.warning(line)
    yield dg.MaterializeResult(
        asset_key=EVENT_ARCHIVE.key, metadata=of_report(report), data_version=CONTINUOUS
    )


def troubles(report: "ArchiveReport") -> list[str]:
    """What an operator has to check, one line each."""
    lines = {
        f"{report.lost} offsets expired before they were read": report.lost,
        f"{report.damaged} records are not events; they are kept under archive/damaged/": report.damaged,
        f"topics that do not exist: {', '.join(report.missing_topics)}": report.missing_topics,
        f"topics created again and read from their beginning: {', '.join(report.restarted)}": report.restarted,
    }
    return [line for line, holds in lines.items() if holds]


def of_report(report: "ArchiveReport") -> Metadata:
    """The numbers of this run, the `rows` of the whole archive and their columns, the `lag` in total and by topic."""
    from regworkers_core.analytics.archive.rows import SCHEMA

    lag = report.lag or {}
    numbers = {
        "read": report.read,
        "written": report.written,
        "repeats": report.repeats,
        "damaged": report.damaged,
        "lost": report.lost,
        "files": report.files,
        "merged_files": report.merged_files,
        "rows": report.rows or 0,
        "lag": sum(lag.values()),
        "lag_by_topic": lag,
        "ended": report.ended,
        "seconds": round(report.seconds, 3),
        "adds_up": report.adds_up,
    }
    return {**facts_as_metadata(numbers), **of_table(report.rows, SCHEMA)}


@dg.multi_asset_check(
    name="verify_archive",
    specs=[
        dg.AssetCheckSpec(
            "one_row_per_id",
            asset=EVENT_ARCHIVE.key,
            description="Every event id has exactly one row, in the partition of its day and type; no file is missing. "
            "Reads the whole archive.",
        )
    ],
)
def one_row_per_id(context: dg.AssetCheckExecutionContext, aws: AwsResource) -> Iterator[dg.AssetCheckResult]:
    """A second row fails the check and then the run, and with it the exit code; an alert follows."""
    from regworkers_core.analytics.archive.reading import verify

    bind(runId=context.run.run_id, worker="check_archive")
    with plain_failures():
        runtime = runtime_with(aws)
        found = verify(runtime.objects, memory_mib=runtime.settings.archive.memory_mib)
    numbers = {name: value for name, value in found.as_dict().items() if name != "holds"}
    summary = ", ".join(f"{name} {number}" for name, number in numbers.items())
    yield dg.AssetCheckResult(
        check_name="one_row_per_id",
        asset_key=EVENT_ARCHIVE.key,
        passed=found.holds,
        description=summary,
        metadata=numbers,
    )
    if not found.holds:
        raise dg.Failure(
            description=f"the archive does not hold one row per id: {summary}", allow_retries=False
        )


ARCHIVE_EVENTS = asset_job(
    str(CopyJob.ARCHIVE),
    dg.AssetSelection.assets(archive_events).without_checks(),
    tags={OPERATION_TAG: str(CopyJob.ARCHIVE), **long_run()},
    declared=Declared("analytics", "large", "system"),
    description="Adds what the topics hold now to the archive, and compacts it. Resumes where the last run stopped; "
    "killed at any point it loses and repeats nothing.",
)

CHECK_ARCHIVE = asset_job(
    "check_archive",
    dg.AssetSelection.checks(one_row_per_id),
    tags={OPERATION_TAG: "check_archive", **long_run()},
    declared=Declared("analytics", "large", "system"),
    description="Reads the whole archive and fails unless every event id has exactly one row.",
)


def anything_new(context: dg.ScheduleEvaluationContext) -> bool:
    """Whether events wait, or an hour has begun: a run that finds nothing still writes twenty events of Dagster. A run
    says what is wrong if that cannot be read.
    """
    runtime = runtime_of(context, call_seconds=TICK_CALL_SECONDS)
    waiting = or_none(lambda: any(each.waiting for each in read_unarchived(runtime)))
    return waiting is not False or context.scheduled_execution_time.minute == 0


SCHEDULES = (
    schedule(
        "archive_events_often",
        ARCHIVE_EVENTS,
        f"*/{_EVERY_MINUTES} * * * *",
        "Keeps the archive a few minutes behind Kafka: a run when events are new, and one every hour.",
        {"ops": {"archive": {"config": {"max_seconds": _SCHEDULED_SECONDS}}}},
        due=anything_new,
        uses={"aws", "kafka"},
    ),
    schedule(
        "check_archive_nightly",
        CHECK_ARCHIVE,
        "20 3 * * *",
        "Checks every night that each event id has exactly one row.",
    ),
)
