"""Who knows a campaign best: MongoDB, or the Campaign Service where an environment says so."""

from __future__ import annotations

from typing import Protocol

from regworkers_core.adapters.http.ports import Services
from regworkers_core.adapters.mongo.campaigns import Campaigns
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.eligibility import Source
from regworkers_core.domain.keys import is_selection_id


class CampaignSource(Protocol):
    """`dependency` is who to name when there was no answer, `kind` what its answers are called."""

    @property
    def dependency(self) -> str: ...

    @property
    def kind(self) -> Source: ...

    def find(self, slug_or_id: str) -> Campaign | None:
        """By id, else by slug; None when there is none.

        Raises a Failure when the source cannot answer, UsageError for a campaign that breaks the contract.
        """
        ...


class DatabaseSource:
    """The `campaigns` collection."""

    dependency = "mongo"
    kind = Source.DATABASE

    def __init__(self, campaigns: Campaigns) -> None:
        self._campaigns = campaigns

    def find(self, slug_or_id: str) -> Campaign | None:
        return self._campaigns.find(slug_or_id)


class ServiceSource:
    """The Campaign Service. It knows ids only; MongoDB says which campaign a slug belongs to."""

    dependency = "service-campaign"
    kind = Source.SERVICE

    def __init__(self, services: Services, campaigns: Campaigns) -> None:
        self._services = services
        self._campaigns = campaigns

    def find(self, slug_or_id: str) -> Campaign | None:
        service = self._services.campaign
        if is_selection_id(slug_or_id):
            campaign = service.get(slug_or_id)
            if campaign is not None:
                return campaign
        known = self._campaigns.find(slug_or_id)
        if known is None or known.campaign_id == slug_or_id:
            return None
        return service.get(known.campaign_id)
