"""A drain as the body of an asset: config in, one call into the core, numbers out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.domain.reasons import RequestError, TransientFailure
from regworkers_core.drains.runner import DrainSpec, drain_limits, run_drain
from regworkers_core.engine.drain import DrainReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.metadata import Metadata, in_words, of_report

# A line in the run's log this often while a drain works: an event costs some milliseconds.
_TELL_SECONDS = 30.0
# Every drain brings the same thing further. Versions of their own would show whatever lies downstream as out
# of date whenever a drain upstream ends.
CONTINUOUS = dg.DataVersion("continuous")


class DrainConfig(dg.Config):
    """When the drain leaves. Empty means as the settings say, which is right for a run by hand."""

    # Their limits are not pydantic's: it fails the step before anything can say that the launch was wrong.
    idle_seconds: float | None = Field(
        default=None, description="Leave after these seconds without work. Empty: drain.idleSeconds."
    )
    max_seconds: float | None = Field(
        default=None, description="Leave after these seconds in all. Empty: drain.maxSeconds."
    )


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain did: its report, and that as metadata of an asset."""

    report: DrainReport
    metadata: Metadata


def drained(
    context: dg.AssetExecutionContext, config: DrainConfig, runtime: Runtime, spec: DrainSpec[Any]
) -> Drained:
    """Run the drain to its end; calls are those that it made, not those of the process.

    Raises RequestError for a config that cannot be, and TransientFailure when a dependency was away at the start:
    nothing was done, and an exit code has to say so. Sensors ask before they start a drain. One that goes away later
    leaves a run that is fine; `dg.Failure` is raised for a drain that saw nothing of its source any more, and for one
    whose fuse blew.
    """
    bind(runId=context.run.run_id, worker=spec.worker)
    if (config.idle_seconds or 0) < 0:
        raise RequestError(f"idle_seconds should be 0 or more, found {config.idle_seconds:g}")
    if config.max_seconds is not None and config.max_seconds <= 0:
        raise RequestError(f"max_seconds should be above 0, found {config.max_seconds:g}")
    limits = drain_limits(
        runtime.settings, spec, idle_seconds=config.idle_seconds, max_seconds=config.max_seconds
    )
    before = runtime.dependencies.calls
    # Dagster's own handlers would raise in the midst of a step. Ours let the drain finish what is in flight,
    # and the run ends green with what it did; a second signal meets Dagster's again.
    with StopSignal().on_signals() as stop:
        report = run_drain(
            runtime,
            spec,
            limits,
            stop=stop,
            run_id=context.run.run_id,
            on_progress=teller(context.log.info),
        )
    if not report.began:
        raise TransientFailure(report.dependency or "a dependency", "does not answer, so nothing was done")
    context.log.info(f"ended ({report.ended}): {in_words(report)}")
    calls = {key: count - before.get(key, 0) for key, count in runtime.dependencies.calls.items()}
    metadata = of_report(spec, report, calls)
    if report.failure is not None:
        # A repeat at once would meet the same: sensors know when to start the next one.
        raise dg.Failure(report.failure, metadata=metadata, allow_retries=False)
    return Drained(report, metadata)


def teller(
    tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[DrainReport], None]:
    """Progress in words, now and then."""
    told_at = clock()

    def progress(report: DrainReport) -> None:
        nonlocal told_at
        if clock() - told_at >= _TELL_SECONDS:
            told_at = clock()
            tell(in_words(report))

    return progress
