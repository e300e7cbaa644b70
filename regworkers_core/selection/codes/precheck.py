"""Are there codes for every seat? Asked before a draw, of our own collection and of the Code Service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.stock import read_stock


@dataclass(frozen=True, slots=True)
class CodesPrecheck:
    """By market id: `seats`, and codes `available` here and `at_service`, which is None where no service is
    configured, or where it did not answer (then `trouble` says so).
    """

    seats: Mapping[str, int]
    available: Mapping[str, int]
    at_service: Mapping[str, int] | None = None
    trouble: str | None = None

    @property
    def warnings(self) -> list[str]:
        """In words. None of them stops a draw: a market with too few codes waits before its first one is given."""
        found = [] if self.trouble is None else [f"the Code Service could not be asked: {self.trouble}"]
        for market, seats in self.seats.items():
            here, there = self.available[market], (self.at_service or {}).get(market, 0)
            if here < seats:
                found.append(
                    f"{market}: {here:,} available of {seats:,} codes needed: `regworkers codes import`"
                )
            if self.at_service is not None and there < min(here, seats):
                found.append(f"{market}: {here:,} available here, {there:,} at the Code Service")
        return found

    def as_facts(self) -> dict[str, Any]:
        """For a step's facts."""
        return {
            "codes": {
                market: {
                    "seats": seats,
                    "available": self.available[market],
                    "atService": None if self.at_service is None else self.at_service.get(market, 0),
                }
                for market, seats in self.seats.items()
            },
            "warnings": self.warnings,
        }


def check_codes(runtime: Runtime, campaign: Campaign) -> CodesPrecheck:
    """Raises TransientFailure when MongoDB cannot answer; the Code Service may be away."""
    stocks = {stock.market_id: stock for stock in read_stock(runtime, campaign)}
    seats = {market.market_id: market.capacity for market in campaign.markets}
    available = {market: stocks[market].available for market in seats}
    if not runtime.settings.services.code.base_url:
        return CodesPrecheck(seats, available)
    try:
        there = runtime.services.code.available(campaign.campaign_id)
    except (Failure, UsageError) as failure:
        return CodesPrecheck(seats, available, trouble=str(failure))
    return CodesPrecheck(seats, available, there or {})
