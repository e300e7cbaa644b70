"""Campaigns for those who ask often: from Redis, else from their source."""

from __future__ import annotations

from regworkers_core.adapters.campaign_sources import CampaignSource
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.eligibility import Fact, Known, Missing
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError


class CampaignCache:
    """Safe to share between threads."""

    def __init__(self, source: CampaignSource) -> None:
        self._source = source

    def find(self, slug_or_id: str) -> Fact[Campaign | None]:
        """The campaign, None when there is none, Missing when nobody could tell; never raises for that."""
        try:
            return Known(self._source.find(slug_or_id), self._source.kind)
        except TransientFailure as failure:
            return Missing(failure.dependency, failure.error)
        except (Failure, UsageError) as failure:
            return Missing(self._source.dependency, str(failure))
