"""The looks of every week, month and quarter as assets, each with a job and a schedule; the recovery drill by hand."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from regworkers_core.domain.drill import DrillResult
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.metadata import Metadata
from regworkers_dagster.resources import Workers, plain_failures
from regworkers_dagster.selection.steps import facts_as_metadata
from regworkers_dagster.tags import OPERATION_TAG, long_run, short_run

if TYPE_CHECKING:
    from regworkers_core.operations.reviews.review import Published

GROUP = "operations"
_ABOUT = {
    "weekly": "Dead letters, alerts, how long batches take and which errors come and grow: this week against the one "
    "before.",
    "monthly": "Memory and batches against their limits, retention of queues, logs and streams against the settings, "
    "what a million entries cost and how that changes, certificates.",
    "quarterly": "Least privilege, outdated and vulnerable dependencies, and a recovery drill: the replica is rebuilt "
    "beside the real one, compared and dropped again.",
}
# UTC, in working hours of Europe: Mondays; the first of a month; the second of a quarter.
_CRON = {"weekly": "0 6 * * 1", "monthly": "30 6 1 * *", "quarterly": "0 7 2 1,4,7,10 *"}


def _spec(kind: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        f"{kind}_review",
        description=f"{_ABOUT[kind]} As a page, Markdown and numbers under `reviews/{kind}/<date>/`; in the terminal "
        f"`regworkers review {kind}`. docs/maintenance.md says what each line means.",
        kinds={"s3", "html"},
        group_name=GROUP,
        owners=["team:operations"],
        tags={"regworkers/flow": GROUP},
    )


SPECS = {kind: _spec(kind) for kind in _ABOUT}
CHECKS = {
    kind: dg.AssetCheckSpec(
        f"{kind}_review_is_fine",
        asset=spec.key,
        description="Nothing has to be mended, and everybody who was asked answered.",
    )
    for kind, spec in SPECS.items()
}


class QuarterlyConfig(dg.Config):
    """Without it the drill is the usual one."""

    drill: bool = Field(default=True, description="Make the recovery drill.")
    max_entries: int | None = Field(
        default=None, ge=1, description="Entries that the drill rebuilds. Empty: reviews.drillMaxEntries."
    )


@dg.multi_asset(name="review_week", specs=[SPECS["weekly"]], check_specs=[CHECKS["weekly"]], can_subset=False)
def weekly_review(
    context: dg.AssetExecutionContext, workers: Workers
) -> Iterator[dg.MaterializeResult[None]]:
    """What has to be mended makes the check warn; the run stays green."""
    yield _reviewed(context, workers, "weekly")


@dg.multi_asset(
    name="review_month", specs=[SPECS["monthly"]], check_specs=[CHECKS["monthly"]], can_subset=False
)
def monthly_review(
    context: dg.AssetExecutionContext, workers: Workers
) -> Iterator[dg.MaterializeResult[None]]:
    """As the weekly one."""
    yield _reviewed(context, workers, "monthly")


@dg.multi_asset(
    name="review_quarter", specs=[SPECS["quarterly"]], check_specs=[CHECKS["quarterly"]], can_subset=False
)
def quarterly_review(
    context: dg.AssetExecutionContext, config: QuarterlyConfig, workers: Workers
) -> Iterator[dg.MaterializeResult[None]]:
    """As the weekly one; a drill that was not passed is a finding."""
    with StopSignal().on_signals() as stop:

        def drill(runtime: Runtime) -> DrillResult:
            most = config.max_entries or runtime.settings.reviews.drill_max_entries
            return _drilled(runtime, most, stop, context.log.info)

        yield _reviewed(context, workers, "quarterly", drill if config.drill else None)


def _reviewed(
    context: dg.AssetExecutionContext,
    workers: Workers,
    kind: str,
    drill: Callable[[Runtime], DrillResult] | None = None,
) -> dg.MaterializeResult[None]:
    # Late, for matplotlib would cost every run of every job a second.
    from regworkers_core.operations.reviews.review import make_review, publish
    from regworkers_core.operations.reviews.sections import Kind

    bind(runId=context.run.run_id, worker=f"{kind}_review")
    with plain_failures():
        runtime = workers.runtime
        review = make_review(
            runtime,
            Kind(kind),
            drill=None if drill is None else lambda: drill(runtime),
            tell=context.log.info,
        )
        published = publish(runtime, review)
    for level in ("finding", "warning"):
        for title, text in review.remarks(level):
            context.log.warning(f"{level}: {title}: {text}")
    for section in review.unread:
        context.log.warning(f"{section.title}: not read: {section.unread}")
    metadata = of_review(published)
    check = dg.AssetCheckResult(
        check_name=CHECKS[kind].name,
        asset_key=SPECS[kind].key,
        passed=published.fine,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={name: metadata[name] for name in ("findings", "warnings", "not_read")},
    )
    return dg.MaterializeResult(asset_key=SPECS[kind].key, metadata=metadata, check_results=[check])


def of_review(published: "Published") -> Metadata:
    """Counts that the UI plots, the overview, each section with its plots, and where the page lies."""
    review = published.review
    metadata: Metadata = {
        "findings": dg.MetadataValue.int(len(review.remarks("finding"))),
        "warnings": dg.MetadataValue.int(len(review.remarks("warning"))),
        "not_read": dg.MetadataValue.int(len(review.unread)),
        "overview": dg.MetadataValue.md(published.shown.overview),
    }
    metadata |= facts_as_metadata({"page": published.where or published.trouble})
    return metadata | {name: dg.MetadataValue.md(text) for name, text in published.shown.by_section.items()}


def _drilled(
    runtime: Runtime, most: int | None, stop: StopSignal, tell: Callable[[str], None]
) -> DrillResult:
    # Late, for it brings DuckDB and pyarrow.
    from regworkers_core.replication.recovery_drill import recovery_drill

    return recovery_drill(runtime, most=most, stop=stop, on_phase=tell)


class DrillConfig(dg.Config):
    """The launchpad's defaults rebuild a part."""

    max_entries: int | None = Field(
        default=None, ge=1, description="Entries to rebuild. Empty: reviews.drillMaxEntries."
    )
    all_entries: bool = Field(default=False, description="Rebuild all of them, however many there are.")


@dg.op(name="drill", description="Rebuilds the replica into a scratch database, compares it, drops it again.")
def drill_op(context: dg.OpExecutionContext, config: DrillConfig, workers: Workers) -> None:
    """Fails the run when the drill was not passed."""
    with plain_failures(), StopSignal().on_signals() as stop:
        runtime = workers.runtime
        most = (
            None if config.all_entries else config.max_entries or runtime.settings.reviews.drill_max_entries
        )
        result = _drilled(runtime, most, stop, context.log.info)
    context.add_output_metadata({"result": dg.MetadataValue.json(result.as_dict())})
    if not result.passed:
        raise dg.Failure(description="; ".join(result.findings), allow_retries=False)


@dg.job(
    tags={OPERATION_TAG: "drill", **long_run()},
    executor_def=dg.in_process_executor,
    description="The replica is lost, how long until it is back, and is it the same? Rebuilds it beside the real one "
    "and compares; flags, queues and events stay as they are. The quarterly review does the same.",
)
def drill_recovery() -> None:
    """One op."""
    drill_op()


ASSETS = (weekly_review, monthly_review, quarterly_review)
REVIEW_JOBS = {
    kind: dg.define_asset_job(
        f"{kind}_review",
        selection=dg.AssetSelection.assets(asset),
        # The quarterly one holds a drill.
        tags={OPERATION_TAG: f"{kind}_review", **(long_run() if kind == "quarterly" else short_run())},
        executor_def=dg.in_process_executor,
        description=f"{_ABOUT[kind]} Whoever does not answer is a line of the report, which is written all the same.",
    )
    for kind, asset in zip(_ABOUT, ASSETS, strict=True)
}


def build_schedules(*, on: bool) -> list[dg.ScheduleDefinition]:
    """`on` makes them run without being switched on in the UI."""
    return [
        dg.ScheduleDefinition(
            name=f"review_{kind}",
            job=job,
            cron_schedule=_CRON[kind],
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED,
            description=_ABOUT[kind],
        )
        for kind, job in REVIEW_JOBS.items()
    ]
