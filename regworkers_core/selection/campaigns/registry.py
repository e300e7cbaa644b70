"""Creates campaigns, with the commitment to their draw."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.definition import draft
from regworkers_core.selection.campaigns.secrets import Entropy, make_secret


def create(
    runtime: Runtime, fields: Mapping[str, Any], *, entropy: Entropy = randomness.token_bytes
) -> Campaign:
    """Create a campaign in DRAFT from the fields of a definition, commitment included.

    The secret comes first, the campaign that names its hash second: killed between the two, a repeat finds
    the secret and uses it. Raises UsageError for wrong fields and for a taken id or slug.
    """
    campaign = draft(fields)
    taken = runtime.campaigns.get(campaign.campaign_id) or runtime.campaigns.find(campaign.slug)
    if taken is not None:
        raise UsageError(
            f"campaign {taken.campaign_id} has that id or slug already: "
            f"`regworkers campaign show {taken.campaign_id}`, or choose another"
        )
    commitment = make_secret(runtime, campaign.campaign_id, entropy=entropy)
    committed = replace(campaign.draw, commitment=commitment, committed_at=iso(runtime.clock()))
    campaign = replace(campaign, draw=committed)
    runtime.campaigns.create(campaign)
    # Somebody may have asked too early and been told that there is none.
    runtime.campaign_cache.forget(campaign)
    return campaign
