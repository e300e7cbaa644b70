"""Reconcile from end to end: read both sides, compare, recheck, accept, repair, report."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, replace
from functools import reduce
from math import inf
from typing import Any, NamedTuple

import structlog

from fairdraw import scheduling
from fairdraw.documents import as_document, camel
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.mongo.activity import ReconcileSummary
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.live_entries import count_entries
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.engine.queue import Queue
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.observability.tracing import span
from regworkers_core.replication.keys import require_campaign
from regworkers_core.replication.reconcile.acceptance import (
    Accept,
    Acceptance,
    AcceptanceReport,
    Superseding,
)
from regworkers_core.replication.reconcile.classify import (
    EXPLANATIONS,
    WAITING,
    Kind,
    Pair,
    Sides,
)
from regworkers_core.replication.reconcile.comparison import (
    PAGE,
    Comparison,
    PairProgress,
    Range,
    Recheck,
    Totals,
)
from regworkers_core.replication.reconcile.repair import (
    Counts,
    Removals,
    Repair,
    RepairReport,
    limit_removals,
)
from regworkers_core.replication.reconcile.segments import (
    GROUP_ENTRIES,
    SEGMENT_ENTRIES,
    Segment,
    Segments,
    read_pairs,
)
from regworkers_core.runtime import Runtime
from regworkers_core.settings import ReplicationSettings


def _is_clean(counts: Counts) -> bool:
    return not any(number for kind, number in counts.items() if kind not in WAITING)


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """What a comparison found. The numbers of a cycle are of all segments, whenever they were verified."""

    campaign_id: str | None
    counts: Counts  # every kind, zeros included, as found before any repair
    totals: Mapping[str, int]  # `source`, `replica` (live), `tombstones`, `matched` and `only_in_replica`
    samples: Mapping[Kind, tuple[str, ...]]  # a few ids (`campaignId:entryId`) of this run by kind
    generations: int  # how often differing pairs were read
    seconds: float
    # The ISO time since when every entry was verified: None where some never were, and for a part (`since`).
    verified_as_of: str | None = None
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
        return {kind: EXPLANATIONS[kind] for kind, number in self.counts.items() if number}

    def as_dict(self) -> dict[str, Any]:
        names = "campaign_id clean counts totals samples explanations generations seconds verified_as_of"
        return as_document(self, *names.split(), "repair", "acceptance") | {
            "totals": {camel(name): number for name, number in self.totals.items()},
            "seconds": round(self.seconds, 3),
        }


log = structlog.get_logger(__name__)

GENERATIONS = 3
_NOTHING = Totals(0, 0, 0, 0, 0)
# Leases of the rows of segments, which the worker renews while it compares.
_LEASE_SECONDS = 30.0
SAMPLES = 10
# The save sensor needs a tick and the start of a run before anything arrives.
_PATIENCE_OBJECTIVES = 2

OnPhase = Callable[[str], None]


@dataclass(frozen=True)
class Comparing:
    """What to compare, and what to do about it."""

    campaign_id: str | None = None
    _: KW_ONLY
    repair: bool = False  # queues what differs
    yes_remove: int | None = None  # removals that are queued also where the repair would refuse that many
    accept: Accept | None = None  # the source wins where the replica is ahead, or would without `repair`
    since: str = ""  # only entries whose `updatedAt`, on either side, is that ISO time or later
    cycle: bool = False  # only the segments that were not verified within `replication.verifiedHours`


@span("reconcile")
def reconcile(
    runtime: Runtime,
    comparing: Comparing = Comparing(),
    *,
    workers: int = 1,
    on_progress: Progress = no_progress,
    on_phase: OnPhase = lambda _text: None,
) -> ReconcileResult:
    """Compare the demand table with the replica, with all content, and queue what differs if `repair`. Of the `workers`
    that share a cycle each takes its part of `replication.reconcileReadUnits`.

    `on_progress` gets the number of entries read so far (both sides and each recheck count), from several threads but
    one at a time; `on_phase` a few words on the next phase. Blocks for both scans, and for one lag objective per
    recheck. Raises TransientFailure when a store cannot answer, UsageError without tables, addresses or credentials,
    for an unknown campaign, and for a cycle of a part or with a repair.
    """
    campaign_id, since = comparing.campaign_id, comparing.since
    if comparing.cycle and (campaign_id or since or comparing.repair or comparing.accept):
        raise UsageError("a cycle compares all campaigns and repairs nothing")
    require_campaign(runtime, campaign_id)
    rate = runtime.settings.replication.reconcile_read_units / workers
    flow = Reconciliation(
        Sides(runtime.demand_table, runtime.replica, runtime.dead_letters),
        runtime.queue(runtime.names.replication_queue),
        runtime.settings.replication,
        segments=Segments(runtime.leases, lease_seconds=_LEASE_SECONDS),
        # A draw waits for the comparison of its campaign.
        budget=TokenBucket(rate) if campaign_id is None else None,
        superseded=runtime.superseded_entries,
        parked=lambda of: runtime.parking.waiting(*of),
        visibility_seconds=runtime.settings.save.visibility_seconds,
        clock=runtime.clock,
        on_progress=on_progress,
        on_phase=on_phase,
    )
    result = flow.run(comparing)
    log.info(
        "reconcile ended",
        **{name: value for name, value in result.as_dict().items() if name not in ("samples", "acceptance")},
    )
    if result.acceptance is not None:
        log.info("entries ahead", summary=result.acceptance.in_words)
    if campaign_id is None and not since:
        _store(runtime, result)
    if not since:
        count_entries(runtime, runtime.replica.campaign_ids() if campaign_id is None else [campaign_id])
    return result


def _store(runtime: Runtime, result: ReconcileResult) -> None:
    """Store a summary for later reports. If that fails, the result is still returned."""
    left = result.repair.remaining if result.repair else result.counts
    summary = ReconcileSummary(
        iso(runtime.clock()),
        entries=result.totals["source"],
        differences={kind.value: number for kind, number in left.items() if number and kind not in WAITING},
        repaired=result.repair is not None,
        seconds=round(result.seconds, 3),
        verified_as_of=result.verified_as_of or "",
    )
    try:
        runtime.reconcile_results.put(summary)
    except TransientFailure as failure:
        log.warning("result of the reconcile not stored", error=str(failure))


@dataclass(eq=False)
class Reconciliation:
    """The same over any two stores."""

    sides: Sides
    queue: Queue
    settings: ReplicationSettings
    _: KW_ONLY
    segments: Segments
    # Keeps what an accepted repair replaces.
    superseded: Superseding
    # That of the save drain's messages.
    visibility_seconds: int
    # The entries of a range whose keys wait for the end of a pause, page by page.
    parked: Callable[[Range], Iterable[Sequence[str]]] = lambda _range: ()
    # None: it reads as fast as it can.
    budget: TokenBucket | None = None
    # Epoch seconds.
    clock: Callable[[], float] = scheduling.now
    # Waits for this number of seconds.
    sleep: Callable[[float], object] = scheduling.sleep
    # How often differing pairs are read again.
    generations: int = GENERATIONS
    on_progress: Progress = no_progress
    on_phase: OnPhase = lambda _text: None
    on_step: OnStep = no_step

    def __post_init__(self) -> None:
        self._done = 0
        self._lock = scheduling.lock()

    def run(self, comparing: Comparing) -> ReconcileResult:
        campaign_id, since, cycle = comparing.campaign_id, comparing.since, comparing.cycle
        began = self.clock()
        generations = 0
        with Comparison(self.settings.compare_memory_mib) as comparison:
            recheck = Recheck(
                comparison,
                self.sides,
                lag_objective_seconds=self.settings.lag_objective_seconds,
                clock=self.clock,
                sleep=self.sleep,
                tick=self._tick,
            )
            compared: list[tuple[Segment, Totals]] = []
            with closing(self._groups(campaign_id, since, cycle=cycle)) as groups:
                for group in groups:
                    self.on_phase("comparing both sides")
                    at = iso(self.clock())
                    compared = self._compare(comparison, group, since, cycle=cycle)
                    source_read_at = recheck.settle_certain()
                    if waiting := comparison.count(PairProgress.OPEN):
                        self.on_phase(
                            f"{waiting} may be on their way: reading them again after the lag objective"
                        )
                    generations = max(generations, recheck.run(source_read_at, self.generations))
                    self._mark_parked(comparison, group)
                    compared = [(replace(segment, verified_at=at), agreed) for segment, agreed in compared]
                    if cycle:
                        self._verified(comparison, compared)
            counts: Counts = comparison.counts()
            totals = comparison.totals()
            samples = {kind: comparison.samples(kind, SAMPLES) for kind, number in counts.items() if number}
            accepted = None
            if comparing.accept is not None:
                accepted = self._accept(comparison, campaign_id, comparing.accept, lower=comparing.repair)
            repaired = None
            if comparing.repair:
                removals = limit_removals(
                    comparison.orphans(),
                    replica=totals.replica,
                    share=self.settings.repair_removal_share,
                    always=self.settings.repair_removals,
                    confirmed=comparing.yes_remove,
                )
                repaired = self._repair(comparison, recheck, removals)
            if not cycle and not since:
                # What is left after a repair.
                self._verified(comparison, compared)
        listed = [] if since else self.segments.listed(campaign_id)
        if cycle:
            counts, totals = _of_all(listed)
        return ReconcileResult(
            campaign_id=campaign_id,
            counts=counts,
            totals=totals._asdict(),
            samples=samples,
            generations=generations,
            seconds=self.clock() - began,
            verified_as_of=min((each.verified_at for each in listed), default="") or None,
            repair=repaired,
            acceptance=accepted,
        )

    def _groups(self, campaign_id: str | None, since: str, *, cycle: bool) -> Generator[list[Segment]]:
        """What is compared, and then rechecked at once: a cycle stores its progress after each group."""
        campaigns = {campaign_id} if campaign_id is not None else {*self.sides.campaign_ids()}
        if since:
            yield [Segment(each) for each in sorted(campaigns)]
            return
        self.segments.cover(campaigns, all_campaigns=campaign_id is None)
        if cycle:
            yield from self.segments.due(iso(self.clock() - self.settings.verified_hours * 3600))
        else:
            yield self.segments.listed(campaign_id)

    def _compare(
        self, comparison: Comparison, group: Sequence[Segment], since: str, *, cycle: bool
    ) -> list[tuple[Segment, Totals]]:
        """The segments as they are from now on, each with what agreed at once."""
        waiting, compared = deque(group), list[tuple[Segment, Totals]]()
        cancelled = scheduling.event()

        def work() -> None:
            while not cancelled.is_set():
                try:
                    segment = waiting.popleft()
                except IndexError:
                    return
                parts = self._compare_one(comparison, segment, since, most=GROUP_ENTRIES if cycle else inf)
                compared.extend(parts)

        threads = self.settings.scan_segments
        with scheduling.pool(threads, "reconcile") as pool:
            futures = [pool.submit(work) for _ in range(threads)]
            try:
                finished, _ = scheduling.wait(futures, return_when=scheduling.FIRST_EXCEPTION)
                for future in finished:
                    future.result()
            finally:
                # The others end with their segment when one failed or the caller is interrupted.
                cancelled.set()
        return compared

    def _compare_one(
        self, comparison: Comparison, segment: Segment, since: str, *, most: float
    ) -> list[tuple[Segment, Totals]]:
        """The segment, or its parts where it has become too large. After `most` entries the rest is left, as a segment
        of its own.
        """
        parts, part, agreed, page = [], segment, _NOTHING, list[Pair]()
        read = 0

        def add() -> Totals:
            self._tick(len(page))
            added = comparison.add(page)
            page.clear()
            return agreed.plus(added)

        for pair in read_pairs(self.sides, segment, since, self._pay):
            at = pair.key
            if read and read % SEGMENT_ENTRIES == 0 and not at.problem:
                agreed = add()
                parts.append((replace(part, end=at.entry_id), agreed))
                part, agreed = replace(part, first=at.entry_id), _NOTHING
                if read >= most:
                    self.segments.add(Segment(segment.campaign_id, at.entry_id))
                    return parts
            page.append(pair)
            read += 1
            if len(page) == PAGE:
                agreed = add()
        parts.append((part, add()))
        if read > 2 * SEGMENT_ENTRIES or not segment.verified_at:
            return parts
        return [(segment, reduce(Totals.plus, (each for _, each in parts)))]

    def _mark_parked(self, comparison: Comparison, group: Sequence[Segment]) -> None:
        """After the last look: a key that was parked before it is not taken for lost."""
        for segment in group:
            if any(comparison.counts(segment.ids).values()):
                for page in self.parked(segment.ids):
                    comparison.park(segment.campaign_id, page)

    def _pay(self, units: float) -> None:
        if self.budget is not None:
            self.budget.take(units)

    def _verified(self, comparison: Comparison, compared: Sequence[tuple[Segment, Totals]]) -> None:
        # What is behind comes first, because a segment ends where the next one begins.
        for segment, agreed in sorted(compared, key=lambda each: each[0].ids[:2], reverse=True):
            totals = agreed.plus(comparison.differing(segment.ids))
            differences = {kind.value: number for kind, number in comparison.counts(segment.ids).items()}
            numbers = totals._asdict() | differences
            self.segments.verified(replace(segment, numbers=numbers))

    def _accept(
        self, comparison: Comparison, campaign_id: str | None, accept: Accept, *, lower: bool
    ) -> AcceptanceReport:
        acceptance = Acceptance(
            comparison,
            self.sides,
            self.superseded,
            campaign_id=campaign_id,
            clock=self.clock,
            tick=self._tick,
            on_step=self.on_step,
        )
        planned = acceptance.plan(accept)
        if not lower:
            return planned
        self.on_phase(f"letting the source win in {planned.found} entries")
        return acceptance.run(planned)

    def _repair(self, comparison: Comparison, recheck: Recheck, removals: Removals) -> RepairReport:
        findings = sum(number for kind, number in comparison.counts().items() if kind not in WAITING)
        self.on_phase(f"repairing {findings} findings")
        rate = self.settings.repair_items_per_second
        return Repair(
            comparison,
            self.sides,
            recheck,
            self.queue,
            TokenBucket(rate, clock=self.clock, sleep=self.sleep),
            removals,
            patience_seconds=_PATIENCE_OBJECTIVES * self.settings.lag_objective_seconds,
            visibility_seconds=self.visibility_seconds,
            clock=self.clock,
            sleep=self.sleep,
            tick=self._tick,
        ).run()

    def _tick(self, number: int) -> None:
        with self._lock:
            self._done += number
            self.on_progress(self._done)


class _Sums(NamedTuple):
    counts: Counts
    totals: Totals


def _of_all(segments: Sequence[Segment]) -> _Sums:
    numbers = Counter[str]()
    for segment in segments:
        numbers.update(segment.numbers)
    totals = Totals(*(numbers[name] for name in Totals._fields))
    return _Sums({kind: numbers[kind] for kind in Kind}, totals)
