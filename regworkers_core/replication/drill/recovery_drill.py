"""The drill from end to end: make, fill, compare, drop, judge."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.domain.drill import DrillResult, Ended
from regworkers_core.domain.messages import MAX_ITEMS
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.rate import TokenBucket
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.backfill.flow import estimate_items
from regworkers_core.replication.drill.replay import Replay, Replayed
from regworkers_core.replication.drill.scratch import Scratch
from regworkers_core.replication.reconcile.classify import classify
from regworkers_core.replication.reconcile.compare import Comparison, Step
from regworkers_core.replication.reconcile.scan import load_replica
from regworkers_core.runtime import Runtime

log = structlog.get_logger(__name__)
_SAMPLES = 5


@dataclass(slots=True)
class _Found:
    """What is known so far: a drill that ends early still says it."""

    ended: Ended = "finished"
    away: str = ""
    replayed: Replayed = field(default_factory=Replayed)
    differences: Counter[str] = field(default_factory=Counter)
    samples: list[str] = field(default_factory=list)
    seconds: float = 0.0
    compare_seconds: float = 0.0
    dropped: bool = False


def recovery_drill(
    runtime: Runtime,
    *,
    most: int | None = None,
    stop: StopSignal | None = None,
    on_progress: Callable[[int, int | None], None] = lambda _done, _all: None,
    on_phase: Callable[[str], None] = lambda _text: None,
    on_step: OnStep = no_step,
    clock: Callable[[], float] = time.monotonic,
) -> DrillResult:
    """Rebuild up to `most` entries (None: all) into a scratch database at the rate of a backfill, compare them with
    what was read, and drop it again whatever happens.

    Raises UsageError when tables or addresses are missing, or when another drill began in the same second; a
    dependency that goes away meanwhile is in the result.
    """
    stop, found, scratch = stop or StopSignal(), _Found(), Scratch(runtime)
    total = None
    try:
        total = estimate_items(runtime)
        with runtime.operator_actions.recorded("drill recovery", scratch.name, {"most": most}) as noted:
            _drill(runtime, scratch, found, most, stop, total, on_progress, on_phase, on_step, clock)
            noted |= {"read": found.replayed.read, "differences": found.differences.total()}
    except TransientFailure as failure:
        found.ended, found.away = "dependency_down", failure.dependency
        log.warning("recovery drill interrupted", dependency=failure.dependency, error=failure.error)
    counts, settings = found.replayed.counts, runtime.settings
    result = DrillResult(
        ended=found.ended,
        read=found.replayed.read,
        saved=counts["saved"],
        refused=counts["refused"],
        refused_example=found.replayed.refused_example,
        gone=counts["gone"],
        differences=dict(found.differences),
        samples=tuple(found.samples),
        seconds=found.seconds,
        compare_seconds=found.compare_seconds,
        total=found.replayed.read if found.replayed.complete and found.ended == "finished" else total,
        limit_per_second=settings.replication.backfill_items_per_second,
        objective_seconds=settings.replication.recovery_objective_seconds,
        scratch=scratch.name,
        dropped=found.dropped,
        away=found.away,
    )
    log.info("recovery drill ended", **{k: v for k, v in result.as_dict().items() if k != "samples"})
    return result


def _drill(
    runtime: Runtime,
    scratch: Scratch,
    found: _Found,
    most: int | None,
    stop: StopSignal,
    total: int | None,
    on_progress: Callable[[int, int | None], None],
    on_phase: Callable[[str], None],
    on_step: OnStep,
    clock: Callable[[], float],
) -> None:
    settings, expected = runtime.settings, total
    if most is not None:
        expected = most if total is None else min(most, total)
    collection = scratch.make()
    try:
        replica = Replica(collection, runtime.dependency("mongo"))
        with Comparison(settings.replication.compare_memory_mib) as comparison:
            on_phase(f"rebuilding into {scratch.name}")
            began = clock()
            replay = Replay(
                runtime.demand_table,
                replica,
                comparison,
                TokenBucket(settings.replication.backfill_items_per_second, sleep=stop.wait),
                batch=settings.save.batch_messages * MAX_ITEMS,
                concurrency=settings.save.concurrency,
                most=most,
                run_id=f"drill-{uuid.uuid4().hex[:12]}",
                clock=runtime.clock,
                on_progress=lambda done: on_progress(done, expected),
            )
            try:
                replay.run(stop, found.replayed)
            finally:
                found.seconds = clock() - began
            on_step("drill.after_rebuild")
            if not found.replayed.complete:
                found.ended = "stopped"
                return
            if most is not None and found.replayed.read >= most:
                found.ended = "most_entries"
            on_phase("comparing with the source as it was read")
            began = clock()
            _compare(comparison, replica, found)
            found.compare_seconds = clock() - began
    finally:
        on_phase(f"dropping {scratch.name}")
        found.dropped = scratch.drop_quietly()


def _compare(comparison: Comparison, replica: Replica, found: _Found) -> None:
    load_replica(comparison, replica, None, lambda _number: None)
    comparison.compare()
    for page in comparison.pages(Step.FOUND):
        for difference in page:
            source, rebuilt = difference.pair
            if source is not None and source.invalid and rebuilt is None:
                # Counted as refused: no save would ever bring it into a replica.
                continue
            kind = classify(source, rebuilt)
            if kind is not None:
                found.differences[kind.value] += 1
                if len(found.samples) < _SAMPLES:
                    found.samples.append(difference.key.shown)
