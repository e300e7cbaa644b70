"""The terms of a phase: what is drawn for, fixed before anything is decided by chance."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regworkers_core.adapters.mongo.draws import PhaseRecord
from regworkers_core.domain.campaign import MAX_SEATS, Campaign, Market, Reserve
from regworkers_core.domain.grammar import has_control, is_encodable
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import RequestError, UsageError

Strikes = tuple[tuple[str, str], ...]

_REASON = re.compile(r"[A-Z_]+")
MAX_REASON_CHARS = 500
# A draw is one document, of which MongoDB takes 16 MiB. The strikes of each phase may have this much of it, all phases
# together; the rest of the document needs far less than what is left.
MAX_STRIKES_BYTES = 14 * 1024 * 1024
# Of a strike in BSON, besides its two texts.
_STRIKE_BYTES = 30


@dataclass(frozen=True, slots=True)
class Terms:
    """`markets` by id, `strikes` as (ref, reason) by ref, cumulative over the phases; `waitlist_size` None
    means all.
    """

    markets: tuple[Market, ...]
    wins_per_unit: int
    waitlist_size: int | None
    strikes: tuple[tuple[str, str], ...] = ()
    reason: str = ""

    @classmethod
    def of(cls, campaign: Campaign, strikes: Iterable[tuple[str, str]] = ()) -> Terms:
        """The terms of phase 1, as the campaign states them."""
        return cls(
            markets=tuple(sorted(campaign.markets, key=lambda market: market.market_id)),
            wins_per_unit=campaign.draw.wins_per_unit,
            waitlist_size=campaign.draw.waitlist_size,
            strikes=merged(strikes),
        )

    def as_fields(self) -> dict[str, Any]:
        """For the `draws` document."""
        return {
            "markets": [
                {
                    "marketId": market.market_id,
                    "capacity": market.capacity,
                    "reserves": [
                        {"segment": reserve.segment, "seats": reserve.seats} for reserve in market.reserves
                    ],
                }
                for market in self.markets
            ],
            "winsPerUnit": self.wins_per_unit,
            "waitlistSize": self.waitlist_size,
            "strikes": [list(strike) for strike in self.strikes],
            "reason": self.reason,
        }

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Terms:
        """What `as_fields` made."""
        markets = tuple(
            Market(
                market["marketId"],
                market["marketId"],
                market["capacity"],
                tuple(Reserve(reserve["segment"], reserve["seats"]) for reserve in market["reserves"]),
            )
            for market in fields["markets"]
        )
        return cls(
            markets,
            fields["winsPerUnit"],
            fields["waitlistSize"],
            tuple((ref, reason) for ref, reason in fields["strikes"]),
            fields["reason"],
        )


@dataclass(frozen=True, slots=True)
class TopUp:
    """What a further phase changes. `capacities` are new totals by market id; `reserves` replace a market's
    whole list; `strikes` come on top of the earlier ones.
    """

    capacities: Mapping[str, int]
    reserves: Mapping[str, tuple[Reserve, ...]]
    strikes: tuple[tuple[str, str], ...]
    reason: str
    waitlist_size: int | None = None
    keep_waitlist: bool = True

    def after(self, before: Terms, pinned: Mapping[str, int]) -> Terms:
        """The next phase's terms. `pinned` are the winners who keep their seat, by market.

        Raises RequestError for a reason that cannot be published, an unknown market, a segment that is no id, fewer
        seats than are taken, or reserves above what is offered.
        """
        known = {market.market_id for market in before.markets}
        for market_id in (*self.capacities, *self.reserves):
            if market_id not in known:
                raise RequestError(
                    f"market {market_id} is not in the draw: there are {', '.join(sorted(known))}"
                )
        reason = published_reason(self.reason, "a top-up")
        markets = []
        for market in before.markets:
            capacity = self.capacities.get(market.market_id, market.capacity)
            # Reserves are among the seats that are newly offered, so those of the phase before are spent.
            reserves = self.reserves.get(market.market_id, ())
            _require_reserves(market.market_id, reserves)
            offered = capacity - pinned.get(market.market_id, 0)
            if offered < 0:
                raise RequestError(
                    f"market {market.market_id}: capacity is the new total and should be at least"
                    f" {pinned.get(market.market_id, 0)}, which are taken; found {capacity}"
                )
            if (seats := sum(reserve.seats for reserve in reserves)) > offered:
                raise RequestError(
                    f"market {market.market_id}: reserves of {seats} seats exceed the {offered} on offer"
                )
            if capacity > MAX_SEATS:
                raise RequestError(
                    f"market {market.market_id}: capacity should be at most {MAX_SEATS}, found {capacity}"
                )
            markets.append(replace(market, capacity=capacity, reserves=reserves))
        waitlist = before.waitlist_size if self.keep_waitlist else self.waitlist_size
        if waitlist is not None and not 0 <= waitlist <= MAX_SEATS:
            raise RequestError(f"the waiting list should have 0 to {MAX_SEATS} places, found {waitlist}")
        return Terms(
            markets=tuple(markets),
            wins_per_unit=before.wins_per_unit,
            waitlist_size=waitlist,
            strikes=merged((*before.strikes, *self.strikes)),
            reason=reason,
        )


def terms_of_first(campaign: Campaign, strikes: Strikes, first: PhaseRecord | None) -> Terms:
    """Return the terms of phase 1 as the campaign states them now.

    Without `strikes`, those of an earlier run are kept: a run that a sensor starts is given none. Raises RequestError
    for too many.
    """
    if not strikes and first is not None:
        strikes = Terms.parse(first.fields["terms"]).strikes
    terms = Terms.of(campaign, strikes)
    require_room([terms])
    return terms


def refuse_late_strikes(campaign_id: str, first: PhaseRecord, strikes: Strikes) -> None:
    """Raise UsageError for strikes that are not those of the committed manifest: strikes precede the commit."""
    if strikes and merged(strikes) != Terms.parse(first.fields["terms"]).strikes:
        raise UsageError(
            f"the draw of {campaign_id} is committed without these strikes, and a commit is final: "
            f"`regworkers draw top-up {campaign_id} --strikes ...`, or the job `top_up` with `strikes`, takes their"
            " seats back in a further phase"
        )


def require_room(phases: Sequence[Terms]) -> None:
    """Raises RequestError when the strikes of the last of these phases, on top of those before, are more than the
    document of a draw takes.
    """
    sizes = [sum(_STRIKE_BYTES + len(ref) + len(reason) for ref, reason in terms.strikes) for terms in phases]
    if sum(sizes) <= MAX_STRIKES_BYTES:
        return
    count, room = len(phases[-1].strikes), max(0, MAX_STRIKES_BYTES - sum(sizes[:-1]))
    earlier = ", beside those of the phases before" if len(phases) > 1 else ""
    raise RequestError(
        f"{count:,} strikes are too many for one draw: it keeps at most {room * count // sizes[-1]:,} of this length"
        f"{earlier}. Before the freeze, remove the other entries at their source, or block their users there; after"
        " the draw, strike only those who won"
    )


def published_reason(text: str, whose: str) -> str:
    """An operator's reason without the space around it, as it is published. Raises RequestError when it is empty, has
    more than one line, or is longer than everybody would read.
    """
    reason = text.strip()
    if not reason:
        raise RequestError(f"{whose} needs a reason: it is published")
    if len(reason) > MAX_REASON_CHARS or not is_encodable(reason) or has_control(reason):
        raise RequestError(
            f"the reason of {whose} is published: it should be one line of at most {MAX_REASON_CHARS} characters"
        )
    return reason


def _require_reserves(market_id: str, reserves: tuple[Reserve, ...]) -> None:
    """What a manifest could not hold is refused before the phase is opened: its terms stay as they are then."""
    repeated = [segment for segment, times in Counter(each.segment for each in reserves).items() if times > 1]
    if repeated:
        raise RequestError(f"market {market_id}: segment {repeated[0][:80]!r} has a reserve already")
    for reserve in reserves:
        if not is_selection_id(reserve.segment):
            raise RequestError(
                f"market {market_id}: a segment should be 1 to 64 of the characters A-Z a-z 0-9 _ -, found"
                f" {reserve.segment[:80]!r}"
            )
        if reserve.seats < 1:
            raise RequestError(
                f"market {market_id}: a reserve should have at least 1 seat, found {reserve.seats} for"
                f" {reserve.segment}"
            )


def merged(strikes: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Sorted by ref. Raises UsageError for a malformed line or a ref that is struck twice for two reasons."""
    found: dict[str, str] = {}
    for ref, reason in strikes:
        if wrong := _wrong(ref, reason):
            raise RequestError(f"a strike is `ref|REASON`: {wrong}")
        if found.setdefault(ref, reason) != reason:
            raise RequestError(f"{ref} is struck for {found[ref]} already: strikes are cumulative and stay")
    return tuple(sorted(found.items()))


def parse_strikes(text: str) -> tuple[tuple[str, str], ...]:
    """Lines of `ref|REASON`; blank ones are skipped. Raises RequestError with the line's number and not its text: that
    may be a fan's mail address, and what a job raises is kept.
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
    """What is wrong with a strike, without what stands there."""
    if not is_selection_id(ref):
        return "the ref is not 1 to 64 of the characters A-Z a-z 0-9 _ -"
    if not _REASON.fullmatch(reason):
        return "the reason has other characters than A-Z and _, or none"
    return ""
