"""Assigns one chunk of a plan: claim the codes, write the selections and the outbox, queue the events, mark it done.

Every step is keyed by (campaign, market, phase, ref) and idempotent, so a crash between any two of them, or a second
worker on the same chunk, costs only a repeat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import structlog

from fairdraw import scheduling
from regworkers_core.adapters.mongo.draws import PhaseRecord, PhaseStatus
from regworkers_core.domain.events import ProducerRole, selection_made
from regworkers_core.domain.messages import ItemSubject, MessageType
from regworkers_core.domain.reasons import Failure, PermanentFailure, Reason
from regworkers_core.domain.selection import NON_WINNERS, Chunk, MarketPhase, Notice, Planned
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.handling import Handled, Requested
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.observability.logs import Passed, entries_passed
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.markets import finish_market, finish_phase
from regworkers_core.selection.assign.plan import Plan, Plans, with_replanned

log = structlog.get_logger(__name__)


class Assigner:
    """An `engine.handling.Handler[Chunk]`, shared by all threads of a drain."""

    kinds = (MessageType.ASSIGN,)
    seal = None

    def __init__(self, runtime: Runtime, *, run_id: str, on_step: OnStep = no_step) -> None:
        self._runtime, self._run_id, self._on_step = runtime, run_id, on_step
        self._plans = Plans(runtime.objects)
        # The chunk of each market that was last seen open: one read by id usually answers "is any open?".
        self._seen_open: dict[MarketPhase, str] = {}
        self._lock = scheduling.lock()

    def parse(self, raw: object, kind: MessageType) -> Chunk:
        return Chunk.parse(raw)

    def key(self, item: Chunk) -> Hashable:
        return item

    def subject(self, item: Chunk) -> ItemSubject:
        return ItemSubject(item.id, {**item.market.as_fields(), "chunk": item.chunk})

    def handle(self, asked: Sequence[Requested[Chunk]]) -> Handled:
        """Assign every chunk by itself: a failure of one does not stop the others."""
        handled = Handled()
        phases: dict[tuple[str, int], PhaseRecord | None] = {}
        for each in asked:
            if each.item in handled.outcomes:
                continue
            try:
                phase = self._phase(each.item, phases)
                if phase is None:
                    # Its draw was annulled, so nothing more of it is assigned.
                    handled.outcomes[each.item] = "unchanged"
                    continue
                handled.outcomes[each.item] = self._assign(
                    each.item, phase, each.correlation_id, handled.counts
                )
            except Failure as failure:
                self._failed(each.item, failure, handled)
        self._complete(handled, phases)
        self._on_step("selections.after_complete")
        return handled

    def _phase(self, chunk: Chunk, known: dict[tuple[str, int], PhaseRecord | None]) -> PhaseRecord | None:
        """Return the record of the chunk's phase, None if the draw was annulled. Raises PermanentFailure
        RESULT_MISMATCH if the chunk is not of the committed result.
        """
        market = chunk.market
        at = (market.campaign_id, market.phase)
        if at not in known:
            record = self._runtime.draws.get(market.campaign_id)
            phase = record.phases.get(market.phase) if record else None
            if phase is None or not phase.reached(PhaseStatus.PUBLISHED):
                raise PermanentFailure(
                    Reason.RESULT_MISMATCH,
                    f"phase {market.phase} of campaign {market.campaign_id} is not published",
                )
            known[at] = None if record and record.annulled else phase
        phase = known[at]
        if phase is None:
            return None
        if phase.result_hash != chunk.result_hash:
            raise PermanentFailure(
                Reason.RESULT_MISMATCH,
                f"field resultHash is {chunk.result_hash[:12]}..., committed is {phase.result_hash[:12]}...",
            )
        if market.market_id not in phase.markets:
            raise PermanentFailure(
                Reason.RESULT_MISMATCH, f"field marketId: the draw has no market {market.market_id}"
            )
        return phase

    def _assign(self, chunk: Chunk, phase: PhaseRecord, correlation_id: str, counts: Counter[str]) -> str:
        runtime, market = self._runtime, chunk.market
        row = runtime.chunks.get([chunk.id]).get(chunk.id)
        if row is None or (row["first"], row["last"], row["resultHash"]) != (
            chunk.first,
            chunk.last,
            chunk.result_hash,
        ):
            raise PermanentFailure(
                Reason.KEY_CONFLICT, "fields first and last are not those of the chunk as it was planned"
            )
        if "doneAt" in row:
            return "unchanged"
        planned = self._planned(chunk, phase)
        at = iso(runtime.clock())
        written = self._give(chunk, planned, at, counts) if market.market_id != NON_WINNERS else 0
        expire = phase.markets[market.market_id].get("codesExpireAt", "")
        times = phase.fields["notBefore"], expire
        notices = [Notice.of(market, each, chunk.result_hash, *times) for each in planned]
        stored = runtime.outbox.write(notices, at=at, run_id=self._run_id)
        stored.raise_conflicts("rows of the outbox")
        counts["enqueued"] += stored.new
        self._on_step("selections.after_outbox")
        if market.market_id != NON_WINNERS:
            events = [selection_made(market, each, chunk.result_hash, at, correlation_id) for each in planned]
            runtime.event_queue(ProducerRole.SELECTION).send_all(events)
            counts["events"] += len(events)
        first = runtime.chunks.done(chunk, written=written, enqueued=len(planned), at=at, run_id=self._run_id)
        passed = [Passed(correlation_id, market.campaign_id, each.entry_id) for each in planned]
        # Winners and others alike, so that the log does not show who won.
        entries_passed("entry assigned", passed)
        return "applied" if first else "unchanged"

    def _planned(self, chunk: Chunk, phase: PhaseRecord) -> list[Planned]:
        entry = phase.markets[chunk.market.market_id]
        rows = self._plans.rows(Plan.of(chunk.market, entry), chunk.first, chunk.last)
        return with_replanned(self._runtime.codes, chunk.market, entry, chunk.first, rows)

    def _give(self, chunk: Chunk, winners: Sequence[Planned], at: str, counts: Counter[str]) -> int:
        """Claim the codes, then write the selections, so that none is without its code."""
        runtime, market = self._runtime, chunk.market
        counts["claimed"] += runtime.codes.claim(market, winners, at=at, run_id=self._run_id)
        self._on_step("selections.after_claim")
        stored = runtime.selections.write(market, winners, chunk.result_hash, at=at, run_id=self._run_id)
        stored.raise_conflicts("selections")
        counts["written"] += stored.new
        self._on_step("selections.after_write")
        return len(winners)

    def _failed(self, chunk: Chunk, failure: Failure, handled: Handled) -> None:
        handled.outcomes[chunk] = failure
        log.warning("chunk not assigned", chunk=chunk.id, error=str(failure))
        if isinstance(failure, PermanentFailure):
            try:
                self._runtime.chunks.failed(chunk, str(failure), iso(self._runtime.clock()))
            except Failure as other:
                # A retry needs this note; without it the chunk stays on the queue.
                handled.outcomes[chunk] = other

    def _complete(self, handled: Handled, phases: Mapping[tuple[str, int], PhaseRecord | None]) -> None:
        """Complete markets and phases without open chunks. Also for chunks that were done before: their worker may have
        died right after.
        """
        touched: dict[MarketPhase, list[Chunk]] = {}
        for chunk, outcome in handled.outcomes.items():
            if isinstance(outcome, str):
                touched.setdefault(chunk.market, []).append(chunk)
        finished: dict[tuple[str, int], list[Chunk]] = {}
        for market, chunks in touched.items():
            at = (market.campaign_id, market.phase)
            phase = phases[at]
            try:
                if phase is None or self._any_open(market):
                    continue
                handled.counts["markets_completed"] += finish_market(self._runtime, market, phase)
                finished.setdefault(at, []).extend(chunks)
            except Failure as failure:
                handled.outcomes.update(dict.fromkeys(chunks, failure))
        for at, chunks in finished.items():
            try:
                finish_phase(self._runtime, *at, run_id=self._run_id)
            except Failure as failure:
                handled.outcomes.update(dict.fromkeys(chunks, failure))

    def _any_open(self, market: MarketPhase) -> bool:
        with self._lock:
            seen = self._seen_open.get(market)
        if seen is not None and self._runtime.chunks.is_open(seen):
            return True
        found = self._runtime.chunks.last_open(market)
        with self._lock:
            if found is None:
                self._seen_open.pop(market, None)
            else:
                self._seen_open[market] = found
        return found is not None
