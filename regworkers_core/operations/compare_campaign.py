"""One campaign as Redis, MongoDB and the Campaign Service have it, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.operations.cached_campaign import CachedCampaign, read_cached
from regworkers_core.runtime import Runtime

EXISTS = "exists"
REDIS, MONGO, SERVICE = "redis", "mongo", "service"


class SideState(StrEnum):
    FOUND = "found"
    ABSENT = "absent"
    # Only Redis: nothing is kept, which is as good as anything.
    EMPTY = "empty"
    UNUSABLE = "unusable"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Side:
    """What one of them says. `fields` has a line for each thing that can differ."""

    state: SideState
    campaign: Campaign | None = None
    error: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        if self.campaign is not None:
            return {EXISTS: "yes", **_fields(self.campaign)}
        return {EXISTS: "no"} if self.state is SideState.ABSENT else {}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`sides` in reading order; one that is not configured is left out."""

    asked: str
    sides: dict[str, Side]
    source: str

    @property
    def lines(self) -> list[tuple[str, dict[str, Any], bool]]:
        """Field, its value on every side that has an opinion, and whether they differ."""
        known = {name: side.fields for name, side in self.sides.items() if side.fields}
        names = dict.fromkeys(name for fields in known.values() for name in fields)
        found = []
        for name in names:
            # Whoever has no campaign at all has said so in the first line.
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
        """What helps, as a command where there is one."""
        mine, truth = self.sides.get(REDIS), self.sides.get(self.source)
        if mine is None or truth is None or self.fine:
            return None
        disagrees = truth.fields and mine.fields and mine.fields != truth.fields
        if disagrees or mine.state is SideState.UNUSABLE:
            return f"regworkers campaign cache clear {self.asked}: the next check reads {self.source}"
        return None

    def as_dict(self) -> dict[str, Any]:
        return {
            "asked": self.asked,
            "same": self.fine,
            "source": self.source,
            "sides": {
                name: {
                    "state": side.state.value,
                    "error": side.error,
                    "campaign": _document(side.campaign) if side.campaign else None,
                }
                for name, side in self.sides.items()
            },
            "differences": [{"field": name, **values} for name, values, differs in self.lines if differs],
            "advice": self.advice,
        }


def compare_campaign(runtime: Runtime, slug_or_id: str) -> Comparison:
    """Ask all of them; one that cannot answer is named, and the others are compared.

    Raises UsageError when all could answer and none has the campaign.
    """
    cached: CachedCampaign | None = None
    sides: dict[str, Side] = {}
    if runtime.campaign_store is not None:

        def redis_side() -> Side:
            nonlocal cached
            cached = read_cached(runtime, slug_or_id)
            return _side_of_redis(cached)

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
            f"there is no campaign {slug_or_id!r} in {', '.join(sides)}: `regworkers campaign list` names them"
        )
    source = SERVICE if runtime.settings.cache.campaign_source == "service" else MONGO
    return Comparison(slug_or_id, sides, source)


def _side(read: Callable[[], Side]) -> Side:
    try:
        return read()
    except UsageError as error:
        return Side(SideState.UNUSABLE, error=str(error))
    except Failure as failure:
        return Side(SideState.UNREACHABLE, error=str(failure))


def _side_of_redis(cached: CachedCampaign) -> Side:
    if cached.damaged is not None:
        return Side(SideState.UNUSABLE, cached.campaign, f"{cached.damaged.key}: {cached.damaged.error}")
    if cached.campaign is not None:
        return Side(SideState.FOUND, cached.campaign)
    return Side(SideState.ABSENT if cached.says_none else SideState.EMPTY)


def _first(get: Callable[[str], Campaign | None], names: list[str]) -> Side:
    found = next((campaign for campaign in map(get, names) if campaign is not None), None)
    return Side(SideState.ABSENT if found is None else SideState.FOUND, found)


def _document(campaign: Campaign) -> dict[str, Any]:
    """What a campaign is; how it came there (`transitions`, `fence`) is kept by MongoDB alone."""
    document = campaign.as_document()
    history = ("_id", "transitions", "fence")
    kept = {name: value for name, value in document.items() if name not in history}
    return {"campaignId": campaign.campaign_id, **kept}


def _fields(campaign: Campaign) -> dict[str, Any]:
    """A line for each thing, with a market's under its id."""
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
        fields[f"{name}.reserves"] = [f"{each['segment']} {each['seats']}" for each in market["reserves"]]
    return fields
