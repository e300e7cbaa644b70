"""Reconcile from end to end: read, compare, judge, report, repair."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from regworkers_core.adapters.mongo.reconcile_results import ReconcileSummary
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.ports import Queue
from regworkers_core.engine.rate import TokenBucket
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.replication.campaign import require_campaign
from regworkers_core.replication.reconcile.acceptance import (
    Accept,
    Acceptance,
    AcceptanceReport,
    Superseding,
)
from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.compare import Comparison, Step
from regworkers_core.replication.reconcile.judge import Judge
from regworkers_core.replication.reconcile.reconcile_report import ReconcileResult, RepairReport
from regworkers_core.replication.reconcile.removals import Removals, judge_removals
from regworkers_core.replication.reconcile.repair import Repair
from regworkers_core.replication.reconcile.scan import load_replica, load_source
from regworkers_core.replication.reconcile.sides import Sides
from regworkers_core.runtime import Runtime
from regworkers_core.settings import ReplicationSettings

log = structlog.get_logger(__name__)

GENERATIONS = 3
SAMPLES = 10
# The save sensor needs a tick and a run's start before anything arrives.
_PATIENCE_OBJECTIVES = 2

OnProgress = Callable[[int], None]
OnPhase = Callable[[str], None]


def reconcile(
    runtime: Runtime,
    campaign_id: str | None = None,
    *,
    repair: bool = False,
    yes_remove: int | None = None,
    accept: Accept | None = None,
    on_progress: OnProgress | None = None,
    on_phase: OnPhase | None = None,
    samples: int = SAMPLES,
) -> ReconcileResult:
    """Compare the demand table with the replica, content and all, and queue what differs if `repair`; up to
    `yes_remove` removals also where the repair would refuse that many. With `accept` the source wins where the replica
    is ahead, and without `repair` the result only says where that would be.

    `on_progress` gets the number of entries looked at so far (both sides and each recheck count), from several
    threads but one at a time; `on_phase` a few words on what comes next. Takes as long as both scans, and the
    lag objective again for each recheck. Raises TransientFailure when a store cannot answer, UsageError
    without tables, addresses or credentials, and for a campaign that nobody knows.
    """
    require_campaign(runtime, campaign_id)
    flow = Reconciliation(
        Sides(runtime.demand_table, runtime.replica, runtime.dead_letters),
        runtime.queue(runtime.names.replication_queue),
        runtime.settings.replication,
        superseded=runtime.superseded_entries,
        visibility_seconds=runtime.settings.save.visibility_seconds,
        clock=runtime.clock,
        on_progress=on_progress,
        on_phase=on_phase,
        samples=samples,
    )
    result = flow.run(campaign_id, repair=repair, yes_remove=yes_remove, accept=accept)
    log.info(
        "reconcile ended",
        **{name: value for name, value in result.as_dict().items() if name not in ("samples", "acceptance")},
    )
    if result.acceptance is not None:
        log.info("entries ahead", told=result.acceptance.in_words)
    if campaign_id is None:
        _keep(runtime, result)
    return result


def _keep(runtime: Runtime, result: ReconcileResult) -> None:
    """For whoever asks later how it was; that it cannot be kept takes nothing from the result."""
    left = result.repair.remaining if result.repair else result.counts
    summary = ReconcileSummary(
        iso(runtime.clock()),
        entries=result.totals["source"],
        differences={
            kind.value: number for kind, number in left.items() if number and kind is not Kind.NOT_YET
        },
        repaired=result.repair is not None,
        seconds=round(result.seconds, 3),
    )
    try:
        runtime.reconcile_results.put(summary)
    except TransientFailure as failure:
        log.warning("result of the reconcile not kept", error=str(failure))


class Reconciliation:
    """The same over any two stores, with clock (epoch seconds) and sleep passed in."""

    def __init__(
        self,
        sides: Sides,
        queue: Queue,
        settings: ReplicationSettings,
        *,
        superseded: Superseding,
        visibility_seconds: int,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
        generations: int = GENERATIONS,
        samples: int = SAMPLES,
        on_progress: OnProgress | None = None,
        on_phase: OnPhase | None = None,
        on_step: OnStep = no_step,
    ) -> None:
        self._on_step = on_step
        self._sides, self._queue, self._settings = sides, queue, settings
        self._superseded, self._visibility_seconds = superseded, visibility_seconds
        self._clock, self._sleep = clock, sleep
        self._generations, self._samples = generations, samples
        self._on_progress = on_progress or (lambda _done: None)
        self._phase = on_phase or (lambda _text: None)
        self._done = 0
        self._lock = threading.Lock()

    def run(
        self,
        campaign_id: str | None = None,
        *,
        repair: bool = False,
        yes_remove: int | None = None,
        accept: Accept | None = None,
    ) -> ReconcileResult:
        began = self._clock()
        with Comparison(self._settings.compare_memory_mib) as comparison:
            self._phase("reading the demand table")
            load_source(comparison, self._sides.source, campaign_id, self._settings.scan_segments, self._tick)
            source_read_at = self._clock()
            self._phase("reading the replica")
            load_replica(comparison, self._sides.replica, campaign_id, self._tick)
            self._phase("comparing")
            comparison.compare()
            judge = Judge(
                comparison,
                self._sides,
                lag_objective_seconds=self._settings.lag_objective_seconds,
                clock=self._clock,
                sleep=self._sleep,
                tick=self._tick,
            )
            judge.first_look(replica_read_at=source_read_at)
            if waiting := comparison.count(Step.OPEN):
                self._phase(f"{waiting} may be on their way: looking again after the lag objective")
            generations = judge.recheck(source_read_at, self._generations)
            counts, totals = comparison.counts(), comparison.totals()
            samples = {
                kind: comparison.samples(kind, self._samples) for kind, number in counts.items() if number
            }
            accepted = None
            if accept is not None:
                accepted = self._accept(comparison, campaign_id, accept, lower=repair)
            repaired = None
            if repair:
                removals = judge_removals(
                    comparison.orphans(),
                    replica=totals.replica,
                    share=self._settings.repair_removal_share,
                    always=self._settings.repair_removals,
                    confirmed=yes_remove,
                )
                repaired = self._repair(comparison, judge, removals)
        return ReconcileResult(
            campaign_id=campaign_id,
            counts=counts,
            totals=totals._asdict(),
            samples=samples,
            generations=generations,
            seconds=self._clock() - began,
            repair=repaired,
            acceptance=accepted,
        )

    def _accept(
        self, comparison: Comparison, campaign_id: str | None, accept: Accept, *, lower: bool
    ) -> AcceptanceReport:
        acceptance = Acceptance(
            comparison,
            self._sides,
            self._superseded,
            campaign_id=campaign_id,
            clock=self._clock,
            tick=self._tick,
            on_step=self._on_step,
        )
        planned = acceptance.plan(accept)
        if not lower:
            return planned
        self._phase(f"letting the source win in {planned.found} entries")
        return acceptance.run(planned)

    def _repair(self, comparison: Comparison, judge: Judge, removals: Removals) -> RepairReport:
        findings = sum(number for kind, number in comparison.counts().items() if kind is not Kind.NOT_YET)
        self._phase(f"repairing {findings} findings")
        rate = self._settings.repair_items_per_second
        return Repair(
            comparison,
            self._sides,
            judge,
            self._queue,
            TokenBucket(rate, clock=self._clock, sleep=self._sleep),
            removals,
            patience_seconds=_PATIENCE_OBJECTIVES * self._settings.lag_objective_seconds,
            visibility_seconds=self._visibility_seconds,
            clock=self._clock,
            sleep=self._sleep,
            tick=self._tick,
        ).run()

    def _tick(self, number: int) -> None:
        with self._lock:
            self._done += number
            self._on_progress(self._done)
