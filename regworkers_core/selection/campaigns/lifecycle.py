"""The status of a campaign moves forward only, one step at a time, and each step is made once.

DRAFT, OPEN, CLOSED, PROCESSING, COMPLETED. A step is made under the lease `campaign-<id>`, whose token fences:
a run that lost the lease and wakes up later cannot move anything any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import LeaseBusy, held_lease
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime

# A lease table that was made anew counts its tokens from 1 again; each try raises them by one.
_MAX_TRIES = 200


@dataclass(frozen=True, slots=True)
class Advanced:
    """`changed` is False when the status stood already; then `at`, `reason` and `run_id` are those of the step
    that was made before (empty when the campaign came with its status).
    """

    campaign_id: str
    status: CampaignStatus
    changed: bool
    at: str
    reason: str
    run_id: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "campaignId": self.campaign_id,
            "status": self.status.value,
            "changed": self.changed,
            "at": self.at or None,
            "reason": self.reason or None,
            "runId": self.run_id or None,
        }


def advance(
    runtime: Runtime,
    campaign_id: str,
    to: CampaignStatus,
    *,
    reason: str,
    run_id: str,
    on_step: OnStep = no_step,
    sleep: Callable[[float], object] = time.sleep,
) -> Advanced:
    """Move the campaign on to `to`; a repeat finds it done and says so.

    Of several at once one makes the step, the others find it made. Raises UsageError for a step backwards or
    over another one and for an unknown campaign, TransientFailure while another run keeps the lease.
    """
    for _ in range(_MAX_TRIES):
        campaign = runtime.campaigns.require_id(campaign_id)
        if not _allowed(campaign, to):
            return _stood(runtime, campaign)
        try:
            with held_lease(
                runtime.leases,
                f"campaign-{campaign_id}",
                run_id,
                lease_seconds=runtime.settings.selection.lease_seconds,
                sleep=sleep,
            ) as lease:
                on_step("campaigns.after_lease")
                # Whoever held the lease before may have made this very step.
                campaign = runtime.campaigns.require_id(campaign_id)
                if not _allowed(campaign, to):
                    return _stood(runtime, campaign)
                at = iso(runtime.clock())
                if runtime.campaigns.advance(
                    campaign_id, campaign.status, to, token=lease.token, at=at, reason=reason, run_id=run_id
                ):
                    runtime.campaign_cache.forget(campaign)
                    return Advanced(campaign_id, to, True, at, reason, run_id)
        except LeaseBusy as busy:
            raise TransientFailure("leases", str(busy)) from None
    raise UsageError(
        f"campaign {campaign_id} was moved under token {campaign.fence}, and `{runtime.names.lease_table}` is "
        "far behind: was another table restored? Wait for the right one, or clear the campaign's `fence`"
    )


def close_if_due(runtime: Runtime, campaign_id: str, *, run_id: str) -> bool:
    """Close the campaign if it is OPEN with `autoDraw` and its `closesAt` has passed; whether this call did.

    Raises what `advance` raises.
    """
    campaign = runtime.campaigns.require_id(campaign_id)
    over = campaign.auto_draw and campaign.closes_at <= iso(runtime.clock())
    if campaign.status is not CampaignStatus.OPEN or not over:
        return False
    return advance(
        runtime, campaign_id, CampaignStatus.CLOSED, reason="closesAt passed", run_id=run_id
    ).changed


def _allowed(campaign: Campaign, to: CampaignStatus) -> bool:
    """True when `to` is the next step, False when it stands. Raises UsageError for any other."""
    if campaign.status is to:
        return False
    following = campaign.status.next
    if following is to:
        return True
    rule = f"only {following} can follow" if following else "nothing follows"
    raise UsageError(f"campaign {campaign.campaign_id} is {campaign.status} and cannot become {to}: {rule}")


def _stood(runtime: Runtime, campaign: Campaign) -> Advanced:
    # Whoever made the step may have died before the cache heard of it.
    runtime.campaign_cache.forget(campaign)
    last = campaign.transitions[-1] if campaign.transitions else None
    return Advanced(
        campaign.campaign_id,
        campaign.status,
        False,
        last.at if last else "",
        last.reason if last else "",
        last.run_id if last else "",
    )
