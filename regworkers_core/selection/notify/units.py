"""What may go out: completed markets with messages left, the locked counts, the canary, the stop switch.

Every answer is derived from durable records, so whichever sender comes next goes on where the last one ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regworkers_core.adapters.mongo.draws import MarketStatus, PhaseRecord, PhaseStatus
from regworkers_core.domain.reasons import PermanentFailure, Reason
from regworkers_core.domain.selection import NON_WINNERS, NOTICES, MarketPhase, NoticeType, Outcome
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Unit:
    """One completed market whose messages are not all sent. `phase` is its record as it was read."""

    market: MarketPhase
    phase: PhaseRecord

    @property
    def entry(self) -> Mapping[str, Any]:
        return self.phase.markets[self.market.market_id]


def undelivered(runtime: Runtime) -> list[Unit]:
    """Units of all campaigns that nobody paused: winners before the others, earlier phases before later ones.

    A market that still waits for codes holds up nobody else's message.
    """
    if runtime.draw_markets.all_switch().get("paused"):
        return []
    units = []
    for record in runtime.draws.all():
        if record.notifications.get("paused"):
            continue
        for number, phase in record.phases.items():
            if not phase.reached(PhaseStatus.PUBLISHED):
                continue
            for market_id, entry in phase.markets.items():
                if entry["status"] == MarketStatus.COMPLETED and "deliveredAt" not in entry:
                    units.append(Unit(MarketPhase(record.campaign_id, market_id, number), phase))
    return sorted(units, key=_order)


def _order(unit: Unit) -> tuple[str, int, bool, str]:
    market = unit.market
    return market.campaign_id, market.phase, market.market_id == NON_WINNERS, market.market_id


def due_units(runtime: Runtime) -> list[Unit]:
    """Units with a message that may go now, by time, canary and stop switch: what a sensor asks."""
    now = runtime.clock()
    return [
        unit
        for unit in undelivered(runtime)
        if unit.phase.fields["notBefore"] <= iso(now) and held_until(runtime, unit) <= now
    ]


def held_until(runtime: Runtime, unit: Unit) -> float:
    """Until when (epoch seconds) the canary of the unit's phase holds up the rest; 0 when it does not."""
    if not runtime.settings.selection.canary_messages:
        return 0.0
    canary = runtime.draw_markets.switch(unit.market.campaign_id).get("canary") or {}
    at = canary.get(str(unit.market.phase))
    sent_at = seconds(at) if isinstance(at, str) else None
    return 0.0 if sent_at is None else sent_at + runtime.settings.selection.canary_hold_seconds


def canary_left(runtime: Runtime, unit: Unit) -> int | None:
    """How many messages of the canary are still to be sent; None once it is out (or there is none).

    Counted from the rows, so that a crash between a send and its note sends no second canary.
    """
    size = runtime.settings.selection.canary_messages
    market = unit.market
    canary = runtime.draw_markets.switch(market.campaign_id).get("canary") or {}
    if not size or str(market.phase) in canary:
        return None
    sent = 0
    for market_id in unit.phase.markets:
        sent += runtime.outbox.count_sent(MarketPhase(market.campaign_id, market_id, market.phase), size)
        if sent >= size:
            runtime.draw_markets.canary_sent(market.campaign_id, market.phase, iso(runtime.clock()))
            return None
    return size - sent


def lock(runtime: Runtime, unit: Unit) -> None:
    """Before the first message of a unit: its rows must be exactly those that the committed result asks for.

    Raises PermanentFailure COUNT_MISMATCH with the numbers: nothing of this campaign may go out then.
    """
    if "lockedAt" in unit.entry:
        return
    found = runtime.outbox.count_by(unit.market, "type")
    hashes = runtime.outbox.count_by(unit.market, "resultHash")
    strange = hashes.total() - hashes[unit.phase.result_hash]
    expected = _expected(unit)
    if strange or +found != +expected:
        raise PermanentFailure(
            Reason.COUNT_MISMATCH,
            f"counts locked: {unit.market} has {_told(found)} in the outbox, {strange} of another result;"
            f" the committed result asks for {_told(expected)}",
        )
    runtime.draw_markets.lock(unit.market, iso(runtime.clock()))


def _expected(unit: Unit) -> Counter[str]:
    """Messages by type. In the first phase counted from the outcomes that were committed; a later one tells only
    what changed, which was counted when the phase was published.
    """
    if unit.market.market_id != NON_WINNERS:
        return Counter({NoticeType.WINNER.value: int(unit.entry["planned"])})
    if unit.market.phase > 1:
        return Counter(unit.entry["types"])
    expected: Counter[str] = Counter()
    for outcome, number in unit.phase.outcomes.items():
        kind = NOTICES.get(Outcome(outcome))
        if kind is not None and kind is not NoticeType.WINNER:
            expected[kind.value] += number
    return expected


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()) if number) or "nothing"
