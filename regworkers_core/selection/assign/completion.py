"""Completes markets, phases and campaigns: planned = written = enqueued, counted in the store."""

from __future__ import annotations

from regworkers_core.adapters.mongo.draws import MarketStatus, PhaseRecord, PhaseStatus
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.reasons import ItemFailure, PermanentFailure, Reason, UsageError
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import lifecycle


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


def counts(runtime: Runtime, market: MarketPhase, phase: PhaseRecord) -> tuple[int, int, int]:
    """Return planned, written and enqueued. The market `-` has only messages, so written is 0."""
    planned = int(phase.markets[market.market_id]["planned"])
    written = 0 if market.market_id == NON_WINNERS else runtime.selections.count(market)
    return planned, written, runtime.outbox.count(market)


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
        lifecycle.advance(runtime, campaign_id, CampaignStatus.COMPLETED, reason=reason, run_id=run_id)
    except UsageError as error:
        # Only this campaign fails; others are assigned meanwhile.
        raise ItemFailure(str(error)) from None
