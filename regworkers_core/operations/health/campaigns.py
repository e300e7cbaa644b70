"""The status of each campaign, and what its draw waits for."""

from __future__ import annotations

from regworkers_core.adapters.mongo.draws import (
    DrawRecord,
    MarketStatus,
    PhaseStatus,
    lease_name,
    works_on_draw,
)
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.snapshot import CampaignState
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import LeaseHolder, LeaseKey, LeaseRow
from regworkers_core.runtime import Runtime

# A draw may be under way in these.
_DRAWING = (CampaignStatus.CLOSED, CampaignStatus.PROCESSING)
_NO_KEY = LeaseKey("", "")


def read_campaigns(runtime: Runtime) -> tuple[CampaignState, ...]:
    """All of them, by id. Raises TransientFailure."""
    # An annulled draw does not continue, so it cannot be stuck.
    draws = {record.campaign_id: record for record in runtime.draws.all() if not record.annulled}
    campaigns = runtime.campaigns.list()
    keys = {
        campaign.campaign_id: LeaseHolder.key_of(lease_name(campaign.campaign_id))
        for campaign in campaigns
        if campaign.status in _DRAWING
    }
    leases = runtime.leases.several(list(keys.values()))
    failed = runtime.outbox.failed()
    held = {
        name
        for name, record in draws.items()
        if record.unconfirmed is not None and runtime.outbox.any_held(name)
    }
    return tuple(
        campaign_state(
            campaign,
            draws.get(campaign.campaign_id),
            leases.get(keys.get(campaign.campaign_id, _NO_KEY)),
            holds_messages=campaign.campaign_id in held,
            failed_messages=failed[campaign.campaign_id] if campaign.campaign_id in draws else 0,
        )
        for campaign in campaigns
    )


def campaign_state(
    campaign: Campaign,
    record: DrawRecord | None,
    lease: LeaseRow | None = None,
    *,
    holds_messages: bool = False,
    failed_messages: int = 0,
) -> CampaignState:
    """Pure. Markets are open from a phase's publication until their last code is assigned and every fan is notified."""
    if lease is not None and not works_on_draw(lease.owner):
        lease = None
    unconfirmed = record.unconfirmed if record and holds_messages else None
    open_markets, blocked, stopped = 0, [], ""
    for phase in record.phases.values() if record else ():
        if phase.stopped:
            stopped = str(phase.stopped.get("text") or phase.stopped["file"])
        if not phase.reached(PhaseStatus.PUBLISHED):
            continue
        for market_id, market in phase.markets.items():
            open_markets += market.get("status") != MarketStatus.COMPLETED
            if market.get("status") == MarketStatus.BLOCKED:
                codes = f"{market.get('needed')} codes needed, {market.get('available')} there"
                blocked.append(f"market {market_id}: {codes}")
    due = record.latest.round_due if record and record.phases else None
    return CampaignState(
        campaign.campaign_id,
        campaign.status.value,
        since=campaign.transitions[-1].at if campaign.transitions else None,
        closes_at=campaign.closes_at,
        lease_owner=lease.owner if lease else "",
        open_markets=open_markets,
        failed="; ".join(blocked),
        lease_beat=f"{lease.token}/{lease.counter}" if lease else "",
        round_due_at=None if due is None else iso(due),
        held_since=None if unconfirmed is None else unconfirmed.fields.get("drawnAt"),
        failed_messages=failed_messages,
        stopped=stopped,
    )
