"""Counts the codes of a campaign against its seats, and voids leaked codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairdraw.documents import as_document
from regworkers_core.adapters.files import masked
from regworkers_core.adapters.mongo.codes import Code, CodeStatus
from regworkers_core.adapters.mongo.draws import DrawRecord, MarketStatus, PhaseStatus
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.selection import DrawBusy
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.lifecycle import draw_lease

# While a market has one of these states, a plan may name the code already, and a plan is never made twice.
_PLANNED = frozenset({MarketStatus.PENDING, MarketStatus.ASSIGNING})


@dataclass(frozen=True, slots=True)
class MarketStock:
    """Codes of one market by status."""

    market_id: str
    # Its seats; None: the campaign has no such market.
    capacity: int | None
    # Codes that were not assigned yet.
    available: int = 0
    # Codes of winners.
    assigned: int = 0
    # Codes that were used.
    redeemed: int = 0
    # Codes that count no more.
    void: int = 0
    # How many codes its winners wait for; None before the winners are known: then every seat may be won.
    wanted: int | None = None

    @property
    def missing(self) -> int:
        """Codes that are missing: for the winners once they are known, before that for all seats."""
        if self.wanted is not None:
            return max(0, self.wanted - self.available)
        return max(0, (self.capacity or 0) - self.available - self.assigned - self.redeemed)

    def as_dict(self) -> dict[str, Any]:
        return as_document(self) | {"missing": self.missing}


@dataclass(frozen=True, slots=True)
class Voided:
    """The result of voiding one code: `code` is masked, `outcome` is a sentence."""

    code: str
    done: bool
    outcome: str


def read_stock(runtime: Runtime, campaign: Campaign, record: DrawRecord | None = None) -> list[MarketStock]:
    """Return the stock of every market of the campaign, then of markets that only codes name. `record` is the
    campaign's draw, None before there is one.
    """
    counts = runtime.codes.count(campaign.campaign_id)
    seats = seats_of(campaign, record)
    wanted = _wanted(record)
    strays = sorted(counts.keys() - set(campaign.market_ids))
    found = []
    for market_id in (*campaign.market_ids, *strays):
        market, of = campaign.market(market_id), counts.get(market_id, {})
        found.append(
            MarketStock(
                market_id,
                seats.get(market_id),
                available=of.get(CodeStatus.AVAILABLE, 0),
                assigned=of.get(CodeStatus.ASSIGNED, 0),
                redeemed=of.get(CodeStatus.REDEEMED, 0),
                void=of.get(CodeStatus.VOID, 0),
                wanted=None if wanted is None or market is None else wanted[market_id],
            )
        )
    return found


def seats_of(campaign: Campaign, record: DrawRecord | None) -> dict[str, int]:
    """Return the current seats by market id: those of the draw's latest phase, before a draw the campaign's."""
    seats = {market.market_id: market.capacity for market in campaign.markets}
    if record is not None and record.phases:
        terms: Mapping[str, Any] = record.latest.fields.get("terms") or {}
        seats |= {
            each["marketId"]: int(each["capacity"])
            for each in terms.get("markets", ())
            if each["marketId"] in seats
        }
    return seats


def _wanted(record: DrawRecord | None) -> Counter[str] | None:
    """Return by market how many codes the winners of a draw wait for: in blocked markets, and in a result that is not
    published yet. A market that is being assigned has all its codes. None while the winners of the latest phase are
    not known.
    """
    if record is None or not record.phases or "report" not in record.latest.fields:
        return None
    wanted: Counter[str] = Counter()
    if record.annulled:
        return wanted
    for phase in record.phases.values():
        if not phase.reached(PhaseStatus.PUBLISHED):
            wanted.update((phase.fields.get("report") or {}).get("newWinners", {}))
        for market_id, numbers in phase.markets.items():
            if numbers.get("status") == MarketStatus.BLOCKED:
                wanted[market_id] += int(numbers["needed"])
    return wanted


def void_codes(
    runtime: Runtime,
    campaign: Campaign,
    codes: Sequence[str],
    *,
    reason: str,
    run_id: str,
    dry_run: bool = False,
    on_step: OnStep = no_step,
) -> list[Voided]:
    """Void AVAILABLE codes permanently. They keep their positions, which plans then skip.

    A code that a fan holds, or whose market is being assigned, is not changed. This holds the lease of the draw, under
    which every plan is made, so no plan can name a code that is voided here. Raises DrawBusy while another run works on
    the draw, also if one takes over half way (codes that are void by then stay void).
    """
    done: list[Voided] = []
    with draw_lease(runtime, campaign.campaign_id, run_id) as lease:
        on_step("codes.after_lease")
        stored = runtime.codes.get(codes)
        busy = _markets_in_assignment(runtime, campaign.campaign_id)
        for code in dict.fromkeys(codes):
            found = stored.get(code)
            hindrance = _hindrance(found, campaign.campaign_id, busy)
            was_void = found is not None and found.status is CodeStatus.VOID
            if hindrance is None and not was_void and not dry_run:
                if lease.lost:
                    raise DrawBusy(campaign.campaign_id)
                if not runtime.codes.void(
                    campaign.campaign_id, code, at=iso(runtime.clock()), reason=reason, run_id=run_id
                ):
                    hindrance = "was given to a fan meanwhile"
            now = "would be void" if dry_run else "is void now"
            outcome = hindrance or ("was void already" if was_void else now)
            done.append(Voided(masked(code), hindrance is None, outcome))
    return done


def _hindrance(code: Code | None, campaign_id: str, busy: frozenset[str]) -> str | None:
    if code is None or code.campaign_id != campaign_id:
        return f"is not a code of {campaign_id}"
    if code.status in (CodeStatus.ASSIGNED, CodeStatus.REDEEMED):
        return f"is {code.status}: a fan holds it, so its issuer has to block it"
    if code.status is CodeStatus.AVAILABLE and code.market_id in busy:
        return f"may be planned for a winner: void it when market {code.market_id} is complete"
    return None


def _markets_in_assignment(runtime: Runtime, campaign_id: str) -> frozenset[str]:
    record = runtime.draws.get(campaign_id)
    if record is None or record.annulled:
        return frozenset()
    return frozenset(
        market_id
        for phase in record.phases.values()
        for market_id, numbers in phase.markets.items()
        if numbers.get("status") in _PLANNED
    )


@dataclass(frozen=True, slots=True)
class CodesPrecheck:
    """Whether there are codes for every seat, by market id."""

    # The seats of every market.
    seats: Mapping[str, int]
    # Codes that are here.
    available: Mapping[str, int]
    # Codes at the Code Service; None if there is none, or if it did not answer.
    at_service: Mapping[str, int] | None = None
    # The error of a service that did not answer.
    trouble: str | None = None

    @property
    def warnings(self) -> list[str]:
        """Warnings as sentences. They do not stop a draw: a market with too few codes waits before its assignment."""
        found = [] if self.trouble is None else [f"the Code Service did not answer: {self.trouble}"]
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
    """Compare codes with seats. Raises TransientFailure if MongoDB does not answer; the Code Service may be down."""
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
