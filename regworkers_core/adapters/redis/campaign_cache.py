"""Campaigns for those who ask often: from Redis, else from their source (cache-aside).

A fresh entry answers. A stale one answers too, says so (`fresh=False`), and is read anew in the background; while
the source is away it goes on answering until its `stale_seconds` are over. What is not there is read from the
source, by one of all who ask for it at once. Without Redis everybody asks the source; nothing is kept in the
process.

How old an answer can be:

- A change that our own code makes is seen by every read that begins after it: `forget` deletes the entry and
  replaces the token, so that neither a read in flight nor its late write brings the old state back.
- A change that passes by our code, or whose `forget` did not reach Redis, is seen once the TTL (10 % more at
  worst) has passed and somebody has asked: that one still gets the stale state, at most `stale_seconds` older, and
  is told. `regworkers campaign cache clear` ends it at once.
- With `campaignSource: service` an answer is in addition as old as the service's own.
"""

from __future__ import annotations

import structlog

from regworkers_core.adapters.redis.campaign_sources import CampaignSource
from regworkers_core.adapters.redis.campaign_store import CampaignStore, Held
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.eligibility import Fact, Known, Missing, Source
from regworkers_core.domain.reasons import DependencyDown, Failure, TransientFailure, UsageError
from regworkers_core.engine.deadline import NoAnswer, SingleFlight

log = structlog.get_logger(__name__)
# Reads of the source at once: a slow one must not be asked by everybody.
_THREADS = 8
# Slugs are words in an address. What is longer, and may come from anybody, is not worth a key.
_MAX_KEPT_CHARACTERS = 256


class CampaignCache:
    """Safe to share between threads. `store` None switches the cache off: every question goes to the source."""

    def __init__(self, source: CampaignSource, store: CampaignStore | None, *, wait_seconds: float) -> None:
        self._source = source
        self._store = store
        self._wait_seconds = wait_seconds
        self._flights: SingleFlight[Known[Campaign | None]] = SingleFlight("campaigns", threads=_THREADS)
        self._told: set[str] = set()

    @property
    def dependency(self) -> str:
        """Who is missing when there is no answer."""
        return self._source.dependency

    def find(self, slug_or_id: str) -> Fact[Campaign | None]:
        """By id, else by slug. The value is None when there is none; Missing names who should have told and did
        not within `wait_seconds`. Never raises for a dependency's failure.
        """
        if not _is_askable(slug_or_id):
            return Known(None, Source.REQUEST)
        held = self._look(slug_or_id)
        if held is not None and held.known:
            if not held.fresh:
                self._flights.start((slug_or_id, held.token), lambda: self._refresh(slug_or_id))
            return Known(held.campaign, Source.CACHE, held.fresh)
        # Who asks after a change does not join a read that began before it.
        key = (slug_or_id, held.token if held is not None else None)
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
        """Call it after every durable change of a campaign. Without Redis it is logged; then the entry lives out
        its time.
        """
        if self._store is None:
            return
        try:
            self._store.forget([campaign.campaign_id], [campaign.slug])
        except (TransientFailure, UsageError) as failure:
            log.warning(
                "campaign not forgotten by the cache", campaignId=campaign.campaign_id, error=str(failure)
            )

    def _refresh(self, slug_or_id: str) -> Known[Campaign | None]:
        """In the background, where nobody hears of a failure."""
        try:
            return self._fetch(slug_or_id, True)
        except DependencyDown:
            # Said when its breaker opened.
            raise
        except (Failure, UsageError) as failure:
            log.warning("stale campaign not refreshed", campaign=slug_or_id, error=str(failure))
            raise

    def _fetch(self, slug_or_id: str, with_store: bool) -> Known[Campaign | None]:
        """From the source and into the store; from the store where somebody else was faster."""
        held = self._look(slug_or_id) if with_store else None
        if held is not None and held.known and held.fresh:
            return Known(held.campaign, Source.CACHE)
        campaign = self._source.find(slug_or_id)
        if held is not None:
            self._keep(slug_or_id, campaign, held.token)
        return Known(campaign, self._source.kind)

    def _look(self, slug_or_id: str) -> Held | None:
        """None when the cache is off or away."""
        if self._store is None or len(slug_or_id) > _MAX_KEPT_CHARACTERS:
            return None
        try:
            return self._store.look(slug_or_id)
        except (TransientFailure, UsageError) as failure:
            self._tell(failure)
            return None

    def _keep(self, slug_or_id: str, campaign: Campaign | None, token: bytes) -> None:
        try:
            if self._store is not None:
                self._store.write(slug_or_id, campaign, token)
        except (TransientFailure, UsageError) as failure:
            self._tell(failure)

    def _tell(self, failure: TransientFailure | UsageError) -> None:
        """Not for every question: the breaker spaces out what is transient, a refused login is told once."""
        if isinstance(failure, DependencyDown) or str(failure) in self._told:
            return
        if isinstance(failure, UsageError):
            self._told.add(str(failure))
        log.warning("campaigns without their cache", error=str(failure))


def _is_askable(slug_or_id: str) -> bool:
    """Blank or not even Unicode, it is no campaign's."""
    try:
        slug_or_id.encode()
    except UnicodeEncodeError:
        return False
    return bool(slug_or_id.strip())
