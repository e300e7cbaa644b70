"""The terms of a phase: seats, strikes and limits, fixed before any part of it is decided by chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairdraw.documents import as_document, from_document
from fairdraw.maths.manifest import STRIKE_REASON, undeclared
from fairdraw.terms import ALGORITHM, Outcome
from regworkers_core.adapters.mongo.draws import PhaseRecord
from regworkers_core.domain.campaign import MAX_SEATS, Campaign, Market, Reserve
from regworkers_core.domain.keys import is_selection_id, quoted
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.selection.campaigns.registry import published_reason, published_terms

Strikes = tuple[tuple[str, str], ...]

# A draw is one document, and MongoDB's limit is 16 MiB. The strikes of all phases together may take this much; the rest
# of the document needs far less than what remains.
MAX_STRIKES_BYTES = 14 * 1024 * 1024
# Overhead of a strike in BSON, in addition to its two texts.
_STRIKE_BYTES = 30


@dataclass(frozen=True, slots=True)
class PhaseTerms:
    """The terms of one phase."""

    # They are sorted by id.
    markets: tuple[Market, ...]
    wins_per_unit: int
    # None: all that are left.
    waitlist_size: int | None
    # (ref, reason), sorted by ref, of all phases so far.
    strikes: tuple[tuple[str, str], ...] = ()
    reason: str = ""

    @classmethod
    def of(cls, campaign: Campaign, strikes: Iterable[tuple[str, str]] = ()) -> PhaseTerms:
        """Return the terms of phase 1, as the campaign states them."""
        return cls(
            markets=tuple(sorted(campaign.markets, key=lambda market: market.market_id)),
            wins_per_unit=campaign.draw.wins_per_unit,
            waitlist_size=campaign.draw.waitlist_size,
            strikes=_first_strikes(strikes),
        )

    def as_fields(self) -> dict[str, Any]:
        names = ("market_id", "capacity", "reserves", "later_reserves")
        markets = [as_document(market, *names) for market in self.markets]
        return as_document(self) | {"algorithm": ALGORITHM, "markets": markets}

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> PhaseTerms:
        markets = []
        for market in fields["markets"]:
            reserves, later = (
                tuple(from_document(Reserve, each) for each in market[kind])
                for kind in ("reserves", "laterReserves")
            )
            market_id = market["marketId"]
            markets.append(Market(market_id, market_id, market["capacity"], reserves, later))
        strikes = tuple((ref, reason) for ref, reason in fields["strikes"])
        return from_document(cls, fields, markets=tuple(markets), strikes=strikes)


@dataclass(frozen=True, slots=True)
class TopUp:
    """What a further phase changes."""

    # New totals by market id.
    capacities: Mapping[str, int]
    # They are among those that the market declared for later phases, in that order.
    reserves: Mapping[str, tuple[Reserve, ...]]
    # (ref, reason), added to the earlier ones.
    strikes: tuple[tuple[str, str], ...]
    reason: str
    # The number of the round of seats that pass on, from 1; 0: it is none.
    round: int = 0

    def after(self, earlier: Sequence[PhaseTerms], pinned: Mapping[str, int]) -> PhaseTerms:
        """Return the terms of the phase after `earlier`, which are all before it. `pinned` counts the winners who keep
        their seat, by market.

        Raises RequestError for a reason that cannot be published, an unknown market, fewer seats than before, more
        reserved seats than offered, and reserves that the draw did not declare for later phases.
        """
        before = earlier[-1]
        known = {market.market_id for market in before.markets}
        for market_id in (*self.capacities, *self.reserves):
            if market_id not in known:
                raise RequestError(
                    f"market {quoted(market_id)} is not in the draw: there are {', '.join(sorted(known))}"
                )
        reason = published_reason(self.reason, "a top-up")
        markets = []
        for number, market in enumerate(before.markets):
            capacity = self.capacities.get(market.market_id, market.capacity)
            if capacity < market.capacity:
                raise RequestError(
                    f"market {market.market_id}: capacity is the new total and should be at least {market.capacity},"
                    f" that of the phase before; found {capacity}"
                )
            # Reserves are among the newly offered seats, so those of the phase before do not carry over.
            reserves = self.reserves.get(market.market_id, ())
            now = replace(market, capacity=capacity, reserves=reserves)
            _require_declared(now, [each.markets[number] for each in earlier[1:]])
            offered = capacity - pinned.get(market.market_id, 0)
            if (seats := sum(reserve.seats for reserve in reserves)) > offered:
                raise RequestError(
                    f"market {market.market_id}: reserves of {seats} seats exceed the {offered} on offer"
                )
            if capacity > MAX_SEATS:
                raise RequestError(
                    f"market {market.market_id}: capacity should be at most {MAX_SEATS}, found {capacity}"
                )
            markets.append(now)
        strikes = merged((*before.strikes, *self.strikes))
        return replace(before, markets=tuple(markets), strikes=strikes, reason=reason)


def terms_of_first(campaign: Campaign, strikes: Strikes, first: PhaseRecord | None) -> PhaseTerms:
    """Return the terms of phase 1 as the campaign states them now.

    Without `strikes`, those of an earlier run are kept: a run that a sensor starts is given none. Raises RequestError
    for too many.
    """
    if not strikes and first is not None:
        strikes = first.strikes
    terms = PhaseTerms.of(campaign, strikes)
    require_room([terms])
    return terms


def refuse_late_strikes(campaign_id: str, first: PhaseRecord, strikes: Strikes) -> None:
    """Raise UsageError for strikes that are not those of the committed manifest: strikes precede the commit."""
    if strikes and merged(strikes) != first.strikes:
        raise UsageError(
            f"the draw of {campaign_id} is committed without these strikes, and a commit is final: "
            f"`regworkers draw top-up {campaign_id} --strikes ...`, or the job `top_up` with `strikes`, takes their"
            " seats back in a further phase"
        )


def require_room(phases: Sequence[PhaseTerms]) -> None:
    """Raise RequestError when the strikes of the last of these phases, with those before, exceed the document of a
    draw.
    """
    sizes = [sum(_STRIKE_BYTES + len(ref) + len(reason) for ref, reason in terms.strikes) for terms in phases]
    if sum(sizes) <= MAX_STRIKES_BYTES:
        return
    count, room = len(phases[-1].strikes), max(0, MAX_STRIKES_BYTES - sum(sizes[:-1]))
    earlier = ", in addition to those of the phases before" if len(phases) > 1 else ""
    raise RequestError(
        f"{count:,} strikes are too many for one draw: it keeps at most {room * count // sizes[-1]:,} of this length"
        f"{earlier}. Before the freeze, remove the other entries at their source, or block their users there; after"
        " the draw, strike only those who won"
    )


def _require_declared(market: Market, before: Sequence[Market]) -> None:
    """Raise RequestError for reserves of a later phase that the draw did not declare. `before` are the terms of the
    market in the later phases before this one.
    """
    declared = {each.segment for each in market.later_reserves}
    for reserve in market.reserves:
        if reserve.segment not in declared:
            known = ", ".join(f"{each.segment} {each.seats}" for each in market.later_reserves) or "none"
            raise RequestError(
                f"market {market.market_id}: seats for segment {quoted(reserve.segment)} were not declared before the"
                f" draw (its later reserves: {known}), and a later phase has no others: every rank is known by now"
            )
        if reserve.seats < 0:
            raise RequestError(
                f"market {market.market_id}: a reserve should have 0 seats or more, found {reserve.seats} for"
                f" {reserve.segment}"
            )
    if wrong := undeclared(published_terms(market), map(published_terms, before)):
        raise RequestError(f"{wrong}: what the draw declared for later phases is all that they can reserve")


def _first_strikes(strikes: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    found = merged(strikes)
    if any(reason == Outcome.UNCLAIMED for _, reason in found):
        raise RequestError(
            f"{Outcome.UNCLAIMED} lets a winner's seat lapse, and before the first phase is drawn no one has won: give"
            " another reason, or use it in a top-up"
        )
    return found


def merged(strikes: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the strikes sorted by ref. Raises RequestError for a malformed one and for a ref with two reasons."""
    found: dict[str, str] = {}
    for ref, reason in strikes:
        if wrong := _wrong(ref, reason):
            raise RequestError(f"a strike is `ref|REASON`: {wrong}")
        if found.setdefault(ref, reason) != reason:
            raise RequestError(f"{ref} is struck for {found[ref]} already: strikes are cumulative and final")
    return tuple(sorted(found.items()))


def parse_strikes(text: str) -> tuple[tuple[str, str], ...]:
    """Parse lines of `ref|REASON`, skipping blank ones. Raises RequestError with the number of the line, not its text,
    which may be a fan's mail address: errors of jobs are stored.
    """
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            ref, bar, reason = line.strip().partition("|")
            if wrong := _wrong(ref, reason) if bar else "it has no `|`":
                raise RequestError(f"strikes, line {number}: should be `ref|REASON`, but {wrong}")
            if ref in found:
                raise RequestError(f"strikes, line {number}: the ref of line {lines[ref]} is listed twice")
            found[ref], lines[ref] = reason, number
    return merged(found.items())


def _wrong(ref: str, reason: str) -> str:
    """Return what is wrong with a strike, without quoting it."""
    if not is_selection_id(ref):
        return "the ref is not 1 to 64 of the characters A-Z a-z 0-9 _ -"
    if not STRIKE_REASON.fullmatch(reason):
        return "the reason has other characters than A-Z and _, or none"
    return ""
