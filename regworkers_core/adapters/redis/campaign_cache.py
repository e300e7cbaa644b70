"""Campaigns from Redis, or from their source: MongoDB, or the Campaign Service where the settings say so (cache-aside).

A fresh entry is returned. A stale one is returned too, marked (`fresh=False`), and refreshed in the background; while
the source is unavailable it is served until its `stale_seconds` have passed. A missing entry is read from the source,
once for all concurrent callers. Without Redis every caller reads the source; the process itself caches nothing.

How old an answer can be:

- A change by our own code is visible to every read that begins after it: `forget` ends the entry and leaves a mark, so
  that neither a read in flight nor its late write restores the old state.
- A change by others, or one whose `forget` did not reach Redis, is visible after the TTL (at most 10 % more) and one
  read, which still gets the stale state, at most `stale_seconds` older, and marked. `regworkers campaign cache clear`
  ends it at once.
- With `campaignSource: service` an answer is also as old as the service's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

from regworkers_core.adapters.mongo.campaigns import Campaigns
from regworkers_core.adapters.redis.campaign_store import CampaignStore, Held
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.eligibility import Fact, FactSource, Known, Missing
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import DependencyDown, Failure, TransientFailure, UsageError
from regworkers_core.engine.deadline import NoAnswer, SingleFlight
from regworkers_core.observability.metrics import CACHE_FALLBACKS, Metering, export

if TYPE_CHECKING:
    from regworkers_core.adapters.http.services import HttpServices


class CampaignSource(Protocol):
    """Where campaigns come from. `dependency` is named when it does not answer, `kind` is recorded with its answers."""

    @property
    def dependency(self) -> str: ...

    @property
    def kind(self) -> FactSource: ...

    def find(self, slug_or_id: str) -> Campaign | None:
        """Find by id, else by slug; None if there is no such campaign.

        Raises a Failure when the source cannot answer, UsageError for a campaign that breaks the contract.
        """
        ...


class DatabaseSource:
    """The `campaigns` collection."""

    dependency = "mongo"
    kind = FactSource.DATABASE

    def __init__(self, campaigns: Campaigns) -> None:
        self._campaigns = campaigns

    def find(self, slug_or_id: str) -> Campaign | None:
        return self._campaigns.find(slug_or_id)


class ServiceSource:
    """The Campaign Service. It knows only ids; MongoDB maps slugs to them."""

    dependency = "service-campaign"
    kind = FactSource.SERVICE

    def __init__(self, services: HttpServices, campaigns: Campaigns) -> None:
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


log = structlog.get_logger(__name__)
# Simultaneous reads of the source, to protect a slow one.
_THREADS = 8
# Slugs are short. Longer text, which any caller may send, is not worth a key.
_MAX_KEPT_CHARACTERS = 256


class CampaignCache:
    """The campaigns of a process. Safe to share between threads. Without a `store` every read goes to the source."""

    def __init__(self, source: CampaignSource, store: CampaignStore | None, *, wait_seconds: float) -> None:
        self._source = source
        self._store = store
        self._wait_seconds = wait_seconds
        self._flights: SingleFlight[Known[Campaign | None]] = SingleFlight("campaigns", threads=_THREADS)
        self._logged: set[str] = set()
        # Reads and writes that Redis did not serve.
        self.fallbacks = 0

    @property
    def dependency(self) -> str:
        """The dependency to name when there is no answer."""
        return self._source.dependency

    def find(self, slug_or_id: str) -> Fact[Campaign | None]:
        """Find by id, else by slug. The value is None if there is no such campaign; Missing names the dependency that
        did not answer within `wait_seconds`. Never raises for a dependency's failure.
        """
        if not _is_askable(slug_or_id):
            return Known(None, FactSource.REQUEST)
        held = self._read(slug_or_id)
        if held is not None and held.known:
            if not held.fresh:
                self._flights.start((slug_or_id, held.state), lambda: self._refresh(slug_or_id))
            return Known(held.campaign, FactSource.CACHE, held.fresh)
        # A caller after a change must not join a read that began before it.
        key = (slug_or_id, held.state if held is not None else None)
        try:
            return self._flights.ask(
                key, lambda: self._fetch(slug_or_id, held is not None), wait_seconds=self._wait_seconds
            )
        except TransientFailure as failure:
            return Missing(failure.dependency, failure.error)
        except NoAnswer:
            return Missing(self._source.dependency, f"no answer within {self._wait_seconds:g} s")
        except (Failure, UsageError) as failure:
            return Missing(self._source.dependency, str(failure))

    def forget(self, campaign: Campaign) -> None:
        """Invalidate a campaign: call this after every durable change. If Redis does not answer, that is logged and the
        entry expires by its TTL.
        """
        if self._store is None:
            return
        try:
            self._store.forget([campaign.campaign_id], [campaign.slug])
        except (TransientFailure, UsageError) as failure:
            log.warning("cache invalidation failed", campaignId=campaign.campaign_id, error=str(failure))

    def _refresh(self, slug_or_id: str) -> Known[Campaign | None]:
        """Refresh in the background. Failures are logged, because no caller gets them."""
        try:
            return self._fetch(slug_or_id, True)
        except DependencyDown:
            # Logged when its breaker opened.
            raise
        except (Failure, UsageError) as failure:
            log.warning("stale campaign not refreshed", campaign=slug_or_id, error=str(failure))
            raise

    def _fetch(self, slug_or_id: str, with_store: bool) -> Known[Campaign | None]:
        """Read the source and store the answer; use the store if another process was faster."""
        held = self._read(slug_or_id) if with_store else None
        if held is not None and held.known and held.fresh:
            return Known(held.campaign, FactSource.CACHE)
        campaign = self._source.find(slug_or_id)
        if held is not None:
            self._keep(slug_or_id, campaign, held)
        return Known(campaign, self._source.kind)

    def _read(self, slug_or_id: str) -> Held | None:
        """None if the cache is disabled or unavailable."""
        if self._store is None or len(slug_or_id) > _MAX_KEPT_CHARACTERS:
            return None
        try:
            return self._store.look(slug_or_id)
        except (TransientFailure, UsageError) as failure:
            self._log(failure)
            return None

    def _keep(self, slug_or_id: str, campaign: Campaign | None, held: Held) -> None:
        try:
            if self._store is not None:
                self._store.write(slug_or_id, campaign, held)
        except (TransientFailure, UsageError) as failure:
            self._log(failure)

    def _log(self, failure: TransientFailure | UsageError) -> None:
        """Count, and log rarely: the breaker spaces transient failures, and a refused login is logged once."""
        self.fallbacks += 1
        export(Metering(CACHE_FALLBACKS, 1))
        if isinstance(failure, DependencyDown) or str(failure) in self._logged:
            return
        if isinstance(failure, UsageError):
            self._logged.add(str(failure))
        log.warning("cache unavailable, reading from source", error=str(failure), fallbacks=self.fallbacks)


def _is_askable(slug_or_id: str) -> bool:
    """Blank text and invalid Unicode name no campaign."""
    try:
        slug_or_id.encode()
    except UnicodeEncodeError:
        return False
    return bool(slug_or_id.strip())
