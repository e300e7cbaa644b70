"""The archive of events: an asset that a schedule keeps up to date, and its check, run every night."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from regworkers_core.analytics.archive.manifest import ROOT
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.operations.health.sources import read_unarchived
from regworkers_dagster.analytics.publishing import FLOW, KAFKA_EVENTS
from regworkers_dagster.drains.observing import or_none
from regworkers_dagster.drains.running import CONTINUOUS
from regworkers_dagster.factories import KEPT_FRESH, asset_job, fields_of, schedule
from regworkers_dagster.metadata import Metadata, facts_as_metadata, of_table
from regworkers_dagster.pods import Declared
from regworkers_dagster.resources import TICK_CALL_SECONDS, plain_failures, runtime_of
from regworkers_dagster.runs import OPERATION_TAG, long_run

if TYPE_CHECKING:
    from regworkers_core.analytics.archive.archiver import ArchiveReport

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
    required_resource_keys={"aws", "mongo", "kafka"},
)
def archive_events(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    """Materialises nothing while another run is active, nor when Kafka or S3 is unavailable: the next run resumes."""
    from regworkers_core.analytics.archive.archiver import archive_events as archive

    config = ArchiveConfig(**context.op_execution_context.op_config)
    bind(runId=context.run.run_id, worker="archive_events")
    with plain_failures(), StopSignal().on_signals() as stop:
        report = archive(
            runtime_of(context), run_id=context.run.run_id, max_seconds=config.max_seconds, stop=stop
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
    required_resource_keys={"aws"},
)
def one_row_per_id(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """A second row fails the check and then the run, and with it the exit code; an alert follows."""
    from regworkers_core.analytics.archive.reading import verify

    bind(runId=context.run.run_id, worker="check_archive")
    with plain_failures():
        runtime = runtime_of(context)
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
    "archive_events",
    dg.AssetSelection.assets(archive_events).without_checks(),
    tags={OPERATION_TAG: "archive_events", **long_run()},
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
