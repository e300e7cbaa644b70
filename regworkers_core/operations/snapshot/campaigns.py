"""Where each campaign stands, and what of its draw does not go on."""

from __future__ import annotations

from regworkers_core.adapters.draws import DrawRecord, MarketStatus, PhaseStatus, lease_name
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.snapshot import CampaignState
from regworkers_core.engine.leases import LeaseHolder, LeaseRow
from regworkers_core.runtime import Runtime

# A draw may be under way in these.
_DRAWING = (CampaignStatus.CLOSED, CampaignStatus.PROCESSING)


def read_campaigns(runtime: Runtime) -> tuple[CampaignState, ...]:
    """All of them, by id. Raises TransientFailure."""
    draws = {record.campaign_id: record for record in runtime.draws.all()}
    return tuple(
        campaign_state(campaign, draws.get(campaign.campaign_id), _lease(runtime, campaign))
        for campaign in runtime.campaigns.list()
    )


def campaign_state(
    campaign: Campaign, record: DrawRecord | None, lease: LeaseRow | None = None
) -> CampaignState:
    """Pure. Markets are open from a phase's publication until their last code is given and all is told."""
    open_markets, blocked = 0, []
    for phase in record.phases.values() if record else ():
        if not phase.reached(PhaseStatus.PUBLISHED):
            continue
        for market_id, market in phase.markets.items():
            open_markets += market.get("status") != MarketStatus.COMPLETED
            if market.get("status") == MarketStatus.BLOCKED:
                codes = f"{market.get('needed')} codes needed, {market.get('available')} there"
                blocked.append(f"market {market_id}: {codes}")
    return CampaignState(
        campaign.campaign_id,
        campaign.status.value,
        since=campaign.transitions[-1].at if campaign.transitions else None,
        closes_at=campaign.closes_at,
        lease_owner=lease.owner if lease else "",
        open_markets=open_markets,
        failed="; ".join(blocked),
        lease_beat=f"{lease.token}/{lease.counter}" if lease else "",
    )


def _lease(runtime: Runtime, campaign: Campaign) -> LeaseRow | None:
    if campaign.status not in _DRAWING:
        return None
    return runtime.leases.get(LeaseHolder.key_of(lease_name(campaign.campaign_id)))
