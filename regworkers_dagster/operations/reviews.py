"""The reviews of every week, month and quarter as assets, each with a job and a schedule."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from regworkers_core.domain.drill import DrillResult
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.runtime import Runtime
from regworkers_dagster.factories import Flow, asset_job, fields_of, schedule
from regworkers_dagster.metadata import Metadata, facts_as_metadata
from regworkers_dagster.resources import ALL, plain_failures, runtime_of
from regworkers_dagster.runs import OPERATION_TAG, long_run, short_run

if TYPE_CHECKING:
    from regworkers_core.operations.reviews.review import PublishedReview

_DOES = "Write the review. A finding makes the check warn; the run succeeds."
_ABOUT = {
    "weekly": "Dead letters, alerts and alarms, how long batches take, which errors and log lines appear or grow: "
    "this week and the one before.",
    "monthly": "Memory and batches against their limits, retention of queues, logs and streams against the settings, "
    "the cost of a million entries and its trend, certificates.",
    "quarterly": "Least privilege, outdated and vulnerable dependencies, and a recovery drill: the replica is rebuilt "
    "beside the real one, compared and dropped again.",
}
# They are in working hours of Europe: on Mondays, on the first of a month, on the second day of a quarter.
_CRON = {"weekly": "0 6 * * 1", "monthly": "30 6 1 * *", "quarterly": "0 7 2 1,4,7,10 *"}


_FLOW = Flow("operations", owner="operations")
SPECS = {
    kind: _FLOW.asset(
        f"{kind}_review",
        f"{about} As a page, Markdown and numbers under `reviews/{kind}/<date>/`; in the terminal "
        f"`regworkers review {kind}`. docs/maintenance.md explains each line.",
        {"s3", "html"},
    )
    for kind, about in _ABOUT.items()
}
CHECKS = {
    kind: dg.AssetCheckSpec(
        f"{kind}_review_is_fine",
        asset=spec.key,
        description="There are no findings, and every source answered.",
    )
    for kind, spec in SPECS.items()
}


class QuarterlyConfig(dg.Config):
    """The drill within the review."""

    drill: bool = Field(default=True, description="Make the recovery drill.")
    max_entries: int | None = Field(
        default=None, ge=1, description="Entries that the drill rebuilds. Empty: reviews.drillMaxEntries."
    )


def _review(kind: str, step: str) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=step,
        specs=[SPECS[kind]],
        check_specs=[CHECKS[kind]],
        can_subset=False,
        description=_DOES,
        required_resource_keys=set(ALL),
    )
    def reviewed(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        yield _reviewed(context, kind)

    return reviewed


weekly_review = _review("weekly", "review_week")
monthly_review = _review("monthly", "review_month")


@dg.multi_asset(
    name="review_quarter",
    specs=[SPECS["quarterly"]],
    check_specs=[CHECKS["quarterly"]],
    can_subset=False,
    config_schema=fields_of(QuarterlyConfig),
    required_resource_keys=set(ALL),
)
def quarterly_review(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    """Write the review. A drill that is not passed is a finding; a finding makes the check warn."""
    config = QuarterlyConfig(**context.op_execution_context.op_config)
    with StopSignal().on_signals() as stop:

        def drill(runtime: Runtime) -> DrillResult:
            most = config.max_entries or runtime.settings.reviews.drill_max_entries
            return _drilled(runtime, most, stop, context.log.info)

        yield _reviewed(context, "quarterly", drill if config.drill else None)


def _reviewed(
    context: dg.AssetExecutionContext,
    kind: str,
    drill: Callable[[Runtime], DrillResult] | None = None,
) -> dg.MaterializeResult[None]:
    # Imported here: matplotlib would cost every run of every job a second.
    from regworkers_core.operations.reviews.review import make_review, publish
    from regworkers_core.operations.reviews.sections import ReviewKind

    bind(runId=context.run.run_id, worker=f"{kind}_review")
    with plain_failures():
        runtime = runtime_of(context)
        review = make_review(
            runtime,
            ReviewKind(kind),
            drill=None if drill is None else lambda: drill(runtime),
            tell=context.log.info,
        )
        published = publish(runtime, review)
    for level in ("finding", "warning"):
        for title, text in review.remarks(level):
            context.log.warning(f"{level}: {title}: {text}")
    for section in review.unread:
        context.log.warning(f"{section.title}: unavailable: {section.unread}")
    metadata = of_review(published)
    check = dg.AssetCheckResult(
        check_name=CHECKS[kind].name,
        asset_key=SPECS[kind].key,
        passed=published.fine,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={name: metadata[name] for name in ("findings", "warnings", "not_read")},
    )
    return dg.MaterializeResult(asset_key=SPECS[kind].key, metadata=metadata, check_results=[check])


def of_review(published: "PublishedReview") -> Metadata:
    """Counts that the UI plots, the overview, each section with its plots, and the address of the page."""
    review = published.review
    facts = {
        "findings": len(review.remarks("finding")),
        "warnings": len(review.remarks("warning")),
        "not_read": len(review.unread),
        "overview": dg.MetadataValue.md(published.shown.overview),
        "page": published.where or published.trouble,
        **{name: dg.MetadataValue.md(text) for name, text in published.shown.by_section.items()},
    }
    return facts_as_metadata(facts)


def _drilled(
    runtime: Runtime, most: int | None, stop: StopSignal, report: Callable[[str], None]
) -> DrillResult:
    # Imported here: it brings DuckDB and pyarrow.
    from regworkers_core.replication.recovery_drill import recovery_drill

    return recovery_drill(runtime, most=most, stop=stop, on_phase=report)


ASSETS = (weekly_review, monthly_review, quarterly_review)
REVIEW_JOBS = {
    kind: asset_job(
        f"{kind}_review",
        dg.AssetSelection.assets(asset),
        # The quarterly one includes a drill.
        tags={OPERATION_TAG: f"{kind}_review", **(long_run() if kind == "quarterly" else short_run())},
        description=f"{_ABOUT[kind]} A source that does not answer is a line of the report, which is written anyway.",
    )
    for kind, asset in zip(_ABOUT, ASSETS, strict=True)
}
SCHEDULES = tuple(
    schedule(f"review_{kind}", job, _CRON[kind], _ABOUT[kind]) for kind, job in REVIEW_JOBS.items()
)
