"""A planned code that is void: its winner gets the next position that was never planned in the market.

The position before stays burnt, and the record of the market keeps both (`replanned`), so that the plan and what was
given in its place can be told apart for ever. Only a code of which nothing was given yet is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from regworkers_core.adapters.mongo.codes import CodeStatus
from regworkers_core.adapters.mongo.draws import MarketStatus
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import NON_WINNERS, Chunk, MarketPhase, Planned
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.plan import Plan, Plans, highest_planned, with_replanned
from regworkers_core.selection.assign.release import market_at_work, planning, retry_market


@dataclass(frozen=True, slots=True)
class Move:
    """Row `row` of the plan leaves position `before`, whose code is void, for `after`; None: no code is left."""

    row: int
    before: int
    after: int | None

    def as_dict(self) -> dict[str, Any]:
        return {"row": self.row, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True)
class Replanned:
    """What `replan_codes` found, and did if `applied`; `queued` chunks were sent again."""

    market: MarketPhase
    moves: tuple[Move, ...]
    applied: bool
    queued: int = 0

    @property
    def missing(self) -> int:
        """Winners for whom no code is left."""
        return sum(move.after is None for move in self.moves)

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.market.as_fields(),
            "moves": [move.as_dict() for move in self.moves],
            "missing": self.missing,
            "applied": self.applied,
            "queued": self.queued,
        }


def replan_codes(
    runtime: Runtime,
    campaign_id: str,
    market_id: str,
    *,
    run_id: str,
    apply: bool = False,
    on_step: OnStep = no_step,
) -> Replanned:
    """Find the planned codes of a market that are void, and if `apply` give their winners the next positions and send
    the market's open chunks again. A repeat finds what is done, and sends what is open.

    Raises RequestError for a market that has no plan at work, or whose winner of a void code has it already;
    TransientFailure, also while another run works on the draw.
    """
    if market_id == NON_WINNERS:
        raise RequestError("the messages to those who did not win have no codes")
    if not apply:
        return _look(runtime, campaign_id, market_id)
    with planning(runtime, campaign_id, run_id) as lease:
        found = _look(runtime, campaign_id, market_id)
        if found.missing:
            return found
        if found.moves:
            _, phase = market_at_work(runtime, campaign_id, market_id)
            at = iso(runtime.clock())
            added = [
                {"row": move.row, "from": move.before, "to": move.after, "at": at, "runId": run_id}
                for move in found.moves
            ]
            whole = [*(phase.markets[market_id].get("replanned") or ()), *added]
            runtime.draws.decide(
                campaign_id, phase.phase, {f"markets.{market_id}.replanned": whole}, token=lease.token
            )
            on_step("draw.after_replan")
    facts = retry_market(runtime, campaign_id, market_id, run_id=run_id)
    return replace(found, applied=True, queued=int(facts.get("queued", 0)))


def _look(runtime: Runtime, campaign_id: str, market_id: str) -> Replanned:
    """The moves that the void codes of open chunks need."""
    draw, phase = market_at_work(runtime, campaign_id, market_id)
    entry = phase.markets[market_id]
    market = MarketPhase(campaign_id, market_id, phase.phase)
    if entry["status"] != MarketStatus.ASSIGNING:
        raise RequestError(
            f"{market} is {entry['status']}: only a market that is being assigned has codes to replan"
        )
    void = list(_void(runtime, market, entry))
    highest = highest_planned(draw, market_id)
    free = list(runtime.code_claims.behind(campaign_id, market_id, highest, len(void)))
    taken = runtime.code_claims.at(campaign_id, market_id, [each.position for each in free])
    for position, code in taken.items():
        if code.status != CodeStatus.AVAILABLE:
            raise RequestError(f"{market}: position {position} would be next, and its code is {code.status}")
    after: list[int | None] = [each.position for each in free]
    after += [None] * (len(void) - len(after))
    moves = tuple(Move(row, planned.position, to) for (row, planned), to in zip(void, after, strict=True))
    return Replanned(market, moves, applied=False)


def _void(runtime: Runtime, market: MarketPhase, entry: Mapping[str, Any]) -> Iterator[tuple[int, Planned]]:
    """Row and plan of each winner whose code is void, of the chunks that are not done."""
    plans, plan = Plans(runtime.objects), Plan.of(market, entry)
    for document in runtime.chunks.open(market):
        chunk = Chunk.parse(document)
        rows = with_replanned(
            runtime.code_claims, market, entry, chunk.first, plans.rows(plan, chunk.first, chunk.last)
        )
        stored = runtime.codes.get([each.code for each in rows])
        for row, planned in enumerate(rows, chunk.first):
            code = stored.get(planned.code)
            if code is None or code.status is not CodeStatus.VOID:
                continue
            if runtime.selections.codes([market.key(planned.ref)]):
                raise RequestError(
                    f"{market}: the winner of position {planned.position} has this code already, and it is void:"
                    " its issuer has to say which one counts"
                )
            yield row, planned
