"""Campaign configuration: compare Redis, MongoDB and the Campaign Service; clear what Redis has wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from fairdraw.documents import as_document
from regworkers_core.adapters.campaign_store import CampaignStore, StoredKey, as_cached, parse_cached
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.keys import is_selection_id, quoted
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.operation import Remark, Report
from regworkers_core.operations.dependency_status import command_in
from regworkers_core.operations.runbook import Row, runbook_report
from regworkers_core.runtime import Runtime

EXISTS = "exists"
REDIS, MONGO, SERVICE = "redis", "mongo", "service"


class KeyState(StrEnum):
    """NONE: the key says that there is no such campaign."""

    FRESH = "fresh"
    STALE = "stale"
    ABSENT = "absent"
    NONE = "says there is none"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class CachedKey:
    """A key of the cache."""

    # The key itself.
    key: str
    state: KeyState
    # None: no TTL.
    left_seconds: float | None = None
    # The campaign's document, or the id that a slug leads to.
    content: dict[str, Any] | str | None = None
    # Why it cannot be read.
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return as_document(self)


@dataclass(slots=True)
class CachedCampaign:
    """All that the cache has of a campaign."""

    # All ids that led to the keys.
    ids: list[str]
    # All slugs that led to the keys.
    slugs: list[str]
    # Those that exist, and the campaign's own two in any case.
    keys: list[CachedKey] = field(default_factory=list)
    campaign: Campaign | None = None

    @property
    def exists(self) -> bool:
        return any(each.state is not KeyState.ABSENT for each in self.keys)

    @property
    def says_none(self) -> bool:
        return self.campaign is None and any(each.state is KeyState.NONE for each in self.keys)

    @property
    def damaged(self) -> CachedKey | None:
        return next((each for each in self.keys if each.state is KeyState.DAMAGED), None)


def read_cached(runtime: Runtime, slug_or_id: str) -> CachedCampaign:
    """Follow ids to slugs and back, with the names in MongoDB if it answers.

    Raises TransientFailure when Redis does not answer, UsageError when campaigns are not cached.
    """
    store = cache_store(runtime)
    try:
        stored = runtime.campaigns.find(slug_or_id)
    except (TransientFailure, UsageError):
        stored = None
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
    cache_store(runtime).forget(found.ids, found.slugs)
    return found


def cache_store(runtime: Runtime) -> CampaignStore:
    """Raises UsageError when campaigns are not cached."""
    if runtime.campaign_store is None:
        raise UsageError(
            "campaigns are not cached here: cache.enabled is false, or Redis has no address "
            "(REGWORKERS_REDIS__URL); `regworkers config show`"
        )
    return runtime.campaign_store


class _CampaignKey(NamedTuple):
    key: CachedKey
    campaign: Campaign | None = None


def _campaign_key(campaign_id: str, stored: StoredKey) -> _CampaignKey:
    if stored.value is None:
        return _CampaignKey(CachedKey(stored.key, KeyState.ABSENT))
    try:
        campaign = parse_cached(campaign_id, stored.value)
    except UsageError as error:
        return _CampaignKey(CachedKey(stored.key, KeyState.DAMAGED, stored.left_seconds, error=str(error)))
    state = KeyState.FRESH if stored.fresh else KeyState.STALE
    # Shows only the fields of a campaign: others may hold anything.
    return _CampaignKey(CachedKey(stored.key, state, stored.left_seconds, as_cached(campaign)), campaign)


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


class SideState(StrEnum):
    """EMPTY is Redis without a copy, which is no difference."""

    FOUND = "found"
    ABSENT = "absent"
    EMPTY = "empty"
    UNUSABLE = "unusable"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Side:
    """What one of the stores says. `fields` has one line for everything that can differ."""

    state: SideState
    campaign: Campaign | None = None
    error: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        if self.campaign is not None:
            return {EXISTS: "yes", **_fields(self.campaign)}
        return {EXISTS: "no"} if self.state is SideState.ABSENT else {}


@dataclass(frozen=True, slots=True)
class CopyComparison:
    """`sides` in the order in which they are read, without those that are not configured."""

    asked: str
    sides: dict[str, Side]
    source: str

    @property
    def lines(self) -> list[tuple[str, dict[str, Any], bool]]:
        """Field, its value on every side that has one, and whether the values differ."""
        known = {name: side.fields for name, side in self.sides.items() if side.fields}
        names = dict.fromkeys(name for fields in known.values() for name in fields)
        found = []
        for name in names:
            # A side without the campaign differs in the first line only.
            values = {
                side: fields.get(name) for side, fields in known.items() if name == EXISTS or len(fields) > 1
            }
            first = next(iter(values.values()))
            found.append((name, values, any(value != first for value in values.values())))
        return found

    @property
    def fine(self) -> bool:
        troubled = {SideState.UNREACHABLE, SideState.UNUSABLE}
        return not any(differs for _, _, differs in self.lines) and not any(
            side.state in troubled for side in self.sides.values()
        )

    @property
    def advice(self) -> str | None:
        cached, source = self.sides.get(REDIS), self.sides.get(self.source)
        if cached is None or source is None or self.fine:
            return None
        disagrees = source.fields and cached.fields and cached.fields != source.fields
        if disagrees or cached.state is SideState.UNUSABLE:
            return f"regworkers campaign cache clear {self.asked}: the next check reads {self.source}"
        return None

    def as_dict(self) -> dict[str, Any]:
        return {
            "asked": self.asked,
            "same": self.fine,
            "source": self.source,
            "sides": {
                name: as_document(side, "state", "error")
                | {"campaign": _document(side.campaign) if side.campaign else None}
                for name, side in self.sides.items()
            },
            "differences": [{"field": name, **values} for name, values, differs in self.lines if differs],
            "advice": self.advice,
        }


def compare_campaign(runtime: Runtime, slug_or_id: str) -> CopyComparison:
    """Read all sides; one that does not answer is named, and the others are compared.

    Raises UsageError when all sides answer and none has the campaign.
    """
    cached: CachedCampaign | None = None
    sides: dict[str, Side] = {}
    if runtime.campaign_store is not None:

        def redis_side() -> Side:
            nonlocal cached
            try:
                cached = read_cached(runtime, slug_or_id)
            except UsageError as error:
                # A refused login, or another environment's Redis: nothing that clearing would cure.
                return Side(SideState.UNREACHABLE, error=str(error))
            if (damaged := cached.damaged) is not None:
                return Side(SideState.UNUSABLE, cached.campaign, f"{damaged.key}: {damaged.error}")
            if cached.campaign is not None:
                return Side(SideState.FOUND, cached.campaign)
            return Side(SideState.ABSENT if cached.says_none else SideState.EMPTY)

        sides[REDIS] = _side(redis_side)
    ids = [slug_or_id, *(each for each in (cached.ids if cached else []) if each != slug_or_id)]
    sides[MONGO] = _side(lambda: _first(runtime.campaigns.find, ids))
    stored = sides[MONGO].campaign
    if stored is not None and stored.campaign_id not in ids:
        ids.insert(0, stored.campaign_id)
    if runtime.settings.services.campaign.base_url:
        by_id = [each for each in ids if is_selection_id(each)]
        sides[SERVICE] = _side(lambda: _first(runtime.services.campaign.get, by_id))
    if all(side.state in (SideState.ABSENT, SideState.EMPTY) for side in sides.values()):
        raise UsageError(
            f"there is no campaign {quoted(slug_or_id)} in {', '.join(sides)}: `regworkers campaign list` names them"
        )
    source = SERVICE if runtime.settings.cache.campaign_source == "service" else MONGO
    return CopyComparison(slug_or_id, sides, source)


def _side(read: Callable[[], Side]) -> Side:
    try:
        return read()
    except UsageError as error:
        return Side(SideState.UNUSABLE, error=str(error))
    except Failure as failure:
        return Side(SideState.UNREACHABLE, error=str(failure))


def _first(get: Callable[[str], Campaign | None], names: list[str]) -> Side:
    found = next((campaign for campaign in map(get, names) if campaign is not None), None)
    return Side(SideState.ABSENT if found is None else SideState.FOUND, found)


def _document(campaign: Campaign) -> dict[str, Any]:
    """The campaign without what we add to it, which the Campaign Service does not have."""
    document = campaign.as_document()
    ours = ("_id", "transitions", "fence", "opened", "unitKeyHash", "codeKey")
    kept = {name: value for name, value in document.items() if name not in ours}
    return {"campaignId": campaign.campaign_id, **kept}


def _fields(campaign: Campaign) -> dict[str, Any]:
    """Flat, with the fields of a market under its id."""
    fields: dict[str, Any] = {}
    document = _document(campaign)
    markets = document.pop("markets")
    for name, value in document.items():
        if isinstance(value, dict):
            fields.update({f"{name}.{part}": each for part, each in value.items()})
        else:
            fields[name] = value
    fields["markets"] = [market["marketId"] for market in markets]
    for market in markets:
        name = f"markets.{market['marketId']}"
        fields[f"{name}.name"], fields[f"{name}.capacity"] = market["name"], market["capacity"]
        for kind in ("reserves", "laterReserves"):
            fields[f"{name}.{kind}"] = [f"{each['segment']} {each['seats']}" for each in market[kind]]
    return fields


NAME = "campaign-configuration"


def run(runtime: Runtime, campaign: str | None = None, *, apply: bool = False) -> Report:
    """Compare one campaign (id or slug), or all that are not completed; with `apply` delete from Redis those that
    differ from their source, and compare again.

    Raises UsageError for a campaign that exists nowhere, TransientFailure when MongoDB cannot list the campaigns.
    """
    names = [campaign] if campaign else _current(runtime)
    compared = [compare_campaign(runtime, name) for name in names]
    wrong = [each.asked for each in compared if each.advice]
    changed = ""
    if apply and wrong:
        for name in wrong:
            clear_cached(runtime, name)
        changed = f"cleared {', '.join(wrong)} in Redis: the next check reads the source"
        compared = [compare_campaign(runtime, name) for name in names]
    return assess(compared, changed)


def assess(compared: Sequence[CopyComparison], changed: str = "") -> Report:
    rows: list[Row] = [
        {
            "campaign": each.asked,
            **{name: side.state.value for name, side in each.sides.items()},
            "differences": ", ".join(name for name, _, differs in each.lines if differs),
        }
        for each in compared
    ]
    wrong = sum(not each.fine for each in compared)
    return runbook_report(
        NAME,
        f"{len(compared)} campaigns compared, {wrong} of them differ or could not be read everywhere",
        {"campaigns": len(compared), "wrong": wrong},
        {"campaigns": rows},
        tuple(finding for each in compared for finding in _findings(each)),
        changed,
        f"regworkers runbook {NAME} --apply" if any(each.advice for each in compared) else "",
    )


def _current(runtime: Runtime) -> list[str]:
    campaigns = runtime.campaigns.list(None)
    return [each.campaign_id for each in campaigns if each.status is not CampaignStatus.COMPLETED]


def _findings(compared: CopyComparison) -> list[Remark]:
    # What is wrong with Redis is covered by the advice to clear it.
    found = [
        Remark(
            "finding", f"{compared.asked}: {name} {side.state.value}: {side.error}", command_in(side.error)
        )
        for name, side in compared.sides.items()
        if side.error is not None and not (name == REDIS and compared.advice)
    ]
    if compared.advice:
        found.append(
            Remark("finding", f"{compared.asked}: Redis differs from {compared.source}", compared.advice)
        )
    elif differing := [name for name, _, differs in compared.lines if differs]:
        text = f"{compared.asked}: {', '.join(differing)} differ between {' and '.join(compared.sides)}"
        found.append(Remark("finding", text, "correct the one that is wrong, then clear the cache"))
    return found
