"""What Redis holds of one campaign, found by its id or its slug, whichever of its places still knows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from regworkers_core.adapters.redis.campaign_store import CampaignStore, StoredKey, as_cached, parse_cached
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.runtime import Runtime


class KeyState(StrEnum):
    FRESH = "fresh"
    STALE = "stale"
    ABSENT = "absent"
    # An entry that says that there is no such campaign.
    NONE = "says there is none"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class CachedKey:
    """One key. `content` is the campaign's document, or the id that a slug leads to; `left_seconds` None: no TTL."""

    key: str
    state: KeyState
    left_seconds: float | None = None
    content: dict[str, Any] | str | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "state": self.state.value,
            "leftSeconds": self.left_seconds,
            "content": self.content,
            "error": self.error,
        }


@dataclass(slots=True)
class CachedCampaign:
    """`keys` are those that stand, and the campaign's own two where they do not. `ids` and `slugs` are all names
    that led there.
    """

    ids: list[str]
    slugs: list[str]
    keys: list[CachedKey] = field(default_factory=list)
    campaign: Campaign | None = None

    @property
    def stands(self) -> bool:
        return any(each.state is not KeyState.ABSENT for each in self.keys)

    @property
    def says_none(self) -> bool:
        return self.campaign is None and any(each.state is KeyState.NONE for each in self.keys)

    @property
    def damaged(self) -> CachedKey | None:
        return next((each for each in self.keys if each.state is KeyState.DAMAGED), None)


def store_of(runtime: Runtime) -> CampaignStore:
    """Raises UsageError where there is no cache."""
    if runtime.campaign_store is None:
        raise UsageError(
            "campaigns are not cached here: cache.enabled is false, or Redis has no address "
            "(REGWORKERS_REDIS__URL); `regworkers config show`"
        )
    return runtime.campaign_store


def read_cached(runtime: Runtime, slug_or_id: str) -> CachedCampaign:
    """Follow ids to slugs and back. MongoDB helps with the names if it can.

    Raises TransientFailure when Redis does not answer, UsageError when campaigns are not cached.
    """
    store = store_of(runtime)
    stored = _named_by_the_database(runtime, slug_or_id)
    ids = [slug_or_id] if is_selection_id(slug_or_id) else []
    found = CachedCampaign(ids, [slug_or_id])
    if stored is not None:
        _add(found.ids, stored.campaign_id)
        _add(found.slugs, stored.slug)
    keys: dict[str, CachedKey] = {}
    # Both lists may grow while they are read.
    while len(keys) < len(found.ids) + len(found.slugs):
        for campaign_id in found.ids:
            each, cached = _campaign_key(campaign_id, store.stored(store.key(campaign_id)))
            keys[each.key] = each
            if cached is not None:
                found.campaign = found.campaign or cached
                _add(found.slugs, cached.slug)
        for slug in found.slugs:
            each = _slug_key(store.stored(store.slug_key(slug)))
            keys[each.key] = each
            if isinstance(each.content, str):
                _add(found.ids, each.content)
    campaign = stored or found.campaign
    own = {store.slug_key(slug_or_id), *map(store.key, ids)}
    if campaign is not None:
        own = {store.key(campaign.campaign_id), store.slug_key(campaign.slug)}
    found.keys = [each for each in keys.values() if each.state is not KeyState.ABSENT or each.key in own]
    return found


def clear_cached(runtime: Runtime, slug_or_id: str) -> CachedCampaign:
    """Delete the campaign's keys and return what they were. Raises as `read_cached` does."""
    found = read_cached(runtime, slug_or_id)
    store_of(runtime).forget(found.ids, found.slugs)
    return found


def _named_by_the_database(runtime: Runtime, slug_or_id: str) -> Campaign | None:
    try:
        return runtime.campaigns.find(slug_or_id)
    except (TransientFailure, UsageError):
        return None


def _campaign_key(campaign_id: str, stored: StoredKey) -> tuple[CachedKey, Campaign | None]:
    if stored.value is None:
        return CachedKey(stored.key, KeyState.ABSENT), None
    try:
        campaign = parse_cached(campaign_id, stored.value)
    except UsageError as error:
        return CachedKey(stored.key, KeyState.DAMAGED, stored.left_seconds, error=str(error)), None
    state = KeyState.FRESH if stored.fresh else KeyState.STALE
    # What is not a campaign's field is not shown: nobody knows what it is.
    return CachedKey(stored.key, state, stored.left_seconds, as_cached(campaign)), campaign


def _slug_key(stored: StoredKey) -> CachedKey:
    if stored.value is None:
        return CachedKey(stored.key, KeyState.ABSENT)
    if not stored.value:
        return CachedKey(stored.key, KeyState.NONE, stored.left_seconds)
    campaign_id = stored.value.decode(errors="replace")
    if not is_selection_id(campaign_id):
        error = "should be the id of a campaign"
        return CachedKey(stored.key, KeyState.DAMAGED, stored.left_seconds, error=error)
    state = KeyState.FRESH if stored.fresh else KeyState.STALE
    return CachedKey(stored.key, state, stored.left_seconds, campaign_id)


def _add(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)
