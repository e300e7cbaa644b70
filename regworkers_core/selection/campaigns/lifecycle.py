"""The status of a campaign: DRAFT, OPEN, CLOSED, PROCESSING, COMPLETED; forward only, one step at a time, each once.

A step is made under the lease `campaign-<id>` and its fencing token: a run that lost the lease cannot change the
status. Another lease is that of the campaign's draw: who draws, plans, voids codes or sends messages holds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fairdraw.documents import as_document
from regworkers_core.adapters.mongo.draws import Fenced, lease_name
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.selection import DrawBusy
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import Lease, LeaseBusy, held_lease
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime

# The tokens of a recreated lease table start from 1 again; each try increments them.
_MAX_TRIES = 200


@dataclass(frozen=True, slots=True)
class Advanced:
    """The result of `advance`."""

    campaign_id: str
    status: CampaignStatus
    # False when the campaign had the status already; then the fields below are those of the earlier step, empty when
    # the campaign was created with its status.
    changed: bool
    # When it got the status.
    at: str
    reason: str
    run_id: str

    def as_dict(self) -> dict[str, Any]:
        return {name: None if value == "" else value for name, value in as_document(self).items()}


def advance(
    runtime: Runtime,
    campaign_id: str,
    to: CampaignStatus,
    *,
    reason: str,
    run_id: str,
    on_step: OnStep = no_step,
) -> Advanced:
    """Move the campaign to the next status `to`. Of several concurrent or repeated calls, one makes the step.

    Raises UsageError for a step backwards or over another one and for an unknown campaign, TransientFailure while
    another run holds the lease.
    """
    for _ in range(_MAX_TRIES):
        campaign = runtime.campaigns.require_id(campaign_id)
        if not _allowed(campaign, to):
            return _unchanged(runtime, campaign)
        try:
            with held_lease(
                runtime.leases,
                f"campaign-{campaign_id}",
                run_id,
                lease_seconds=runtime.settings.selection.lease_seconds,
            ) as lease:
                on_step("campaigns.after_lease")
                # The previous holder of the lease may have made this step.
                campaign = runtime.campaigns.require_id(campaign_id)
                if not _allowed(campaign, to):
                    return _unchanged(runtime, campaign)
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
    """Close the campaign if it is OPEN with `autoDraw` and its `closesAt` has passed. Returns whether this call did.
    Raises as `advance`.
    """
    campaign = runtime.campaigns.require_id(campaign_id)
    over = campaign.auto_draw and campaign.closes_at <= iso(runtime.clock())
    if campaign.status is not CampaignStatus.OPEN or not over:
        return False
    return advance(
        runtime, campaign_id, CampaignStatus.CLOSED, reason="closesAt passed", run_id=run_id
    ).changed


def _allowed(campaign: Campaign, to: CampaignStatus) -> bool:
    """Whether `to` is the next status; False when it is the current one. Raises UsageError for any other."""
    if campaign.status is to:
        return False
    following = campaign.status.next
    if following is to:
        return True
    rule = f"only {following} can follow" if following else "nothing follows"
    raise UsageError(f"campaign {campaign.campaign_id} is {campaign.status} and cannot become {to}: {rule}")


def _unchanged(runtime: Runtime, campaign: Campaign) -> Advanced:
    # The run that made the step may have died before it updated the cache.
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


@contextmanager
def draw_lease(runtime: Runtime, campaign_id: str, run_id: str) -> Iterator[Lease]:
    """Hold the lease of a campaign's draw. Raises DrawBusy while another run holds it and when one took it over,
    UsageError when the lease table is behind the draw, TransientFailure.
    """
    try:
        with held_lease(
            runtime.leases,
            lease_name(campaign_id),
            run_id,
            lease_seconds=runtime.settings.selection.lease_seconds,
        ) as lease:
            try:
                yield lease
            except Fenced:
                busy = DrawBusy(campaign_id)
                raise table_behind(runtime, campaign_id, lease) or busy from None
    except LeaseBusy:
        raise DrawBusy(campaign_id) from None


def table_behind(runtime: Runtime, campaign_id: str, lease: Lease) -> UsageError | None:
    """Return the error for a run that was fenced although it still holds its lease: the lease table was recreated, or
    restored from an old copy, and its tokens are lower than the draw's. None when another run took over. Raises
    TransientFailure.
    """
    if not lease.renew():
        return None
    record = runtime.draws.get(campaign_id)
    seen = "another" if record is None else str(record.token)
    return UsageError(
        f"the draw of {campaign_id} was written under token {seen}, and `{runtime.names.lease_table}` is only at"
        f" {lease.token}: was another table restored? Wait for the right one, or set `token` of the draw's document"
        " to 0"
    )
