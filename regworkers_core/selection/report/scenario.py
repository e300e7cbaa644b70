"""The rules that a simulation tries out: those of a campaign, with some of them changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from regworkers_core.domain.campaign import MAX_SEATS, Campaign, Market, Reserve
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.selection.maths.rules import MAX_WEIGHT


@dataclass(frozen=True, slots=True)
class Scenario:
    """`weights` give the members of a segment so many tickets (the greatest of an entry's segments counts)
    instead of the weight that the entry brings; `waitlist_size` None keeps everybody waiting.
    """

    markets: tuple[Market, ...]
    wins_per_unit: int = 1
    waitlist_size: int | None = None
    weights: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, campaign: Campaign) -> Scenario:
        """As the campaign stands."""
        markets = tuple(sorted(campaign.markets, key=lambda market: market.market_id))
        return cls(markets, campaign.draw.wins_per_unit, campaign.draw.waitlist_size)

    @classmethod
    def of_capacities(cls, capacities: Mapping[str, int]) -> Scenario:
        """For invented entries: markets of these ids. Raises UsageError without any."""
        if not capacities:
            raise UsageError("invented entries need markets: --capacity MARKET=N, once for each")
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
        """With other numbers. A reserve takes the place of the market's for the same segment, or comes last in
        precedence; 0 seats takes it away. Raises RequestError for what cannot be drawn.
        """
        known = {market.market_id for market in self.markets}
        for market_id in (*capacities, *reserves):
            if market_id not in known:
                raise RequestError(
                    f"market {market_id} is not in the campaign: there are {', '.join(sorted(known))}"
                )
        for segment, weight in weights.items():
            _id(segment)
            if not 1 <= weight <= MAX_WEIGHT:
                raise RequestError(f"weights of {segment}: a weight is 1 to {MAX_WEIGHT}, found {weight}")
        if wins_per_unit is not None and wins_per_unit < 1:
            raise RequestError(f"a household should have 1 winner or more, found {wins_per_unit}")
        if waitlist_size is not None and waitlist_size < 0:
            raise RequestError(f"the waiting list should have 0 places or more, found {waitlist_size}")
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
        """All that a rule names."""
        named = {reserve.segment for market in self.markets for reserve in market.reserves}
        return tuple(sorted(named | set(self.weights)))

    def as_dict(self) -> dict[str, Any]:
        return {
            "markets": [
                {
                    "marketId": market.market_id,
                    "capacity": market.capacity,
                    "reserves": [reserve.as_document() for reserve in market.reserves],
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
            raise RequestError(f"market {market.market_id}: seats are 0 to {MAX_SEATS}, found {number}")
    reserved = sum(seats.values())
    if reserved > total:
        segments = ", ".join(f"{segment} {number}" for segment, number in seats.items())
        raise RequestError(
            f"market {market.market_id}: reserves of {reserved} seats exceed its {total} ({segments}); lower them too,"
            " 0 takes one away"
        )
    kept = tuple(Reserve(segment, number) for segment, number in seats.items() if number)
    return replace(market, capacity=total, reserves=kept)


def _id(text: str) -> None:
    if not is_selection_id(text):
        raise RequestError(f"an id is 1 to 64 of the characters A-Z a-z 0-9 _ -, found {text!r}")
