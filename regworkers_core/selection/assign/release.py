"""Publishes a drawn phase: plans every market and queues its chunks; and retries markets that are stalled.

Everything can be repeated at any time: plans and chunks are written once, and only chunks that are not done are sent
again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from regworkers_core.adapters.mongo.draws import (
    DrawRecord,
    MarketStatus,
    PhaseOfDraw,
    PhaseRecord,
    PhaseStatus,
)
from regworkers_core.domain.keys import quoted
from regworkers_core.domain.messages import MessageType, encode
from regworkers_core.domain.reasons import (
    PermanentFailure,
    Reason,
    RequestError,
    TransientFailure,
    UsageError,
)
from regworkers_core.domain.selection import NON_WINNERS, Chunk, DrawBusy, MarketPhase, cut
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.leases import Lease
from regworkers_core.engine.queue import QUEUE_SERVICE, Outgoing
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.observability.tracing import inject
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.committed import Committed, committed
from regworkers_core.selection.assign.markets import counts, enough_codes, finish_market, finish_phase
from regworkers_core.selection.assign.plan import Plan, log_codes, write_others, write_seats
from regworkers_core.selection.campaigns.registry import draw_lease

Facts = dict[str, Any]


def publish_phase(
    runtime: Runtime,
    campaign_id: str,
    phase: int,
    *,
    token: int,
    run_id: str,
    on_step: OnStep = no_step,
) -> dict[str, Facts]:
    """Register the markets of a confirmed phase (that makes it PUBLISHED), plan each and queue its chunks.

    Returns facts by market: `status`, `planned`, and if codes are missing `needed` and `available`; such a market
    waits and the others continue. Raises UsageError if the phase is not drawn and confirmed, Fenced if another run took
    over, PermanentFailure if the result is not the committed one.
    """
    draw, record = _phase(runtime, campaign_id, phase)
    if not record.reached(PhaseStatus.DRAWN) or "confirmedAt" not in record.fields:
        raise UsageError(f"phase {phase} of campaign {campaign_id} is not confirmed: confirm it first")
    if not record.markets or any(_waits(entry) for entry in record.markets.values()):
        with committed(runtime, campaign_id, phase, record.fields) as result:
            if not record.markets:
                _register(runtime, campaign_id, record, result, token)
                draw, record = _phase(runtime, campaign_id, phase)
                on_step("draw.after_register")
            facts = _advance_all(runtime, draw, record, result, on_step)
    else:
        facts = _advance_all(runtime, draw, record, None, on_step)
    finish_phase(runtime, campaign_id, phase, run_id=run_id)
    return facts


def resume_blocked(runtime: Runtime, campaign_id: str, *, run_id: str = "") -> dict[str, Facts]:
    """Plan and queue the markets that waited for codes and have enough now; there may be none. Raises TransientFailure,
    also while another run works on the draw.
    """
    run_id = run_id or _new_run_id()
    done: dict[str, Facts] = {}
    if not _ready(runtime, runtime.draws.get(campaign_id)):
        return done
    with planning(runtime, campaign_id, run_id):
        draw = runtime.draws.get(campaign_id)
        for number, markets in _ready(runtime, draw).items():
            draw, phase = _phase(runtime, campaign_id, number)
            with committed(runtime, campaign_id, number, phase.fields) as result:
                done |= _advance(runtime, draw, markets, phase, result)
            finish_phase(runtime, campaign_id, number, run_id=run_id)
    return done


def _ready(runtime: Runtime, draw: DrawRecord | None) -> dict[int, list[MarketPhase]]:
    """Return by phase the markets that waited for codes and have enough now."""
    found: dict[int, list[MarketPhase]] = {}
    if draw is None or draw.is_over:
        return found
    for number, phase in draw.phases.items():
        for market_id, entry in phase.markets.items():
            market = MarketPhase(draw.campaign_id, market_id, number)
            if entry["status"] == MarketStatus.BLOCKED and enough_codes(runtime, draw, market):
                found.setdefault(number, []).append(market)
    return found


@contextmanager
def planning(runtime: Runtime, campaign_id: str, run_id: str) -> Iterator[Lease]:
    """Hold the lease of the draw to make plans. Codes are voided under the same lease, so no plan names a code that is
    void when the plan becomes valid. Raises TransientFailure while another run works on the draw.
    """
    try:
        with draw_lease(runtime, campaign_id, run_id) as lease:
            yield lease
    except DrawBusy as busy:
        raise TransientFailure("leases", str(busy)) from None


def retry_market(runtime: Runtime, campaign_id: str, market_id: str, *, run_id: str = "") -> Facts:
    """Retry a market: plan it if it waits, send its open chunks, complete it if all are done.

    No code is assigned and no fan notified twice. Raises UsageError if there is no such market to retry,
    TransientFailure, also if it needs a plan while another run works on the draw.
    """
    run_id = run_id or _new_run_id()
    draw, phase = market_at_work(runtime, campaign_id, market_id)
    market = MarketPhase(campaign_id, market_id, phase.phase)
    if _waits(phase.markets[market_id]):
        with planning(runtime, campaign_id, run_id):
            draw, phase = _phase(runtime, campaign_id, market.phase)
            with committed(runtime, campaign_id, market.phase, phase.fields) as result:
                facts = _advance(runtime, draw, [market], phase, result)[market_id]
    else:
        facts = _advance(runtime, draw, [market], phase, None)[market_id]
    if facts["status"] == MarketStatus.ASSIGNING and not facts["queued"]:
        facts |= _all_done(runtime, market, phase)
    completed = finish_phase(runtime, campaign_id, phase.phase, run_id=run_id)
    return {**market.as_fields(), **facts, "phaseCompleted": completed}


def market_at_work(runtime: Runtime, campaign_id: str, market_id: str) -> PhaseOfDraw:
    """Return the draw and the oldest phase in which this market is not complete (later ones wait for it), else the
    latest. Raises RequestError if there is no such market to assign.
    """
    draw, phase = _phase(runtime, campaign_id, None)
    for candidate in draw.phases.values():
        if market_id in candidate.markets and not candidate.reached(PhaseStatus.COMPLETED):
            phase = candidate
            break
    if market_id not in phase.markets:
        known = (
            ", ".join(each for each in phase.markets if each != NON_WINNERS) or "none before the publication"
        )
        raise RequestError(
            f"campaign {campaign_id} has no market {quoted(market_id)} to assign: there are {known}"
        )
    return PhaseOfDraw(draw, phase)


def _advance_all(
    runtime: Runtime, draw: DrawRecord, phase: PhaseRecord, result: Committed | None, on_step: OnStep
) -> dict[str, Facts]:
    markets = [MarketPhase(draw.campaign_id, market_id, phase.phase) for market_id in phase.markets]
    return _advance(runtime, draw, markets, phase, result, on_step)


def _waits(entry: Mapping[str, Any]) -> bool:
    """Return whether a market has no plan yet."""
    return entry["status"] not in (MarketStatus.ASSIGNING, MarketStatus.COMPLETED)


def _register(runtime: Runtime, campaign_id: str, phase: PhaseRecord, result: Committed, token: int) -> None:
    """Register all markets at once, before the first chunk: the phase is complete when all of them are."""
    at, delay = runtime.clock(), runtime.settings.selection.notify_delay_seconds
    planned = {market: result.winners.get(market, 0) for market in _markets(phase)}
    waiting = MarketStatus.PENDING.value
    markets: dict[str, Facts] = {
        market: {"planned": number, "status": waiting} for market, number in planned.items()
    }
    types = {kind.value: number for kind, number in result.notices.items()}
    markets[NON_WINNERS] = {"planned": sum(types.values()), "types": types, "status": waiting}
    confirmed = seconds(phase.fields["confirmedAt"]) or at
    fields = {
        "markets": markets,
        "notBefore": iso(confirmed + delay),
        "releasedAt": iso(at),
        "status": PhaseStatus.PUBLISHED.value,
    }
    runtime.draws.decide(campaign_id, phase.phase, fields, token=token, once="markets")


def _markets(phase: PhaseRecord) -> Sequence[str]:
    return sorted(orjson.loads(phase.fields["summary"])["markets"])


def _advance(
    runtime: Runtime,
    draw: DrawRecord,
    markets: Sequence[MarketPhase],
    phase: PhaseRecord,
    result: Committed | None,
    on_step: OnStep = no_step,
) -> dict[str, Facts]:
    """Plan markets where needed, put the planned codes into the public log, then queue the open chunks."""
    facts: dict[str, Facts] = {}
    plans: dict[str, Plan] = {}
    for market in markets:
        entry = phase.markets[market.market_id]
        planned = int(entry["planned"])
        if entry["status"] == MarketStatus.COMPLETED:
            facts[market.market_id] = {"status": entry["status"], "planned": planned, "queued": 0}
        elif _waits(entry):
            if result is None:
                raise AssertionError("a market without a plan is planned from the result")
            missing = _missing_codes(runtime, draw, market, planned)
            if missing is not None:
                facts[market.market_id] = missing
                continue
            plans[market.market_id] = _plan(runtime, draw, market, planned, result)
            on_step("draw.after_plan")
    if plans.keys() - {NON_WINNERS}:
        log_codes(runtime, draw.campaign_id, phase, plans)
        on_step("draw.after_codes")
    for market in markets:
        if market.market_id not in facts:
            facts[market.market_id] = _queue(runtime, market, phase, plans.get(market.market_id))
    return facts


def _queue(runtime: Runtime, market: MarketPhase, phase: PhaseRecord, plan: Plan | None) -> Facts:
    """Make a new plan valid, and queue the market's open chunks."""
    planned = int(phase.markets[market.market_id]["planned"])
    size = runtime.settings.selection.chunk_winners
    chunks = _chunks(runtime, market, planned, size, phase.result_hash)
    if plan is not None:
        runtime.draw_markets.begin(
            market,
            planned=planned,
            chunks=len(chunks),
            plan=plan.as_fields(),
            codes_expire_at=_codes_expire_at(runtime, market, phase),
        )
    if not planned:
        at = iso(runtime.clock())
        runtime.draw_markets.complete(market, written=0, enqueued=0, at=at)
        return {"status": MarketStatus.COMPLETED.value, "planned": 0, "queued": 0}
    queued = send_open(runtime, market, chunks)
    return {"status": MarketStatus.ASSIGNING.value, "planned": planned, "queued": queued}


def _codes_expire_at(runtime: Runtime, market: MarketPhase, phase: PhaseRecord) -> str:
    """Return when codes that are planned now expire (ISO-8601), empty for never: a market that waited for codes has its
    whole time.
    """
    campaign = runtime.campaigns.get(market.campaign_id)
    if market.market_id == NON_WINNERS or campaign is None or campaign.codes.expire_after_hours is None:
        return ""
    notified = max(runtime.clock(), seconds(phase.fields["notBefore"]) or 0.0)
    return iso(notified + campaign.codes.expire_after_hours * 3600)


def _missing_codes(runtime: Runtime, draw: DrawRecord, market: MarketPhase, planned: int) -> Facts | None:
    """Block the market if it has too few codes; return None if it has enough."""
    if market.market_id == NON_WINNERS:
        return None
    # Only VOID codes are skipped: a code that was taken stops its chunk, so that an operator finds out why.
    behind = draw.highest_planned(market.market_id, before=market.phase)
    available = runtime.codes.count_behind(market.campaign_id, market.market_id, behind, planned)
    if available >= planned:
        return None
    runtime.draw_markets.block(market, needed=planned, available=available)
    return {
        "status": MarketStatus.BLOCKED.value,
        "planned": planned,
        "queued": 0,
        "needed": planned,
        "available": available,
    }


def _plan(runtime: Runtime, draw: DrawRecord, market: MarketPhase, planned: int, result: Committed) -> Plan:
    """Write a plan. It is valid once the record names it: if the run died before, nothing of it was given."""
    if market.market_id == NON_WINNERS:
        plan = write_others(runtime.objects, market, result)
    else:
        behind = draw.highest_planned(market.market_id, before=market.phase)
        codes = runtime.codes.behind(market.campaign_id, market.market_id, behind, planned)
        plan = write_seats(runtime.objects, market, result, codes, behind=behind)
    if plan.rows != planned:
        raise PermanentFailure(
            Reason.COUNT_MISMATCH,
            f"{market}: the record has {planned} rows to plan, the result has {plan.rows}",
        )
    return plan


def _chunks(runtime: Runtime, market: MarketPhase, planned: int, size: int, result_hash: str) -> list[Chunk]:
    """Write and return the market's chunks. If chunks of another size exist, that size is kept."""
    first = runtime.chunks.get([f"{market.prefix}1"])
    for row in first.values():
        size = int(row["last"])
    chunks = cut(market, planned, max(size, 1), result_hash)
    for start in range(0, len(chunks), 1000):
        runtime.chunks.plan(chunks[start : start + 1000])
    return chunks


def send_open(runtime: Runtime, market: MarketPhase, chunks: Sequence[Chunk]) -> int:
    """Send one message for each chunk that is not done. Raises TransientFailure unless all are confirmed."""
    if not chunks:
        return 0
    rows = {row["_id"] for row in runtime.chunks.open(market)}
    waiting = [chunk for chunk in chunks if chunk.id in rows]
    queue = runtime.queue(runtime.names.selection_queue)
    correlation_id = f"draw-{market.campaign_id}-{market.phase}"
    attributes = {"correlationId": correlation_id, "attempt": "1", **inject()}
    messages = [
        Outgoing(encode(MessageType.ASSIGN, correlation_id, [chunk.as_json()]), attributes)
        for chunk in waiting
    ]
    if failed := queue.send(messages):
        raise TransientFailure(
            QUEUE_SERVICE, f"{queue.name}: {len(failed)} of {len(messages)} chunks of {market} not confirmed"
        )
    runtime.chunks.queued(waiting, iso(runtime.clock()))
    return len(waiting)


def _all_done(runtime: Runtime, market: MarketPhase, phase: PhaseRecord) -> Facts:
    """Complete a market whose chunks are all done, or write again what is missing."""
    planned, written, enqueued = counts(runtime, market, phase)
    short = enqueued < planned or (market.market_id != NON_WINNERS and written < planned)
    if short:
        runtime.chunks.reopen(market)
        rows = runtime.chunks.open(market)
        queued = send_open(runtime, market, [Chunk.parse(row) for row in rows])
        return {"queued": queued, "written": written, "enqueued": enqueued}
    finish_market(runtime, market, phase)
    return {"status": MarketStatus.COMPLETED.value, "written": written, "enqueued": enqueued}


def _phase(runtime: Runtime, campaign_id: str, number: int | None) -> PhaseOfDraw:
    record = runtime.draws.get(campaign_id)
    if record is None or not record.phases or (number is not None and number not in record.phases):
        which = "draw" if number is None else f"phase {number} of the draw"
        raise RequestError(f"campaign {quoted(campaign_id)} has no {which}: `regworkers draw run`")
    record.require_counts()
    return PhaseOfDraw(record, record.latest if number is None else record.phases[number])


def _new_run_id() -> str:
    return f"assign-{uuid.uuid4().hex}"
