"""What a simulation tries, a campaign's rules with changes, and its result as a document and as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fairdraw.documents import as_json
from fairdraw.maths.rules import MAX_WEIGHT
from regworkers_core.domain.campaign import MAX_SEATS, Campaign, Market, Reserve
from regworkers_core.domain.keys import is_selection_id, quoted
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.operation import Table
from regworkers_core.reporting import counted


@dataclass(frozen=True, slots=True)
class Scenario:
    """The rules of a simulated draw."""

    markets: tuple[Market, ...]
    wins_per_unit: int = 1
    # None: all that are left.
    waitlist_size: int | None = None
    # Tickets by segment, instead of the weight of the entry; the greatest of an entry's segments counts.
    weights: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, campaign: Campaign) -> Scenario:
        markets = tuple(sorted(campaign.markets, key=lambda market: market.market_id))
        return cls(markets, campaign.draw.wins_per_unit, campaign.draw.waitlist_size)

    @classmethod
    def of_capacities(cls, capacities: Mapping[str, int]) -> Scenario:
        """Markets with these ids, for synthetic entries. Raises UsageError without any."""
        if not capacities:
            raise UsageError("synthetic entries need markets: give --capacity MARKET=N for each")
        return cls(tuple(Market(name, name, seats) for name, seats in sorted(capacities.items())))

    def changed(
        self,
        *,
        capacities: Mapping[str, int],
        reserves: Mapping[str, Mapping[str, int]],
        weights: Mapping[str, int],
        wins_per_unit: int | None = None,
        waitlist_size: int | None = None,
    ) -> Scenario:
        """The scenario with other numbers. A reserve replaces that of the same segment, or is appended as the last in
        precedence; 0 seats remove it. Raises RequestError for rules that cannot be drawn.
        """
        known = {market.market_id for market in self.markets}
        for market_id in (*capacities, *reserves):
            if market_id not in known:
                raise RequestError(
                    f"market {quoted(market_id)} is not in the campaign: it has {', '.join(sorted(known))}"
                )
        for segment, weight in weights.items():
            _id(segment)
            if not 1 <= weight <= MAX_WEIGHT:
                raise RequestError(f"weight of {segment}: expected 1 to {MAX_WEIGHT}, found {weight}")
        if wins_per_unit is not None and wins_per_unit < 1:
            raise RequestError(f"winners per household: expected 1 or more, found {wins_per_unit}")
        if waitlist_size is not None and waitlist_size < 0:
            raise RequestError(f"size of the waitlist: expected 0 or more, found {waitlist_size}")
        markets = [
            _market(market, capacities.get(market.market_id), reserves.get(market.market_id, {}))
            for market in self.markets
        ]
        return replace(
            self,
            markets=tuple(markets),
            wins_per_unit=wins_per_unit or self.wins_per_unit,
            waitlist_size=self.waitlist_size if waitlist_size is None else waitlist_size,
            weights={**self.weights, **weights},
        )

    @property
    def segments(self) -> tuple[str, ...]:
        """All segments in reserves and weights."""
        named = {reserve.segment for market in self.markets for reserve in market.reserves}
        return tuple(sorted(named | set(self.weights)))

    def as_dict(self) -> dict[str, Any]:
        return {
            "markets": [
                {
                    "marketId": market.market_id,
                    "capacity": market.capacity,
                    "reserves": as_json(market.reserves),
                }
                for market in self.markets
            ],
            "winsPerUnit": self.wins_per_unit,
            "waitlistSize": self.waitlist_size,
            "weights": dict(self.weights),
        }


def _market(market: Market, capacity: int | None, reserves: Mapping[str, int]) -> Market:
    _id(market.market_id)
    seats = {reserve.segment: reserve.seats for reserve in market.reserves}
    for segment, number in reserves.items():
        _id(segment)
        seats[segment] = number
    total = market.capacity if capacity is None else capacity
    for number in (total, *seats.values()):
        if not 0 <= number <= MAX_SEATS:
            raise RequestError(f"market {market.market_id}: expected 0 to {MAX_SEATS} seats, found {number}")
    reserved = sum(seats.values())
    if reserved > total:
        segments = ", ".join(f"{segment} {number}" for segment, number in seats.items())
        raise RequestError(
            f"market {market.market_id}: reserves of {counted(reserved, 'seat')} exceed its {total} ({segments}); lower"
            " them too, 0 removes one"
        )
    kept = tuple(Reserve(segment, number) for segment, number in seats.items() if number)
    return replace(market, capacity=total, reserves=kept)


def _id(text: str) -> None:
    if not is_selection_id(text):
        raise RequestError(f"an id has 1 to 64 of the characters A-Z a-z 0-9 _ -, found {quoted(text)}")


NOTICE = "a simulation with random seeds: it is not the draw and does not predict its winners"
# A group of entries as (kind, name), such as ("segment", "local").
Group = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Simulation:
    """The result of a simulation.

    Groups are `all`, `segment` ("" for none), `weight`, `first` and `any` (markets in the preferences), `market` (that
    admitted the entry), `kept` (the market, if it was the first choice), `place` (of that market in the preferences).
    """

    scenario: Scenario
    # Whether only the best below a bound were drawn, which is exact.
    quick: bool
    # Their number by group.
    entries: Mapping[Group, int]
    # Their number by group, for every round.
    winners: tuple[Mapping[Group, int], ...]
    # The last ranks of the full markets, for every round.
    last_ranks: tuple[Mapping[str, int], ...]

    def as_dict(self) -> dict[str, Any]:
        """A JSON document. Figures are the `mean` of all rounds with the `low`est and `high`est."""
        return {
            "simulation": True,
            "notice": NOTICE,
            "scenario": self.scenario.as_dict(),
            "rounds": len(self.winners),
            "method": "the best below a bound (exact)" if self.quick else "the whole draw",
            "entries": self.entries[("all", "")],
            "winners": self._spread(("all", "")),
            "odds": self._odds(("all", "")),
            "markets": [self._market(market.market_id) for market in self.scenario.markets],
            "segments": [
                {"segment": name, **self._group("segment", name)} for name in self._names("segment")
            ],
            "weights": [
                {"weight": int(name), **self._group("weight", name)} for name in self._names("weight")
            ],
            "choices": [
                {
                    "place": int(name),
                    "entries": self.entries[("place", name)],
                    "winners": self._spread(("place", name)),
                }
                for name in self._names("place")
            ],
        }

    def _market(self, name: str) -> dict[str, Any]:
        seats = next(market.capacity for market in self.scenario.markets if market.market_id == name)
        full = [ranks[name] for ranks in self.last_ranks if ranks.get(name)]
        return {
            "marketId": name,
            "seats": seats,
            "firstChoice": self.entries.get(("first", name), 0),
            "anyChoice": self.entries.get(("any", name), 0),
            "winners": self._spread(("market", name)),
            "odds": self._odds(("market", name), ("any", name)),
            "firstChoiceOdds": self._odds(("kept", name), ("first", name)),
            "full": len(full),
            "lastRank": _spread(full) if full else None,
        }

    def _group(self, what: str, name: str) -> dict[str, Any]:
        group = (what, name)
        return {"entries": self.entries[group], "winners": self._spread(group), "odds": self._odds(group)}

    def _names(self, what: str) -> list[str]:
        names = [name for kind, name in self.entries if kind == what]
        return sorted(names, key=int) if what in ("weight", "place") else sorted(names)

    def _spread(self, group: Group) -> dict[str, float]:
        return _spread([won.get(group, 0) for won in self.winners])

    def _odds(self, group: Group, among: Group | None = None) -> dict[str, float] | None:
        entries = self.entries.get(among or group, 0)
        return _spread([won.get(group, 0) / entries for won in self.winners]) if entries else None


def tables(document: Mapping[str, Any]) -> tuple[Table, ...]:
    """The document as tables by market, segment, weight and choice."""
    markets = [
        (
            market["marketId"],
            f"{market['seats']:,}",
            f"{market['firstChoice']:,}",
            f"{market['anyChoice']:,}",
            _count(market["winners"]),
            _chance(market["odds"]),
            _chance(market["firstChoiceOdds"]),
            "not full" if market["lastRank"] is None else _count(market["lastRank"]),
        )
        for market in document["markets"]
    ]
    choices = [
        (each["place"], f"{each['entries']:,}", _count(each["winners"])) for each in document["choices"]
    ]
    columns = (
        "seats",
        "first choice",
        "any choice",
        "winners",
        "chance",
        "as first choice",
        "last rank",
    )
    return (
        Table("by market", ("market", *columns), markets),
        _by("segment", document["segments"]),
        _by("weight", document["weights"]),
        Table("by choice", ("choice", "entries with at least this many", "winners"), choices),
    )


def _by(name: str, groups: Iterable[Mapping[str, Any]]) -> Table:
    rows = [
        (group[name] or "none", f"{group['entries']:,}", _count(group["winners"]), _chance(group["odds"]))
        for group in groups
    ]
    return Table(f"by {name}", (name, "entries", "winners", "chance to win"), rows)


def _count(spread: Mapping[str, float]) -> str:
    if spread["low"] == spread["high"]:
        return f"{spread['mean']:,.0f}"
    return f"{spread['mean']:,.0f} ({spread['low']:,.0f} – {spread['high']:,.0f})"


def _chance(spread: Mapping[str, float] | None) -> str | None:
    if spread is None:
        return None
    mean, low, high = (f"{100 * spread[name]:.3g}" for name in ("mean", "low", "high"))
    return f"{mean} %" if low == high else f"{mean} % ({low} – {high})"


def _spread(values: Iterable[float]) -> dict[str, float]:
    found = np.array(list(values), float)
    return {"mean": float(found.mean()), "low": float(found.min()), "high": float(found.max())}
