"""A drain as an asset: config in, one call into the core, its numbers as metadata that the UI plots."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.domain.reasons import RequestError, TransientFailure
from regworkers_core.drains.runner import DrainSpec, drain_limits, run_drain
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.runtime import Runtime
from regworkers_dagster.metadata import Metadata, facts_as_metadata
from regworkers_dagster.resources import STORES, plain_failures, runtime_of
from regworkers_dagster.runs import throttled


def of_report(spec: DrainSpec[Any], report: DrainReport, calls: Mapping[str, int]) -> Metadata:
    """Counts of items by outcome, `lag_p50|p95|p99|max_seconds` (absent if nothing was saved), `seconds`,
    `items_per_second`, `calls_<dependency>` made by this drain, and how it `ended`.
    """
    # The outcomes also when zero, so that a plot has a point for every drain.
    counts = {key: report.counts[key] for key in spec.outcomes}
    counts |= {key: count for key, count in report.counts.items() if count}
    numbers: dict[str, float] = {"seconds": round(report.seconds, 3)}
    if report.seconds:
        numbers["items_per_second"] = round(report.counts["received"] / report.seconds, 1)
    for percentile, seconds in report.lag.summary().items():
        if seconds is not None:
            numbers[f"lag_{percentile}_seconds"] = seconds
    made = {f"calls_{key}": count for key, count in sorted(calls.items()) if count}
    facts = {"ended": report.ended, "unavailable": report.dependency, **counts, **numbers, **made}
    return facts_as_metadata({**facts, "adds_up": report.adds_up})


def in_words(report: DrainReport) -> str:
    """One line for the run's log."""
    parts = [f"{key} {count}" for key, count in sorted(report.counts.items()) if count]
    p95 = report.lag.summary()["p95"]
    if p95 is not None:
        parts.append(f"lag p95 {p95:.2f} s")
    return ", ".join(parts) or "nothing received"


# With a version per drain, everything downstream would be shown as out of date after each drain upstream.
CONTINUOUS = dg.DataVersion("continuous")


class DrainConfig(dg.Config):
    """When the drain ends. Empty: as the settings say, which is right for a run by hand."""

    # The limits are checked below: pydantic would fail the step before the run can be marked as refused.
    idle_seconds: float | None = Field(
        default=None, description="End after these seconds without work. Empty: drain.idleSeconds."
    )
    max_seconds: float | None = Field(
        default=None, description="End after these seconds in all. Empty: drain.maxSeconds."
    )


@dataclass(frozen=True, slots=True)
class Drained:
    """The report of a drain, and the same as metadata of an asset."""

    report: DrainReport
    metadata: Metadata


def drained(
    context: dg.AssetExecutionContext, config: DrainConfig, runtime: Runtime, spec: DrainSpec[Any]
) -> Drained:
    """Run the drain to its end.

    Raises RequestError for an impossible config, and TransientFailure when a dependency was unavailable at the start:
    nothing was done, and the exit code says so. A dependency that fails later does not fail the run. Raises
    `dg.Failure` for a drain that lost its source, and for one whose fuse blew.
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
    # Dagster's own handlers would raise within a step. Ours let the drain finish what is in flight, and the run
    # succeeds with what it did; a second signal reaches Dagster's again.
    show = throttled(context.log.info)
    with StopSignal().on_signals() as stop:
        report = run_drain(
            runtime,
            spec,
            limits,
            stop=stop,
            run_id=context.run.run_id,
            on_progress=lambda so_far: show(lambda: in_words(so_far)),
        )
    if not report.began:
        raise TransientFailure(report.dependency or "a dependency", "does not answer, so nothing was done")
    context.log.info(f"ended ({report.ended}): {in_words(report)}")
    calls = {key: count - before.get(key, 0) for key, count in runtime.dependencies.calls.items()}
    metadata = of_report(spec, report, calls)
    if report.failure is not None:
        # A retry at once would fail in the same way: the sensor decides when to start the next one.
        raise dg.Failure(report.failure, metadata=metadata, allow_retries=False)
    return Drained(report, metadata)


def drain_asset(
    spec: DrainSpec[Any], asset: dg.AssetSpec, does: str, uses: Set[str] = STORES
) -> dg.AssetsDefinition:
    """`asset`, materialised by one drain of `spec`; `does` describes the step in the UI, `uses` are its resources."""

    @dg.multi_asset(name=spec.name, specs=[asset], description=does, required_resource_keys=set(uses))
    def materialise(context: dg.AssetExecutionContext, config: DrainConfig) -> dg.MaterializeResult[None]:
        with plain_failures(context):
            done = drained(context, config, runtime_of(context), spec)
        return dg.MaterializeResult(asset_key=asset.key, metadata=done.metadata, data_version=CONTINUOUS)

    return materialise
