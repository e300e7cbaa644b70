"""How many codes a campaign has, and taking leaked ones out of use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from regworkers_core.adapters.codes import Code, CodeStatus
from regworkers_core.adapters.draws import MarketStatus
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.csv_lines import masked
from regworkers_core.runtime import Runtime

# With markets in one of these a plan may name the code already, and a plan is never made twice.
_PLANNED = frozenset({MarketStatus.PENDING, MarketStatus.ASSIGNING})


@dataclass(frozen=True, slots=True)
class MarketStock:
    """Codes of one market by status against its capacity (None: a market that the campaign does not have)."""

    market_id: str
    capacity: int | None
    available: int = 0
    assigned: int = 0
    redeemed: int = 0
    void: int = 0

    @property
    def missing(self) -> int:
        """Codes that are wanting should every seat be won."""
        return max(0, (self.capacity or 0) - self.available - self.assigned - self.redeemed)

    def as_dict(self) -> dict[str, Any]:
        return {
            "marketId": self.market_id,
            "capacity": self.capacity,
            "available": self.available,
            "assigned": self.assigned,
            "redeemed": self.redeemed,
            "void": self.void,
            "missing": self.missing,
        }


@dataclass(frozen=True, slots=True)
class Voided:
    """What became of one code that was to be voided: `code` is masked, `outcome` says it in words."""

    code: str
    done: bool
    outcome: str


def read_stock(runtime: Runtime, campaign: Campaign) -> list[MarketStock]:
    """Every market of the campaign, then those that only codes name."""
    counts = runtime.codes.count(campaign.campaign_id)
    strays = sorted(counts.keys() - set(campaign.market_ids))
    found = []
    for market_id in (*campaign.market_ids, *strays):
        market, of = campaign.market(market_id), counts.get(market_id, {})
        found.append(
            MarketStock(
                market_id,
                market.capacity if market else None,
                available=of.get(CodeStatus.AVAILABLE, 0),
                assigned=of.get(CodeStatus.ASSIGNED, 0),
                redeemed=of.get(CodeStatus.REDEEMED, 0),
                void=of.get(CodeStatus.VOID, 0),
            )
        )
    return found


def void_codes(
    runtime: Runtime, campaign: Campaign, codes: Sequence[str], *, reason: str, run_id: str
) -> list[Voided]:
    """Take AVAILABLE codes out of use for good; they keep their positions, which plans then pass over.

    A code that a fan holds is not touched, nor one whose market is being assigned.
    """
    stands = runtime.codes.get(codes)
    busy = _markets_in_assignment(runtime, campaign.campaign_id)
    done = []
    for code in dict.fromkeys(codes):
        found = stands.get(code)
        hindrance = _hindrance(found, campaign.campaign_id, busy)
        stood = found is not None and found.status is CodeStatus.VOID
        if (
            hindrance is None
            and not stood
            and not runtime.codes.void(
                campaign.campaign_id, code, at=iso(runtime.clock()), reason=reason, run_id=run_id
            )
        ):
            hindrance = "was given to somebody just now"
        outcome = hindrance or ("was void already" if stood else "is void now")
        done.append(Voided(masked(code), hindrance is None, outcome))
    return done


def _hindrance(code: Code | None, campaign_id: str, busy: frozenset[str]) -> str | None:
    if code is None or code.campaign_id != campaign_id:
        return f"is not a code of {campaign_id}"
    if code.status in (CodeStatus.ASSIGNED, CodeStatus.REDEEMED):
        return f"is {code.status}: a fan holds it, the code's issuer has to block it"
    if code.status is CodeStatus.AVAILABLE and code.market_id in busy:
        return f"may be planned for a winner: void it when market {code.market_id} is complete"
    return None


def _markets_in_assignment(runtime: Runtime, campaign_id: str) -> frozenset[str]:
    record = runtime.draws.get(campaign_id)
    if record is None:
        return frozenset()
    return frozenset(
        market_id
        for phase in record.phases.values()
        for market_id, numbers in phase.markets.items()
        if numbers.get("status") in _PLANNED
    )
