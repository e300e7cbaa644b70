"""A campaign id that somebody typed: a wrong one must not look like a campaign that is in order."""

from __future__ import annotations

from regworkers_core.domain.grammar import shown
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime


def require_campaign(runtime: Runtime, campaign_id: str | None) -> None:
    """Raises UsageError for a campaign that nobody knows: no entry on either side, and no campaign either.
    Replication needs no campaign, so entries are enough. TransientFailure when that cannot be told.
    """
    if campaign_id is None:
        return
    if not EntryKey(campaign_id, "").can_be_in_table:
        raise UsageError(
            f"no campaign has the id {shown(campaign_id)}: campaignId has up to 64 bytes of UTF-8"
        )
    # The table first: for a campaign with entries nothing else has to answer.
    if runtime.demand_table.query(campaign_id, limit=1).items:
        return
    if runtime.campaigns.known({campaign_id}) or runtime.replica.has_campaign(campaign_id):
        return
    raise UsageError(
        f"no campaign has the id {campaign_id!r}, and no entry belongs to one: give its campaignId, not its slug"
        " or name"
    )
