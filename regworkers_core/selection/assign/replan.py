"""Replaces planned codes that cannot be given: the winner gets the next position that was never planned in the market.

Such a code is void, or it was assigned or redeemed outside of this system; then it is made void first. The old position
is never used again, and the market's record keeps both (`replanned`), so that plan and replacement differ in the
record. Only a code that no winner has yet is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from fairdraw.documents import as_document
from regworkers_core.adapters.mongo.codes import Code, CodeStatus
from regworkers_core.adapters.mongo.draws import MarketStatus, PhaseRecord
from regworkers_core.domain.reasons import RequestError, TransientFailure
from regworkers_core.domain.selection import (
    NON_WINNERS,
    Chunk,
    MarketPhase,
    Planned,
    confirmation_word,
    require_word,
)
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.committed import committed
from regworkers_core.selection.assign.plan import Plan, Plans, log_codes, with_replanned
from regworkers_core.selection.assign.release import market_at_work, planning, retry_market

_GIVEN_OUTSIDE = "given outside of the draw: its winner has another code"
_BLOCKED = (
    "it has no plan yet, and a plan skips void codes: `regworkers codes import <csv> --campaign {market.campaign_id}"
    " --market {market.market_id}`, then it continues by itself"
)


@dataclass(frozen=True, slots=True)
class Move:
    """A row of the plan that moves to another position."""

    # Its number in the plan.
    row: int
    # The position that it has.
    before: int
    # The status of the code there.
    was: CodeStatus
    # Its new position; None: no code is left.
    after: int | None


@dataclass(frozen=True, slots=True)
class Replanned:
    """What `replan_codes` found."""

    market: MarketPhase
    # The rows that move.
    moves: tuple[Move, ...]
    # Whether they were moved.
    applied: bool
    # Chunks that were sent again.
    queued: int = 0

    @property
    def word(self) -> str:
        return confirmation_word(self.market.campaign_id, self.market.phase)

    @property
    def missing(self) -> int:
        """The number of winners for whom no code is left."""
        return sum(move.after is None for move in self.moves)

    def as_dict(self) -> dict[str, Any]:
        return self.market.as_fields() | as_document(self, "moves", "missing", "applied", "queued")


def replan_codes(
    runtime: Runtime,
    campaign_id: str,
    market_id: str,
    *,
    run_id: str,
    confirm: str = "",
    on_step: OnStep = no_step,
) -> Replanned:
    """Find the planned codes of a market that cannot be given. With `confirm` (`<campaignId>:<phase>`) void those that
    were given outside of this system, move the winners to the next positions and send the market's open chunks again. A
    repeat finds what is done, and sends what is open.

    Raises RequestError for another word, for a market that is not being assigned, and for a code that a winner of the
    campaign has; TransientFailure, also while another run works on the draw.
    """
    if market_id == NON_WINNERS:
        raise RequestError("the messages to those who did not win have no codes")
    if not confirm:
        return _find_moves(runtime, campaign_id, market_id).found
    with planning(runtime, campaign_id, run_id) as lease:
        found, given = _find_moves(runtime, campaign_id, market_id)
        require_word(confirm, found.word)
        if found.missing:
            return found
        if found.moves:
            _, phase = market_at_work(runtime, campaign_id, market_id)
            at = iso(runtime.clock())
            for code in given:
                if not runtime.codes.void_given(code, at=at, reason=_GIVEN_OUTSIDE, run_id=run_id):
                    raise TransientFailure(
                        "mongo", f"a code of {found.market} changed while it was replanned"
                    )
            on_step("draw.after_void")
            added = [
                {"row": move.row, "from": move.before, "to": move.after, "at": at, "runId": run_id}
                for move in found.moves
            ]
            log_codes(runtime, campaign_id, phase, {}, {market_id: added})
            whole = [*(phase.markets[market_id].get("replanned") or ()), *added]
            runtime.draws.decide(
                campaign_id, phase.phase, {f"markets.{market_id}.replanned": whole}, token=lease.token
            )
            on_step("draw.after_replan")
    facts = retry_market(runtime, campaign_id, market_id, run_id=run_id)
    return replace(found, applied=True, queued=int(facts.get("queued", 0)))


class _Moves(NamedTuple):
    found: Replanned
    given: list[Code]  # those among them that were given outside of this system


def _find_moves(runtime: Runtime, campaign_id: str, market_id: str) -> _Moves:
    """Return the moves that open chunks need."""
    draw, phase = market_at_work(runtime, campaign_id, market_id)
    entry = phase.markets[market_id]
    market = MarketPhase(campaign_id, market_id, phase.phase)
    if entry["status"] != MarketStatus.ASSIGNING:
        raise RequestError(
            f"{market} is {entry['status']}: only a market that is being assigned has codes to replan"
            + (f"; {_BLOCKED.format(market=market)}" if entry["status"] == MarketStatus.BLOCKED else "")
        )
    lost = list(_lost(runtime, market, entry))
    _require_no_winners(runtime, market, phase, [code for _, _, code in lost])
    highest = draw.highest_planned(market_id)
    free = list(runtime.codes.behind(campaign_id, market_id, highest, len(lost)))
    taken = runtime.codes.at(campaign_id, market_id, [each.position for each in free])
    for position, code in taken.items():
        if code.status != CodeStatus.AVAILABLE:
            raise RequestError(f"{market}: position {position} would be next, and its code is {code.status}")
    after: list[int | None] = [each.position for each in free]
    after += [None] * (len(lost) - len(after))
    moves = tuple(
        Move(row, planned.position, code.status, to)
        for (row, planned, code), to in zip(lost, after, strict=True)
    )
    given = [code for _, _, code in lost if code.status is not CodeStatus.VOID]
    return _Moves(Replanned(market, moves, applied=False), given)


def _lost(
    runtime: Runtime, market: MarketPhase, entry: Mapping[str, Any]
) -> Iterator[tuple[int, Planned, Code]]:
    """Yield row, plan and code of each winner in an open chunk whose code cannot be given."""
    plans, plan = Plans(runtime.objects), Plan.of(market, entry)
    for document in runtime.chunks.open(market):
        chunk = Chunk.parse(document)
        rows = with_replanned(
            runtime.codes, market, entry, chunk.first, plans.rows(plan, chunk.first, chunk.last)
        )
        stored = runtime.codes.get([each.code for each in rows])
        for row, planned in enumerate(rows, chunk.first):
            code = stored.get(planned.code)
            # A code that is missing, or in another market, must be restored by an operator.
            if code is None or (code.campaign_id, code.market_id) != (market.campaign_id, market.market_id):
                continue
            given = code.status in (CodeStatus.ASSIGNED, CodeStatus.REDEEMED) and code.ref != planned.ref
            if code.status is not CodeStatus.VOID and not given:
                continue
            if runtime.selections.codes([market.key(planned.ref)]):
                raise RequestError(
                    f"{market}: the winner of position {planned.position} has this code already, and it is"
                    f" {'given to another ref' if given else 'void'}: its issuer has to say which one counts"
                )
            yield row, planned, code


def _require_no_winners(
    runtime: Runtime, market: MarketPhase, phase: PhaseRecord, codes: Sequence[Code]
) -> None:
    """Raise RequestError for a code that names a winner: its issuer has to say which of two codes counts."""
    positions = {code.ref: code.position for code in codes if code.status is not CodeStatus.VOID and code.ref}
    if not positions:
        return
    with committed(runtime, market.campaign_id, market.phase, phase.fields) as result:
        winners = result.winners_among(list(positions))
    if winners:
        position = min(positions[ref] for ref in winners)
        raise RequestError(
            f"{market}: the code of position {position} is given to another winner of the campaign:"
            " its issuer has to say which one counts"
        )
