"""The two drains as assets: config in, one call into the core, numbers out."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import time
from collections.abc import Callable, Iterator, Mapping

import dagster as dg
from pydantic import Field

from regworkers_core.engine.drain import DrainReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.replication.drains import DrainName, drain_limits, run_drain
from regworkers_core.runtime import Runtime
from regworkers_dagster.replication import metadata
from regworkers_dagster.replication.checks import LAG_WITHIN_OBJECTIVE, lag_result
from regworkers_dagster.replication.specs import ENTRIES, REPLICATION_QUEUE
from regworkers_dagster.resources import Workers, plain_failures

# A line in the run's log this often while a drain works: an event costs some milliseconds.
_TELL_SECONDS = 30.0
# Every drain brings the same thing further. Versions of their own would show whatever lies downstream as out
# of date whenever a drain upstream ends.
_VERSION = dg.DataVersion("continuous")
_WORKER_NAMES: Mapping[DrainName, str] = {"enqueue": "enqueueEntries", "save": "saveEntries"}


class DrainConfig(dg.Config):
    """When the drain leaves. Empty means as the settings say, which is right for a run by hand."""

    idle_seconds: float | None = Field(
        default=None, ge=0, description="Leave after so many seconds without work. Empty: drain.idleSeconds."
    )
    max_seconds: float | None = Field(
        default=None, gt=0, description="Leave after so many seconds in all. Empty: drain.maxSeconds."
    )


@dg.multi_asset(name="enqueue", specs=[REPLICATION_QUEUE])
def enqueue_entries(
    context: dg.AssetExecutionContext, config: DrainConfig, workers: Workers
) -> dg.MaterializeResult[None]:
    """Read the demand table's stream and send the keys of changed entries to the replication queue."""
    with plain_failures():
        report, calls = _drain(context, config, workers.runtime, "enqueue")
    return dg.MaterializeResult(
        asset_key=REPLICATION_QUEUE.key,
        metadata=metadata.of_report("enqueue", report, calls),
        data_version=_VERSION,
    )


@dg.multi_asset(name="save", specs=[ENTRIES], check_specs=[LAG_WITHIN_OBJECTIVE])
def save_entries(
    context: dg.AssetExecutionContext, config: DrainConfig, workers: Workers
) -> Iterator[dg.MaterializeResult[None]]:
    """Read changed entries from the demand table and write them to the replica."""
    with plain_failures():
        runtime = workers.runtime
        report, calls = _drain(context, config, runtime, "save")
    yield dg.MaterializeResult(
        asset_key=ENTRIES.key,
        metadata=metadata.of_report("save", report, calls),
        data_version=_VERSION,
        check_results=[lag_result(report, runtime.settings.replication.lag_objective_seconds)],
    )


def _drain(
    context: dg.AssetExecutionContext, config: DrainConfig, runtime: Runtime, name: DrainName
) -> tuple[DrainReport, dict[str, int]]:
    """The report and the calls it cost, per dependency."""
    bind(runId=context.run.run_id, worker=_WORKER_NAMES[name])
    limits = drain_limits(
        runtime.settings, name, idle_seconds=config.idle_seconds, max_seconds=config.max_seconds
    )
    before = runtime.calls
    # Dagster's own handlers would raise in the midst of a step. Ours let the drain finish what is in flight,
    # and the run ends green with what it did; a second signal meets Dagster's again.
    with StopSignal().on_signals() as stop:
        report = run_drain(
            runtime,
            name,
            limits,
            stop=stop,
            run_id=context.run.run_id,
            on_progress=teller(context.log.info),
        )
    context.log.info(f"ended ({report.ended}): {metadata.in_words(report)}")
    return report, {key: count - before.get(key, 0) for key, count in runtime.calls.items()}


def teller(
    tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[DrainReport], None]:
    """Progress in words, now and then."""
    told_at = clock()

    def progress(report: DrainReport) -> None:
        nonlocal told_at
        if clock() - told_at >= _TELL_SECONDS:
            told_at = clock()
            tell(metadata.in_words(report))

    return progress
