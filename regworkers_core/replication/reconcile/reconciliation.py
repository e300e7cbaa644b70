"""Reconcile from end to end: read both sides, compare, recheck, accept, repair, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import structlog

from regworkers_core.adapters.mongo.activity import ReconcileSummary
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine import scheduling
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.engine.queue import Queue
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.replication.queue_keys import require_campaign
from regworkers_core.replication.reconcile.acceptance import (
    Accept,
    Acceptance,
    AcceptanceReport,
    Superseding,
)
from regworkers_core.replication.reconcile.classify import (
    EXPLANATIONS,
    Kind,
    ReplicaAccess,
    Sides,
    SourceReads,
    of_replica,
    of_source,
)
from regworkers_core.replication.reconcile.comparison import Comparison, PairProgress, Recheck, Tick
from regworkers_core.replication.reconcile.repair import (
    Counts,
    Removals,
    Repair,
    RepairReport,
    limit_removals,
)
from regworkers_core.runtime import Runtime
from regworkers_core.settings import ReplicationSettings


def _is_clean(counts: Counts) -> bool:
    return not any(number for kind, number in counts.items() if kind is not Kind.NOT_YET)


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """`counts` has every kind, zeros included, as found before any repair; `totals` are `source`, `replica`
    (live), `tombstones`, `matched` and `only_in_replica`; `samples` a few ids (`campaignId:entryId`) by kind.
    """

    campaign_id: str | None
    counts: Counts
    totals: Mapping[str, int]
    samples: Mapping[Kind, tuple[str, ...]]
    generations: int
    seconds: float
    repair: RepairReport | None = None
    acceptance: AcceptanceReport | None = None

    @property
    def clean(self) -> bool:
        """Whether no finding remains: none was found, or the repair has healed them all."""
        return _is_clean(self.repair.remaining if self.repair else self.counts)

    @property
    def numbers(self) -> dict[str, Any]:
        """What the repair did, for the audit log; empty without one."""
        if self.repair is None:
            return {}
        repair, accepted = self.repair, self.acceptance
        made = {} if accepted is None else {"acceptance": accepted.acceptance, "accepted": accepted.accepted}
        return {"sent": repair.sent, "removals": repair.removals, "healed": repair.healed, **made}

    @property
    def adds_up(self) -> bool:
        """Whether each entry of either side is counted exactly once."""
        entries = self.totals["source"] + self.totals["only_in_replica"]
        return entries == self.totals["matched"] + sum(self.counts.values())

    @property
    def explanations(self) -> dict[Kind, str]:
        """A sentence for each kind that was found."""
        return {kind: EXPLANATIONS[kind] for kind, number in self.counts.items() if number}

    def as_dict(self) -> dict[str, Any]:
        """A JSON document."""
        return {
            "campaignId": self.campaign_id,
            "clean": self.clean,
            "counts": {kind.value: number for kind, number in self.counts.items()},
            "totals": {
                "source": self.totals["source"],
                "replica": self.totals["replica"],
                "tombstones": self.totals["tombstones"],
                "matched": self.totals["matched"],
                "onlyInReplica": self.totals["only_in_replica"],
            },
            "samples": {kind.value: list(ids) for kind, ids in self.samples.items()},
            "explanations": {kind.value: text for kind, text in self.explanations.items()},
            "generations": self.generations,
            "seconds": round(self.seconds, 3),
            "repair": None if self.repair is None else self.repair.as_dict(),
            "acceptance": None if self.acceptance is None else self.acceptance.as_dict(),
        }


log = structlog.get_logger(__name__)

GENERATIONS = 3
_LOAD_ROWS = 5000
SAMPLES = 10
# The save sensor needs a tick and the start of a run before anything arrives.
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
    """Compare the demand table with the replica, with all content, and queue what differs if `repair`. Up to
    `yes_remove` removals are queued also where the repair would refuse that many. With `accept` the source wins where
    the replica is ahead; without `repair` the result only lists where that would be.

    `on_progress` gets the number of entries read so far (both sides and each recheck count), from several threads but
    one at a time; `on_phase` a few words on the next phase. Blocks for both scans, and for one lag objective per
    recheck. Raises TransientFailure when a store cannot answer, UsageError without tables, addresses or credentials,
    and for an unknown campaign.
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
        log.info("entries ahead", summary=result.acceptance.in_words)
    if campaign_id is None:
        _store(runtime, result)
    return result


def _store(runtime: Runtime, result: ReconcileResult) -> None:
    """Store a summary for later reports. If that fails, the result is still returned."""
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
        log.warning("result of the reconcile not stored", error=str(failure))


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
        clock: Callable[[], float] = scheduling.now,
        sleep: Callable[[float], object] = scheduling.sleep,
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
        self._lock = scheduling.lock()

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

            def load(items: Sequence[tuple[EntryKey, Mapping[str, Any]]]) -> None:
                comparison.add("source", [of_source(key, item) for key, item in items])
                self._tick(len(items))

            read_source(self._sides.source, campaign_id, self._settings.scan_segments, load)
            source_read_at = self._clock()
            self._phase("reading the replica")
            load_replica(comparison, self._sides.replica, campaign_id, self._tick)
            self._phase("comparing")
            comparison.compare()
            recheck = Recheck(
                comparison,
                self._sides,
                lag_objective_seconds=self._settings.lag_objective_seconds,
                clock=self._clock,
                sleep=self._sleep,
                tick=self._tick,
            )
            recheck.settle_certain(replica_read_at=source_read_at)
            if waiting := comparison.count(PairProgress.OPEN):
                self._phase(f"{waiting} may be on their way: reading them again after the lag objective")
            generations = recheck.run(source_read_at, self._generations)
            counts, totals = comparison.counts(), comparison.totals()
            samples = {
                kind: comparison.samples(kind, self._samples) for kind, number in counts.items() if number
            }
            accepted = None
            if accept is not None:
                accepted = self._accept(comparison, campaign_id, accept, lower=repair)
            repaired = None
            if repair:
                removals = limit_removals(
                    comparison.orphans(),
                    replica=totals.replica,
                    share=self._settings.repair_removal_share,
                    always=self._settings.repair_removals,
                    confirmed=yes_remove,
                )
                repaired = self._repair(comparison, recheck, removals)
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

    def _repair(self, comparison: Comparison, recheck: Recheck, removals: Removals) -> RepairReport:
        findings = sum(number for kind, number in comparison.counts().items() if kind is not Kind.NOT_YET)
        self._phase(f"repairing {findings} findings")
        rate = self._settings.repair_items_per_second
        return Repair(
            comparison,
            self._sides,
            recheck,
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


def read_source(
    table: SourceReads,
    campaign_id: str | None,
    segments: int,
    take: Callable[[Sequence[tuple[EntryKey, Mapping[str, Any]]]], None],
) -> None:
    """A parallel scan in `segments` threads, or a query of one campaign, which is one partition. Each thread hands its
    pages to `take`.
    """
    cancelled = scheduling.event()

    def read(segment: int) -> None:
        for page in table.pages(campaign_id, segment, segments):
            if cancelled.is_set():
                return
            take(page.items)

    segments = segments if campaign_id is None else 1
    with scheduling.pool(segments, "reconcile") as pool:
        futures = [pool.submit(read, segment) for segment in range(segments)]
        try:
            done, _ = scheduling.wait(futures, return_when=scheduling.FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            # The others end with their page when one failed or the caller is interrupted.
            cancelled.set()


def load_replica(comparison: Comparison, replica: ReplicaAccess, campaign_id: str | None, tick: Tick) -> None:
    """Every document, tombstones included."""
    documents = replica.scan(campaign_id)
    while chunk := list(islice(documents, _LOAD_ROWS)):
        comparison.add("replica", [of_replica(key, stored) for key, stored in chunk])
        tick(len(chunk))
