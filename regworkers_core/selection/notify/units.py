"""What may go out: completed markets with messages left, the locked counts, the canary, the stop switch.

Every answer is derived from durable records, so whichever sender comes next goes on where the last one ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regworkers_core.adapters.mongo.draws import DrawRecord, MarketStatus, PhaseRecord, PhaseStatus
from regworkers_core.domain.reasons import PermanentFailure, Reason
from regworkers_core.domain.selection import NON_WINNERS, NOTICES, MarketPhase, NoticeType, Outcome
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.runtime import Runtime
from regworkers_core.selection.notify.holding import is_settled


@dataclass(frozen=True, slots=True)
class Unit:
    """One completed market whose messages are not all sent, as the record said when it was read."""

    market: MarketPhase
    record: DrawRecord

    @property
    def phase(self) -> PhaseRecord:
        return self.record.phases[self.market.phase]

    @property
    def entry(self) -> Mapping[str, Any]:
        return self.phase.markets[self.market.market_id]

    @property
    def types(self) -> Counter[str]:
        """How many messages of each type the committed result asks for. In the first phase counted from the outcomes
        that were committed; a later one tells only what changed, which was counted when the phase was published.
        """
        if self.market.market_id != NON_WINNERS:
            return Counter({NoticeType.WINNER.value: int(self.entry["planned"])})
        if self.market.phase > 1:
            return Counter(self.entry["types"])
        types: Counter[str] = Counter()
        for outcome, number in self.phase.outcomes.items():
            kind = NOTICES.get(Outcome(outcome))
            if kind is not None and kind is not NoticeType.WINNER:
                types[kind.value] += number
        return types


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
                    units.append(Unit(MarketPhase(record.campaign_id, market_id, number), record))
    return sorted(units, key=_order)


def _order(unit: Unit) -> tuple[str, int, bool, str]:
    market = unit.market
    return market.campaign_id, market.phase, market.market_id == NON_WINNERS, market.market_id


def due_units(runtime: Runtime) -> list[Unit]:
    """Units that a sender has something to do for: a message that may go now by time, canary and stop switch, rows of
    which it is to be said what a later phase makes of them, or none left at all, which is to be noted. At most two
    cheap queries a unit: what a sensor asks.
    """
    now = runtime.clock()
    return [unit for unit in undelivered(runtime) if is_due(runtime, unit, now)]


def is_due(runtime: Runtime, unit: Unit, now: float) -> bool:
    """See `due_units`."""
    outbox, market = runtime.outbox, unit.market
    if unit.phase.fields["notBefore"] > iso(now):
        return False
    if not is_settled(unit.record):
        return True
    if held_until(runtime, unit) > now:
        in_canary = [kind for kind in +unit.types if canary_sent_at(unit, kind) is None]
        return any(outbox.due(market, iso(now), NoticeType(kind)) for kind in in_canary)
    return outbox.due(market, iso(now)) or not outbox.open(market)


def held_until(runtime: Runtime, unit: Unit) -> float:
    """Until when (epoch seconds) the canaries of the unit's types that are out hold up its rest; 0: they do not."""
    if not runtime.settings.selection.canary_messages:
        return 0.0
    sent = [seconds(at) for kind in +unit.types if (at := canary_sent_at(unit, kind)) is not None]
    last = max((at for at in sent if at is not None), default=None)
    return 0.0 if last is None else last + runtime.settings.selection.canary_hold_seconds


def canary_sent_at(unit: Unit, kind: str) -> str | None:
    """When the canary of a type of message was out in the unit's phase (ISO); None when it is not."""
    canary = (unit.record.notifications.get("canary") or {}).get(str(unit.market.phase)) or {}
    at = canary.get(kind) if isinstance(canary, Mapping) else canary
    return None if at is None else str(at)


def canary_left(runtime: Runtime, unit: Unit) -> dict[NoticeType, int]:
    """How many messages of each of the unit's types its canary still has to send; a type whose canary is out (or that
    has none) is left out. The types of a phase share `canaryMessages`.

    Counted from the rows, so that a crash between a send and its note sends no second canary.
    """
    size = runtime.settings.selection.canary_messages
    waiting = [kind for kind in +unit.types if canary_sent_at(unit, kind) is None] if size else []
    if not waiting:
        return {}
    campaign_id, phase = unit.market.campaign_id, unit.market.phase
    of_phase = [
        Unit(MarketPhase(campaign_id, market_id, phase), unit.record) for market_id in unit.phase.markets
    ]
    kinds = {kind for each in of_phase for kind in +each.types}
    share = -(-size // len(kinds))
    left: dict[NoticeType, int] = {}
    for kind in map(NoticeType, waiting):
        ours = [each for each in of_phase if each.types[kind]]
        sent = _sent(runtime, ours, kind, share)
        if sent >= share or sent + _withdrawn(runtime, ours, kind) >= sum(each.types[kind] for each in ours):
            runtime.draw_markets.canary_sent(campaign_id, phase, kind, iso(runtime.clock()))
        else:
            left[kind] = share - sent
    return left


def _sent(runtime: Runtime, units: list[Unit], kind: NoticeType, limit: int) -> int:
    sent = 0
    for unit in units:
        sent += runtime.outbox.count_sent(unit.market, kind, limit)
        if sent >= limit:
            break
    return sent


def _withdrawn(runtime: Runtime, units: list[Unit], kind: NoticeType) -> int:
    return sum(runtime.outbox.count_withdrawn(unit.market, kind) for unit in units)


def lock(runtime: Runtime, unit: Unit) -> None:
    """Before the first message of a unit: its rows must be exactly those that the committed result asks for.

    Raises PermanentFailure COUNT_MISMATCH with the numbers: nothing of this campaign may go out then.
    """
    if "lockedAt" in unit.entry:
        return
    found = runtime.outbox.count_by(unit.market, "type")
    hashes = runtime.outbox.count_by(unit.market, "resultHash")
    strange = hashes.total() - hashes[unit.phase.result_hash]
    expected = unit.types
    if strange or +found != +expected:
        raise PermanentFailure(
            Reason.COUNT_MISMATCH,
            f"counts locked: {unit.market} has {_told(found)} in the outbox, {strange} of another result;"
            f" the committed result asks for {_told(expected)}",
        )
    runtime.draw_markets.lock(unit.market, iso(runtime.clock()))


def to_lock(record: DrawRecord) -> PhaseRecord | None:
    """The latest confirmed phase, if all its markets are complete and its counts are not locked yet."""
    if record.annulled or not record.is_kept:
        return None
    confirmed = [phase for phase in record.phases.values() if "confirmedAt" in phase.fields]
    latest = confirmed[-1] if confirmed else None
    if latest is None or not latest.reached(PhaseStatus.COMPLETED) or "countsLockedAt" in latest.fields:
        return None
    return latest


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()) if number) or "nothing"
