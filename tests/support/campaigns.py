"""Campaigns as a manager would define them."""

from __future__ import annotations

from typing import Any

from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import registry
from regworkers_core.selection.campaigns.registry import advance


def definition(campaign_id: str = "summer", **changes: Any) -> dict[str, Any]:
    """A whole, valid definition with two markets; `field=None` leaves the field out."""
    fields: dict[str, Any] = {
        "campaignId": campaign_id,
        "name": "Summer – Été",
        "opensAt": "2026-01-01T00:00:00.000Z",
        "closesAt": "2099-01-01T00:00:00.000Z",
        "markets": [
            {"marketId": "berlin", "name": "Berlin", "capacity": 3},
            {"marketId": "paris", "name": "Paris", "capacity": 2},
        ],
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def create(runtime: Runtime, campaign_id: str = "summer", **changes: Any) -> Campaign:
    return registry.create(runtime, definition(campaign_id, **changes))


def advance_to(runtime: Runtime, campaign_id: str, status: CampaignStatus) -> None:
    """Through every status on the way."""
    while (now := runtime.campaigns.get(campaign_id)) is not None and now.status is not status:
        following = now.status.next
        assert following is not None, f"{campaign_id} is past {status}"
        advance(runtime, campaign_id, following, reason="test", run_id="test-run")
