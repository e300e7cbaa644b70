"""Put a drawn phase to work: plan every market, queue its chunks; and take up again what stands still.

Everything can be repeated at any time: plans and chunks are written once, and only chunks that are not done
are sent again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from regworkers_core.adapters.mongo.draws import DrawRecord, MarketStatus, PhaseRecord, PhaseStatus
from regworkers_core.domain.messages import MessageType, encode
from regworkers_core.domain.reasons import RequestError, TransientFailure, UsageError
from regworkers_core.domain.selection import NON_WINNERS, Chunk, MarketPhase, cut
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.ports import Outgoing
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.observability.tracing import inject
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.committed import Committed, committed
from regworkers_core.selection.assign.completion import counts, finish_market, finish_phase
from regworkers_core.selection.assign.plan import PlanHead, plan_key, read_head, write_others, write_seats

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

    Returns by market what became of it: `status`, `planned`, and `needed` and `available` where codes are
    missing; such a market waits and the others go on. Raises UsageError when the phase is not drawn and
    confirmed, Fenced when another run took over, PermanentFailure when the result is not the committed one.
    """
    _, record = _phase(runtime, campaign_id, phase)
    if not record.reached(PhaseStatus.DRAWN) or "confirmedAt" not in record.fields:
        raise UsageError(
            f"phase {phase} of campaign {campaign_id} is not confirmed: nothing is given away yet"
        )
    if not record.markets or any(_waits(entry) for entry in record.markets.values()):
        with committed(runtime, campaign_id, phase, record.fields) as result:
            if not record.markets:
                _register(runtime, campaign_id, record, result, token)
                _, record = _phase(runtime, campaign_id, phase)
                on_step("draw.after_register")
            facts = _go_on_all(runtime, campaign_id, record, result)
    else:
        facts = _go_on_all(runtime, campaign_id, record, None)
    finish_phase(runtime, campaign_id, phase, run_id=run_id)
    return facts


def resume_blocked(runtime: Runtime, campaign_id: str, *, run_id: str = "") -> dict[str, Facts]:
    """Plan and queue the markets that waited for codes, where there are enough now. Nothing to do is fine."""
    record = runtime.draws.get(campaign_id)
    done: dict[str, Facts] = {}
    for number, phase in record.phases.items() if record else ():
        waiting = [
            MarketPhase(campaign_id, market_id, number)
            for market_id, entry in phase.markets.items()
            if entry["status"] == MarketStatus.BLOCKED
        ]
        ready = [market for market in waiting if enough_codes(runtime, market, phase)]
        if not ready:
            continue
        with committed(runtime, campaign_id, number, phase.fields) as result:
            done |= {market.market_id: _go_on(runtime, market, phase, result) for market in ready}
        finish_phase(runtime, campaign_id, number, run_id=run_id or _new_run_id())
    return done


def retry_market(runtime: Runtime, campaign_id: str, market_id: str, *, run_id: str = "") -> Facts:
    """Take up a market again: plan it if it waits, send its open chunks, complete it if all are done.

    Nothing is assigned or told twice by that. Raises UsageError when there is no such market to work on.
    """
    run_id = run_id or _new_run_id()
    draw, phase = _phase(runtime, campaign_id, None)
    # The oldest phase that is not complete: a later one waits for it.
    for candidate in draw.phases.values():
        if market_id in candidate.markets and not candidate.reached(PhaseStatus.COMPLETED):
            phase = candidate
            break
    if market_id not in phase.markets:
        known = ", ".join(phase.markets) or "none before the publication"
        raise RequestError(f"campaign {campaign_id} has no market {market_id} to assign: there are {known}")
    market = MarketPhase(campaign_id, market_id, phase.phase)
    with _result_if_needed(runtime, market, phase) as result:
        facts = _go_on(runtime, market, phase, result)
    if facts["status"] == MarketStatus.ASSIGNING and not facts["queued"]:
        facts |= _all_done(runtime, market, phase)
    completed = finish_phase(runtime, campaign_id, phase.phase, run_id=run_id)
    return {**market.as_fields(), **facts, "phaseCompleted": completed}


def enough_codes(runtime: Runtime, market: MarketPhase, phase: PhaseRecord) -> bool:
    """Whether a market that waits has its codes now."""
    needed = int(phase.markets[market.market_id]["planned"])
    behind = _last_position(runtime, market)
    found = runtime.code_claims.count_behind(market.campaign_id, market.market_id, behind, needed)
    return found >= needed


def _go_on_all(
    runtime: Runtime, campaign_id: str, phase: PhaseRecord, result: Committed | None
) -> dict[str, Facts]:
    return {
        market_id: _go_on(runtime, MarketPhase(campaign_id, market_id, phase.phase), phase, result)
        for market_id in phase.markets
    }


def _waits(entry: Mapping[str, Any]) -> bool:
    """Whether a market has no plan yet."""
    return entry["status"] not in (MarketStatus.ASSIGNING, MarketStatus.COMPLETED)


@contextmanager
def _result_if_needed(
    runtime: Runtime, market: MarketPhase, phase: PhaseRecord
) -> Iterator[Committed | None]:
    """The result is read only for a market that has no plan yet."""
    if not _waits(phase.markets[market.market_id]):
        yield None
        return
    with committed(runtime, market.campaign_id, market.phase, phase.fields) as result:
        yield result


def _register(runtime: Runtime, campaign_id: str, phase: PhaseRecord, result: Committed, token: int) -> None:
    """All markets at once, before the first chunk: a phase is complete when all of them are."""
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


def _go_on(runtime: Runtime, market: MarketPhase, phase: PhaseRecord, result: Committed | None) -> Facts:
    """Bring one market as far as its queued chunks."""
    entry = phase.markets[market.market_id]
    if entry["status"] == MarketStatus.COMPLETED:
        return {"status": entry["status"], "planned": entry["planned"], "queued": 0}
    if _waits(entry):
        if result is None:
            raise AssertionError("a market without a plan is planned from the result")
        blocked = _plan(runtime, market, int(entry["planned"]), result)
        if blocked is not None:
            return blocked
    planned = int(entry["planned"])
    size = runtime.settings.selection.chunk_winners
    chunks = _chunks(runtime, market, planned, size, phase.result_hash)
    runtime.draw_markets.begin(market, planned=planned, chunks=len(chunks))
    if not planned:
        at = iso(runtime.clock())
        runtime.draw_markets.complete(market, written=0, enqueued=0, at=at)
        return {"status": MarketStatus.COMPLETED.value, "planned": 0, "queued": 0}
    queued = send_open(runtime, market, chunks)
    return {"status": MarketStatus.ASSIGNING.value, "planned": planned, "queued": queued}


def _plan(runtime: Runtime, market: MarketPhase, planned: int, result: Committed) -> Facts | None:
    """Lay the plan down. What is missing, when there are too few codes for all of it."""
    objects = runtime.objects
    if objects.exists(plan_key(market)) and market.market_id != NON_WINNERS:
        # From a run that ended before the record knew: it stands, whatever became of the codes.
        head = read_head(objects, market)
    elif market.market_id == NON_WINNERS:
        head = write_others(objects, PlanHead(market, result.result_hash, planned, 0), result)
    else:
        behind = _last_position(runtime, market)
        # Only VOID codes are passed over: one that somebody took stops its chunk, so that it is looked into.
        codes = runtime.code_claims.behind(market.campaign_id, market.market_id, behind, planned)
        if len(codes) < planned:
            runtime.draw_markets.block(market, needed=planned, available=len(codes))
            return {
                "status": MarketStatus.BLOCKED.value,
                "planned": planned,
                "queued": 0,
                "needed": planned,
                "available": len(codes),
            }
        last = codes[-1].position if codes else behind
        head = PlanHead(market, result.result_hash, planned, last)
        head = write_seats(objects, head, result.new_winners(market.market_id), codes)
    head.check(market, result.result_hash, planned)
    return None


def _last_position(runtime: Runtime, market: MarketPhase) -> int:
    """The highest position that earlier phases planned: none is ever used again."""
    if market.phase == 1:
        return 0
    before = MarketPhase(market.campaign_id, market.market_id, market.phase - 1)
    return read_head(runtime.objects, before).last_position


def _chunks(runtime: Runtime, market: MarketPhase, planned: int, size: int, result_hash: str) -> list[Chunk]:
    """The market's chunks, their rows written. Where they were cut before by another size, that cut stands."""
    first = runtime.chunks.get([f"{market.prefix}1"])
    for row in first.values():
        size = int(row["last"])
    chunks = cut(market, planned, max(size, 1), result_hash)
    for start in range(0, len(chunks), 1000):
        runtime.chunks.plan(chunks[start : start + 1000])
    return chunks


def send_open(runtime: Runtime, market: MarketPhase, chunks: Sequence[Chunk]) -> int:
    """One message for each chunk that is not done. Raises TransientFailure unless all are confirmed."""
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
            "sqs", f"{queue.name}: {len(failed)} of {len(messages)} chunks of {market} not confirmed"
        )
    runtime.chunks.queued(waiting, iso(runtime.clock()))
    return len(waiting)


def _all_done(runtime: Runtime, market: MarketPhase, phase: PhaseRecord) -> Facts:
    """Every chunk is done and yet the market is not complete: complete it, or write again what is missing."""
    planned, written, enqueued = counts(runtime, market, phase)
    short = enqueued < planned or (market.market_id != NON_WINNERS and written < planned)
    if short:
        runtime.chunks.reopen(market)
        rows = runtime.chunks.open(market)
        queued = send_open(runtime, market, [Chunk.parse(row) for row in rows])
        return {"queued": queued, "written": written, "enqueued": enqueued}
    finish_market(runtime, market, phase)
    return {"status": MarketStatus.COMPLETED.value, "written": written, "enqueued": enqueued}


def _phase(runtime: Runtime, campaign_id: str, number: int | None) -> tuple[DrawRecord, PhaseRecord]:
    record = runtime.draws.get(campaign_id)
    if record is None or not record.phases or (number is not None and number not in record.phases):
        which = "draw" if number is None else f"phase {number} of the draw"
        raise RequestError(f"campaign {campaign_id} has no {which}: `regworkers draw run {campaign_id}`")
    return record, record.latest if number is None else record.phases[number]


def _new_run_id() -> str:
    return f"assign-{uuid.uuid4().hex}"
