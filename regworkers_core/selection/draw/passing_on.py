"""Decides when seats that no one claimed pass on, and which: a round is a further phase in which they lapse.

A seat lapses once its code has expired, the issuer has confirmed that it refuses the code, and its watermark is not
before the end of the code. One conditional update of the code decides that, against which its redemption loses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from fairdraw.terms import Outcome
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseStatus
from regworkers_core.domain.campaign import Campaign, PassOn
from regworkers_core.domain.reasons import Failure, RequestError
from regworkers_core.domain.selection import MarketPhase
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.terms import TopUp

# How long a round waits for the issuer to block the last codes that expired, and then goes without them.
GRACE_SECONDS = 1800.0
# How long after the end of codes the issuer's silence is a fault.
SILENT_SECONDS = 3600.0


class RoundState(StrEnum):
    """Whether a round begins or goes on now. STOPPED: it should, and needs a person."""

    NONE = "none"
    WAITING = "waiting"
    DUE = "due"
    STOPPED = "stopped"


class RoundStopped(Failure):
    """A round should begin, or go on, and needs a person: no seat passes on until then."""

    def __init__(self, campaign_id: str, why: str) -> None:
        super().__init__(f"no seat of {campaign_id} passes on: {why}")


class RoundDecision(NamedTuple):
    state: RoundState
    why: str
    phase: int = 0  # that of the round; 0: there is none to come


@dataclass(frozen=True, slots=True)
class Expired:
    """The codes of one market and phase whose time is over."""

    market: MarketPhase
    # When they expired (ISO-8601).
    at: str
    # How many are blocked, so that their seats can lapse.
    lapsing: int
    # How many were neither redeemed nor blocked.
    unsettled: int


def decide(
    terms: PassOn | None, record: DrawRecord | None, expired: Callable[[], Sequence[Expired]], now: float
) -> RoundDecision:
    """Whether a round begins now. `expired` counts all codes whose time is over, whatever the issuer's watermark; it is
    called only if the draw decides nothing. None as `terms`: a person asks, so that only what the codes say counts.
    """
    if record is None or not record.phases or record.is_over:
        return RoundDecision(RoundState.NONE, "there is no draw that counts")
    last = record.latest
    if not last.reached(PhaseStatus.COMPLETED):
        if last.round and not last.confirmed:
            if terms is not None and (found := last.gate.get("findings")):
                names = ", ".join(each["name"] for each in found)
                return RoundDecision(
                    RoundState.STOPPED, f"the gate found {names} in round {last.round}", last.phase
                )
            return RoundDecision(RoundState.DUE, f"round {last.round} goes on", last.phase)
        return RoundDecision(RoundState.WAITING, f"phase {last.phase} is {last.status}")
    if terms is not None:
        if rounds_of(record) >= terms.rounds:
            return RoundDecision(RoundState.NONE, f"all {terms.rounds} rounds are over")
        released = seconds(str(last.fields.get("releasedAt", ""))) or now
        if now < released + terms.every_hours * 3600:
            return RoundDecision(
                RoundState.WAITING, f"the next round is at {iso(released + terms.every_hours * 3600)}"
            )
    following = last.phase + 1
    open_ = [each for each in expired() if each.lapsing or each.unsettled]
    if not open_:
        return RoundDecision(RoundState.NONE, "no seat has lapsed")
    covered = [each for each in open_ if each.at <= record.complete_to]
    if not covered:
        at = min(each.at for each in open_)
        state = RoundState.STOPPED if now > (seconds(at) or now) + SILENT_SECONDS else RoundState.WAITING
        to = record.complete_to or "no time"
        return RoundDecision(
            state, f"codes expired at {at}, and the issuer has stated all redemptions up to {to}", following
        )
    if terms is not None and terms.is_quiet(now):
        return RoundDecision(RoundState.WAITING, f"it is quiet: {terms.quiet}")
    stated = seconds(str(record.redemptions.get("statedAt", ""))) or now
    ready = max(stated, *(seconds(each.at) or now for each in covered))
    unsettled = sum(each.unsettled for each in covered)
    if unsettled and now < ready + GRACE_SECONDS:
        return RoundDecision(
            RoundState.WAITING, f"the issuer has neither redeemed nor blocked {unsettled} codes"
        )
    if not any(each.lapsing for each in covered):
        return RoundDecision(
            RoundState.STOPPED, f"the issuer has neither redeemed nor blocked {unsettled} codes", following
        )
    return RoundDecision(RoundState.DUE, f"{sum(each.lapsing for each in covered)} seats lapse", following)


def rounds_of(record: DrawRecord) -> int:
    """How many rounds began."""
    return sum(bool(phase.round) for phase in record.phases.values())


def read_expired(runtime: Runtime, record: DrawRecord) -> list[Expired]:
    """Count the codes whose time is over, by market and phase. Raises TransientFailure."""
    now, found = iso(runtime.clock()), list[Expired]()
    for market in record.market_phases():
        at = record.codes_expire_at(market)
        if at and at <= now:
            lapsing, unsettled = runtime.codes.count_expired(market)
            found.append(Expired(market, at, lapsing, unsettled))
    return found


def round_of(runtime: Runtime, campaign: Campaign, *, asked: bool = False) -> RoundDecision:
    """What is to be done about the campaign's seats now. `asked`: by a person, at any time. Raises TransientFailure."""
    record = runtime.draws.light(campaign.campaign_id)
    terms = None if asked else campaign.pass_on
    decision = decide(terms, record, lambda: read_expired(runtime, record) if record else (), runtime.clock())
    if record is None or decision.state is not RoundState.DUE or decision.phase in record.phases:
        return decision
    lack = _lack(runtime, record, _covered(runtime, record))
    return RoundDecision(RoundState.STOPPED, lack, decision.phase) if lack else decision


def claim(runtime: Runtime, campaign: Campaign) -> TopUp:
    """Take the seats that lapse now, each by its code, and return the terms of their round. A repeat returns the terms
    of the round that was begun.

    Raises RequestError if no seat lapses, RoundStopped for too few fresh codes, TransientFailure.
    """
    # Late, for it brings DuckDB and pyarrow, which a sensor does not need.
    from regworkers_core.selection.draw.changes import next_phase

    campaign_id = campaign.campaign_id
    record = runtime.draws.get(campaign_id)
    if record is None or not record.phases:
        raise RequestError(f"{campaign_id} was not drawn yet: seats pass on after its draw")
    record.require_counts()
    phase = next_phase(record)
    struck = dict(record.phases[phase - 1].strikes)
    if phase not in record.phases:
        markets = _covered(runtime, record)
        if lack := _lack(runtime, record, markets):
            raise RoundStopped(campaign_id, lack)
        for market in markets:
            runtime.codes.pass_on(market, phase)
    refs = [ref for ref in runtime.codes.passed_on(campaign_id) if ref not in struck]
    if not refs:
        raise RequestError(
            f"no seat of {campaign_id} lapses: its code has to expire, the issuer has to block it, and to state all"
            " redemptions up to its end"
        )
    number = record.phases[phase].round if phase in record.phases else rounds_of(record) + 1
    strikes = tuple((ref, Outcome.UNCLAIMED.value) for ref in refs)
    return TopUp({}, {}, strikes, f"round {number}: seats that were not claimed in time pass on", number)


def _covered(runtime: Runtime, record: DrawRecord) -> list[MarketPhase]:
    """The markets and phases whose codes have expired, and all of whose redemptions were stated."""
    until = min(iso(runtime.clock()), record.complete_to)
    return [each for each in record.market_phases() if (at := record.codes_expire_at(each)) and at <= until]


def _lack(runtime: Runtime, record: DrawRecord, markets: Sequence[MarketPhase]) -> str:
    """Which market has fewer fresh codes than seats that lapse; empty: none."""
    needed = Counter[str]()
    for market in markets:
        needed[market.market_id] += runtime.codes.count_expired(market).lapsing
    for market_id, number in sorted(needed.items()):
        behind = record.highest_planned(market_id)
        fresh = runtime.codes.count_behind(record.campaign_id, market_id, behind, number)
        if fresh < number:
            return (
                f"market {market_id} needs {number:,} fresh codes and has {fresh:,}: import codes (`regworkers codes"
                " import`); no seat was taken"
            )
    return ""
