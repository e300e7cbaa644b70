"""A drain as an asset: config in, one call into the core, its numbers by minute as metadata that the UI plots."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.domain.reasons import RequestError, TransientFailure
from regworkers_core.drains.heartbeat import PeriodicWriter
from regworkers_core.drains.runner import DrainSpec, Life, drain_limits, run_drain
from regworkers_core.engine.drain_report import DrainReport, Percentiles
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.operation import STORES
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.sensing import DRAIN_INTERVAL_SECONDS, Tick, depth_tick
from regworkers_dagster.factories import Declared, Flow, asset_job, fields_of, sensor
from regworkers_dagster.metadata import Metadata, facts_as_metadata
from regworkers_dagster.resources import plain_failures, runtime_of
from regworkers_dagster.runs import DRAIN_TAG

# A run of an hour has 60 points in the plots; its start and end write some 20 events more.
REPORT_SECONDS = 60.0
# Counted up to a minute after the last save, and not worth a report if nothing came since.
_OF_EARLIER_SAVES = ("second_look", "second_look_skipped")


class Minutes:
    """The numbers of a drain since they were last taken. `so_far` is the core's report, which grows meanwhile."""

    def __init__(self, runtime: Runtime, spec: DrainSpec[Any]) -> None:
        self._runtime, self._spec = runtime, spec
        self.so_far = DrainReport(spec.name)
        self._counts: Counter[str] = Counter()
        self._lag: Percentiles | None = None
        self._calls, self._at = Counter(runtime.dependencies.calls), time.monotonic()

    def take(self) -> Metadata:
        """Counts of items by outcome, `lag_p50|p95|p99|max_seconds` (absent if nothing was saved), `seconds`,
        `items_per_second` and `calls_<dependency>`; at the end of the drain also how it `ended`. Empty if nothing was
        received and nothing was found.
        """
        # Copies: the drain goes on counting in its own thread.
        so_far, counts, lag = self.so_far, Counter(self.so_far.counts), self.so_far.lag.since(None)
        calls, now = Counter(self._runtime.dependencies.calls), time.monotonic()
        new, lags = counts - self._counts, lag.since(self._lag)
        made, seconds = calls - self._calls, now - self._at
        self._counts, self._lag, self._calls, self._at = counts, lag, calls, now
        if not new["received"]:
            new = Counter({name: number for name, number in new.items() if name not in _OF_EARLIER_SAVES})
            if not new:
                return {}
        facts: dict[str, Any] = {}
        if so_far.ended:
            facts |= {"ended": so_far.ended, "unavailable": so_far.dependency, "adds_up": so_far.adds_up}
        if new["received"]:
            # The outcomes also when zero, so that a plot has a point for every report of work.
            facts |= {key: new[key] for key in self._spec.outcomes}
            facts |= {"seconds": round(seconds, 3), "items_per_second": round(new["received"] / seconds, 1)}
        facts |= new
        facts |= {f"lag_{percentile}_seconds": value for percentile, value in lags.summary().items()}
        return facts_as_metadata(facts | {f"calls_{key}": made[key] for key in sorted(made)})


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
    resident: bool = Field(
        default=False,
        description="End only once another resident works, or none is needed any more. Sensors set this.",
    )


def drained(
    context: dg.AssetExecutionContext,
    config: DrainConfig,
    runtime: Runtime,
    spec: DrainSpec[Any],
    asset: dg.AssetKey,
) -> Metadata:
    """Run the drain to its end. Every minute in which it did something is an observation of `asset`. Returns the
    numbers since the last one, empty if nothing was done.

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
    minutes = Minutes(runtime, spec)

    def observe() -> None:
        if minute := minutes.take():
            context.log_event(dg.AssetObservation(asset, metadata=minute))

    def progress(so_far: DrainReport) -> None:
        minutes.so_far = so_far

    every_minute = PeriodicWriter(
        f"{spec.name}-minutes",
        observe,
        lambda: None,
        every_seconds=REPORT_SECONDS,
        warning="minute not reported",
    )
    # Dagster's own handlers would raise within a step. Ours let the drain finish what is in flight, and the run
    # succeeds with what it did; a second signal reaches Dagster's again.
    with StopSignal().on_signals() as stop, every_minute:
        report = run_drain(
            runtime,
            spec,
            limits,
            stop=stop,
            run_id=context.run.run_id,
            life=Life(config.resident),
            on_progress=progress,
        )
    if not report.began:
        raise TransientFailure(report.dependency or "a dependency", "does not answer, so nothing was done")
    why = ", ".join(filter(None, (report.ended, report.dependency)))
    context.log.info(f"ended ({why}): {in_words(report)}")
    minutes.so_far = report
    rest = minutes.take()
    if report.failure is not None:
        # A retry at once would fail in the same way: the sensor decides when to start the next one.
        raise dg.Failure(report.failure, metadata=rest, allow_retries=False)
    return rest


@dataclass(frozen=True, slots=True)
class Automation:
    """A drain in Dagster."""

    # The drain.
    spec: DrainSpec[Any]
    # What it fills.
    asset: dg.AssetsDefinition
    # What runs it.
    job: Any
    # What starts it.
    sensor: dg.SensorDefinition


def automated(
    spec: DrainSpec[Any],
    asset: dg.AssetSpec | None = None,
    *,
    tick: Tick | None = None,
    also: Sequence[Automation] = (),
    every_seconds: int = DRAIN_INTERVAL_SECONDS,
    uses: Set[str] = STORES,
    before: Callable[[Runtime], None] = lambda _: None,
) -> Automation:
    """The drain `spec`, which fills `asset`, by default one of its own name. Its sensor starts it by the depth of its
    queue, or by `tick`, whose docstring says when, and `also` other drains. `uses` are the resources of a run, `before`
    is called first in it.
    """
    filled = asset or Flow(spec.duty, owner=spec.duty).asset(spec.name, spec.summary, {"sqs"})
    made = _asset(spec, filled, uses, before)
    job = asset_job(
        spec.job,
        dg.AssetSelection.assets(made).without_checks(),
        tags={DRAIN_TAG: spec.name},
        declared=Declared(spec.duty, "drain", "system"),
        description=f"Drain: {spec.summary}",
    )
    return Automation(
        spec,
        made,
        job,
        sensor(
            f"{spec.job}_sensor",
            tick or depth_tick(spec),
            jobs=[job, *(each.job for each in also)],
            every_seconds=every_seconds,
            description=" ".join(((tick and tick.__doc__) or "").split())
            or f"Starts drains of `{spec.queue}`: none when it is empty, one for a trickle, more with its depth, and "
            "the next one shortly before the last one ends.",
        ),
    )


def _asset(
    spec: DrainSpec[Any], asset: dg.AssetSpec, uses: Set[str], before: Callable[[Runtime], None]
) -> dg.AssetsDefinition:
    """`asset`, materialised by a drain that did something."""

    @dg.multi_asset(
        name=spec.name,
        # Nothing is materialised by an idle drain: the plots would show its zeros.
        specs=[asset.replace_attributes(skippable=True)],
        description=spec.summary,
        config_schema=fields_of(DrainConfig),
        required_resource_keys=set(uses),
    )
    def materialise(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        config = DrainConfig(**context.op_execution_context.op_config)
        with plain_failures(context):
            runtime = runtime_of(context)
            before(runtime)
            rest = drained(context, config, runtime, spec, asset.key)
        if rest:
            yield dg.MaterializeResult(asset_key=asset.key, metadata=rest, data_version=CONTINUOUS)

    return materialise
