"""The markets of a draw: when one is complete, and with the last one its phase and campaign; which ones are stalled and
why, and what helps.

A market is complete once planned = written = enqueued, counted in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from regworkers_core.adapters.mongo.draws import (
    DrawRecord,
    MarketStatus,
    PhaseRecord,
    PhaseStatus,
    lease_name,
)
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.reasons import ItemFailure, PermanentFailure, Reason, UsageError
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import registry


def finish_market(runtime: Runtime, market: MarketPhase, phase: PhaseRecord) -> bool:
    """Complete a market whose chunks are all done. Returns False if it was complete before.

    Raises PermanentFailure COUNT_MISMATCH with the numbers if the store does not hold what was planned.
    """
    entry = phase.markets[market.market_id]
    if entry["status"] == MarketStatus.COMPLETED:
        return False
    planned, written, enqueued = counts(runtime, market, phase)
    if (written, enqueued) != (0 if market.market_id == NON_WINNERS else planned, planned):
        raise PermanentFailure(
            Reason.COUNT_MISMATCH,
            f"{market}: planned {planned}, written {written}, enqueued {enqueued}; if something is missing,"
            f" `regworkers invoke enqueueMarketSelections` writes it again",
        )
    return runtime.draw_markets.complete(market, written=written, enqueued=enqueued, at=iso(runtime.clock()))


class Counts(NamedTuple):
    planned: int
    written: int  # of the market `-` 0: it has only messages
    enqueued: int


def counts(runtime: Runtime, market: MarketPhase, phase: PhaseRecord) -> Counts:
    planned = int(phase.markets[market.market_id]["planned"])
    written = 0 if market.market_id == NON_WINNERS else runtime.selections.count(market)
    return Counts(planned, written, runtime.outbox.count(market))


def waits_to_finish(phase: PhaseRecord) -> bool:
    """Return whether all markets of a published phase are complete but the phase is not: the run that completed the
    last market ended before it completed the phase.
    """
    return phase.status is PhaseStatus.PUBLISHED and all(
        entry["status"] == MarketStatus.COMPLETED for entry in phase.markets.values()
    )


def finish_phase(runtime: Runtime, campaign_id: str, phase_number: int, *, run_id: str) -> bool:
    """Complete the phase, and with the first phase the campaign, once all its markets are complete.

    Returns whether the phase is complete. The campaign is completed first, so that a repeat finds what a crash left.
    """
    record = runtime.draws.get(campaign_id)
    phase = record.phases.get(phase_number) if record else None
    if phase is None or not phase.reached(PhaseStatus.PUBLISHED):
        return False
    if phase.reached(PhaseStatus.COMPLETED):
        return True
    if not waits_to_finish(phase):
        return False
    if phase_number == 1:
        _complete_campaign(runtime, campaign_id, run_id)
    runtime.draw_markets.complete_phase(campaign_id, phase_number, at=iso(runtime.clock()))
    return True


def _complete_campaign(runtime: Runtime, campaign_id: str, run_id: str) -> None:
    reason = "every winner has a code, every message is in the outbox"
    try:
        registry.advance(runtime, campaign_id, CampaignStatus.COMPLETED, reason=reason, run_id=run_id)
    except UsageError as error:
        # Only this campaign fails; others are assigned meanwhile.
        raise ItemFailure(str(error)) from None


def enough_codes(runtime: Runtime, draw: DrawRecord, market: MarketPhase) -> bool:
    """Return whether a waiting market has enough codes now."""
    needed = int(draw.phases[market.phase].markets[market.market_id]["planned"])
    behind = draw.highest_planned(market.market_id, before=market.phase)
    found = runtime.codes.count_behind(market.campaign_id, market.market_id, behind, needed)
    return found >= needed


class Stall(StrEnum):
    """Why a market does not continue by itself."""

    # It waited for codes, and there are enough now.
    CODES = "codes"
    # Chunks were queued long ago, or never, and are neither done nor dead letters.
    CHUNKS = "chunks"
    # All chunks are done but the market is not complete, or its phase is not complete although all markets are (then
    # this is one of them).
    COMPLETION = "completion"


@dataclass(frozen=True, slots=True)
class StalledMarket:
    """A market that does not continue by itself; `retry_market` helps in each case."""

    market: MarketPhase
    why: Stall


def stalled_markets(runtime: Runtime, *, older_than_seconds: float) -> list[StalledMarket]:
    """Return all stalled markets, by a few cheap reads for each market that is not complete."""
    before = iso(runtime.clock() - older_than_seconds)
    found = []
    for record in runtime.draws.all():
        if record.is_over:
            continue
        for number, phase in record.phases.items():
            if phase.status is not PhaseStatus.PUBLISHED or phase.fields.get("releasedAt", "") > before:
                continue
            if waits_to_finish(phase):
                completed = [str(entry.get("completedAt") or "") for entry in phase.markets.values()]
                if completed and max(completed) < before:
                    market = MarketPhase(record.campaign_id, next(iter(phase.markets)), number)
                    found.append(StalledMarket(market, Stall.COMPLETION))
                continue
            for market_id in phase.markets:
                market = MarketPhase(record.campaign_id, market_id, number)
                why = _why(runtime, record, market, before)
                if why is not None:
                    found.append(StalledMarket(market, why))
    return found


def _why(runtime: Runtime, record: DrawRecord, market: MarketPhase, before: str) -> Stall | None:
    status = record.phases[market.phase].markets[market.market_id]["status"]
    if status == MarketStatus.BLOCKED:
        return Stall.CODES if enough_codes(runtime, record, market) else None
    if status == MarketStatus.PENDING:
        return Stall.CHUNKS
    if status == MarketStatus.ASSIGNING:
        if runtime.chunks.last_open(market) is None:
            return Stall.COMPLETION if runtime.chunks.last_done_at(market) < before else None
        return Stall.CHUNKS if runtime.chunks.waits_since(market, before) else None
    return None


# A chunk without any work for this number of visibility timeouts was lost.
_LOST_VISIBILITIES = 3
# The next step of a draw, by the status of its phase.
_NEXT_STEP = {
    PhaseStatus.OPENED: "judge and freeze",
    PhaseStatus.FROZEN: "commit",
    PhaseStatus.COMMITTED: "seed",
    PhaseStatus.SEEDED: "rank",
    PhaseStatus.RANKED: "allocate",
    PhaseStatus.DRAWN: "report, confirm and publish",
    PhaseStatus.PUBLISHED: "assign codes",
}


@dataclass(frozen=True, slots=True)
class MarketState:
    """One market of one phase."""

    market: MarketPhase
    status: MarketStatus
    # Empty if it is complete or in progress.
    why: str = ""
    # Whether `retry_market` helps.
    retry: bool = False
    # The number of open chunks.
    chunks: int = 0
    # The number of chunks that became dead letters.
    failed: int = 0
    first_failed: int | None = None

    def as_row(self) -> dict[str, Any]:
        market = self.market
        return {
            "campaign": market.campaign_id,
            "phase": market.phase,
            "market": "others" if market.market_id == NON_WINNERS else market.market_id,
            "status": self.status,
            "why": self.why,
            "openChunks": self.chunks,
            "failedChunks": self.failed,
            "firstFailedChunk": self.first_failed,
            "retryHelps": self.retry,
        }


@dataclass(frozen=True, slots=True)
class DrawState:
    """The state of a draw."""

    campaign_id: str
    campaign_status: str
    # The next step of its open phase; empty if all are complete.
    step: str
    # The run that holds its lease.
    lease_owner: str
    lease_token: int
    # The run of the campaign's last transition.
    last_run: str
    last_change: str
    markets: tuple[MarketState, ...]

    def as_row(self) -> dict[str, Any]:
        return {
            "campaign": self.campaign_id,
            "status": self.campaign_status,
            "nextStep": self.step,
            "leaseOwner": self.lease_owner,
            "leaseToken": self.lease_token,
            "lastRun": self.last_run,
            "lastChange": self.last_change,
        }


def explain(runtime: Runtime, campaign: Campaign) -> DrawState:
    """Return the state of a campaign's draw. Raises TransientFailure."""
    campaign_id = campaign.campaign_id
    record = runtime.draws.get(campaign_id)
    row = runtime.leases.get(LeaseHolder.key_of(lease_name(campaign_id)))
    last = campaign.transitions[-1] if campaign.transitions else None
    lost_before = iso(runtime.clock() - _LOST_VISIBILITIES * runtime.settings.selection.visibility_seconds)
    return DrawState(
        campaign_id,
        campaign.status.value,
        _step(record),
        row.owner if row else "",
        row.token if row else 0,
        last.run_id if last else "",
        last.at if last else "",
        tuple(
            _state_of(runtime, record, MarketPhase(campaign_id, market_id, number), lost_before)
            for record in ([record] if record and not record.annulled else ())
            for number, phase in record.phases.items()
            for market_id in phase.markets
        ),
    )


def _step(record: DrawRecord | None) -> str:
    if record is None or not record.phases:
        return "draw"
    if record.annulled:
        return ""
    open_phases = [phase for phase in record.phases.values() if phase.status is not PhaseStatus.COMPLETED]
    if not open_phases:
        return ""
    due = open_phases[0].round_due
    waits = "" if due is None else f": round {open_phases[0].awaited_round} of the beacon, due {iso(due)}"
    return _NEXT_STEP[open_phases[0].status] + waits


def _state_of(runtime: Runtime, record: DrawRecord, market: MarketPhase, lost_before: str) -> MarketState:
    phase = record.phases[market.phase]
    entry = phase.markets[market.market_id]
    status = MarketStatus(entry["status"])
    if status is MarketStatus.COMPLETED:
        if phase.status is PhaseStatus.PUBLISHED and waits_to_finish(phase):
            return MarketState(market, status, "all markets are complete, the phase is not", True)
        return MarketState(market, status)
    if status is MarketStatus.BLOCKED:
        needed, available = entry.get("needed"), entry.get("available")
        if enough_codes(runtime, record, market):
            return MarketState(market, status, f"it waited for {needed} codes, which are available now", True)
        return MarketState(market, status, f"it needs {needed} codes and had {available}")
    if status is MarketStatus.PENDING:
        return MarketState(market, status, "its chunks were never planned", True)
    rows = runtime.chunks.open(market)
    failed = [row for row in rows if row.get("failedAt")]
    if failed:
        text = f"{len(failed)} chunks became dead letters, the first with: {failed[0].get('failure')}"
        return MarketState(market, status, text, True, len(rows), len(failed), failed[0].get("chunk"))
    if not rows:
        late = runtime.chunks.last_done_at(market) < lost_before
        return MarketState(
            market, status, "all chunks are done, the market is not complete" if late else "", late
        )
    lost = runtime.chunks.waits_since(market, lost_before)
    return MarketState(market, status, "chunks were lost in the queue" if lost else "", lost, len(rows))


def blocked_lines(
    campaign_id: str, markets: Mapping[str, Mapping[str, Any]], name_of: Callable[[str, str], str]
) -> list[str]:
    """Return one line, with the act that helps, for each of `markets` that waits for codes. `markets` is by id, as in a
    phase's record; `name_of` as a face has it.
    """
    return [
        f"market {market_id} waits for codes, {entry.get('needed')} needed and {entry.get('available')} available: "
        f"{name_of('codes import', f'<csv> --campaign {campaign_id} --market {market_id}')}"
        for market_id, entry in markets.items()
        if entry.get("status") == MarketStatus.BLOCKED
    ]
