"""Decides which messages of the outbox may be sent: completed markets, later phases, locked counts, the canary, and the
operator's switch, which pauses and resumes them.

A message that a later phase changes waits while that phase is drawn but not confirmed, and is superseded by its
confirmation. Phases are drawn and confirmed, and messages sent, only under the draw's lease. So a message was either
sent before the phase was drawn, or it waits; a superseded message is never sent. Every step can be repeated, and every
answer is derived from durable records, so that the next sender continues where the last one ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regworkers_core.adapters.mongo.draws import DrawRecord, MarketStatus, PhaseRecord, PhaseStatus
from regworkers_core.adapters.mongo.outbox import SOURCE
from regworkers_core.domain.keys import quoted
from regworkers_core.domain.reasons import PermanentFailure, Reason, UsageError
from regworkers_core.domain.selection import NON_WINNERS, NOTICES, MarketPhase, NoticeType, Outcome
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.runtime import Runtime

# When the rows that the phase changes were held, and when they were superseded: fields of a phase.
HELD_AT, SUPERSEDED_AT = "messagesHeldAt", "messagesSupersededAt"


def is_settled(record: DrawRecord) -> bool:
    """Return whether all rows that a drawn phase changes are held or superseded; true for an annulled draw."""
    return bool(record.annulled) or not any(
        _to_hold(phase) or _to_supersede(phase) for phase in record.phases.values()
    )


def settle(runtime: Runtime, campaign_id: str, *, token: int) -> None:
    """Hold and supersede the rows that later phases change. The caller holds the draw's lease, with this token.

    Raises Fenced, TransientFailure, PermanentFailure if the result of the phase is not the committed one.
    """
    record = runtime.draws.get(campaign_id)
    if record is None or is_settled(record):
        return
    for phase in record.phases.values():
        if _to_hold(phase):
            _hold(runtime, record, phase)
            at = iso(runtime.clock())
            runtime.draws.decide(campaign_id, phase.phase, {HELD_AT: at}, token=token)
        if _to_supersede(phase):
            at = iso(runtime.clock())
            for market in record.market_phases(before=phase.phase):
                runtime.outbox.supersede(market, why=f"phase {phase.phase}", at=at, held_for=phase.phase)
            runtime.draws.decide(campaign_id, phase.phase, {SUPERSEDED_AT: at}, token=token)


def _to_hold(phase: PhaseRecord) -> bool:
    return phase.phase > 1 and phase.reached(PhaseStatus.DRAWN) and HELD_AT not in phase.fields


def _to_supersede(phase: PhaseRecord) -> bool:
    return phase.phase > 1 and "confirmedAt" in phase.fields and SUPERSEDED_AT not in phase.fields


def _hold(runtime: Runtime, record: DrawRecord, phase: PhaseRecord) -> None:
    """Hold the rows of every changed ref in earlier phases, a page of refs at a time."""
    # A late import: it loads pyarrow and DuckDB, which a sender needs only here.
    from regworkers_core.selection.assign.committed import committed

    with committed(runtime, record.campaign_id, phase.phase, phase.fields) as result:
        for refs, markets in result.changed():
            runtime.outbox.hold(_keys(record.campaign_id, phase.phase, refs, markets), phase.phase)


def _keys(campaign_id: str, phase: int, refs: Sequence[str], markets: Sequence[str]) -> list[str]:
    """Return the keys of the refs' rows; `markets` are those that they had won before, empty for none."""
    return [
        MarketPhase(campaign_id, market or NON_WINNERS, earlier).key(ref)
        for ref, market in zip(refs, markets, strict=True)
        for earlier in range(1, phase)
    ]


@dataclass(frozen=True, slots=True)
class Unit:
    """One completed market whose messages are not all sent, with the draw's record as it was read."""

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
        """The number of messages of each type that the committed result requires. In the first phase it follows from
        the outcomes; a later phase notifies only of changes, which were counted when the phase was published.
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
    """Return the units of all campaigns that are not paused: winners before the others, earlier phases first.

    A market that waits for codes delays no other market's messages.
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
    return sorted(
        units,
        key=lambda unit: (
            unit.market.campaign_id,
            unit.market.phase,
            unit.market.market_id == NON_WINNERS,
            unit.market.market_id,
        ),
    )


def due_units(runtime: Runtime) -> list[Unit]:
    """Return the units with work for a sender: a message that may be sent now by time, canary and switch; rows that a
    later phase has to hold or supersede; or no open row, so that the unit is delivered. At most two cheap queries per
    unit, for sensors.
    """
    now = runtime.clock()
    return [unit for unit in undelivered(runtime) if is_due(runtime, unit, now)]


def is_due(runtime: Runtime, unit: Unit, now: float) -> bool:
    """Return whether a unit has work for a sender; see `due_units`."""
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
    """Return until when (epoch seconds) the unit's other messages wait after its canaries were sent; 0: no wait."""
    if not runtime.settings.selection.canary_messages:
        return 0.0
    sent = [seconds(at) for kind in +unit.types if (at := canary_sent_at(unit, kind)) is not None]
    last = max((at for at in sent if at is not None), default=None)
    return 0.0 if last is None else last + runtime.settings.selection.canary_hold_seconds


def canary_sent_at(unit: Unit, kind: str) -> str | None:
    """Return when the canary of a type was completely sent in the unit's phase (ISO-8601), or None."""
    canary = (unit.record.notifications.get("canary") or {}).get(str(unit.market.phase)) or {}
    at = canary.get(kind) if isinstance(canary, Mapping) else canary
    return None if at is None else str(at)


def canary_left(runtime: Runtime, unit: Unit) -> dict[NoticeType, int]:
    """Return how many messages of each of the unit's types its canary still has to send; types whose canary is sent are
    left out. The types of a phase share `canaryMessages`.

    Counted from the rows, so that a crash between a send and its record sends no second canary.
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
    """Check, before the first message of a unit, that its rows are exactly those that the committed result requires.

    Raises PermanentFailure COUNT_MISMATCH with the numbers: then no message of this campaign may be sent.
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
            f"counts locked: {unit.market} has {_listed(found)} in the outbox, {strange} of another result;"
            f" the committed result asks for {_listed(expected)}",
        )
    runtime.draw_markets.lock(unit.market, iso(runtime.clock()))


def to_lock(record: DrawRecord) -> PhaseRecord | None:
    """Return the latest confirmed phase if all its markets are complete and its counts are not locked yet."""
    if record.annulled or not record.is_kept:
        return None
    confirmed = [phase for phase in record.phases.values() if "confirmedAt" in phase.fields]
    latest = confirmed[-1] if confirmed else None
    if latest is None or not latest.reached(PhaseStatus.COMPLETED) or "countsLockedAt" in latest.fields:
        return None
    return latest


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()) if number) or "nothing"


def pause(runtime: Runtime, campaign_id: str | None, *, reason: str, by: str) -> dict[str, Any]:
    """Stop queueing messages for the mailer, of this campaign or (None) of all. Messages that are queued are still
    sent.

    Raises UsageError for a campaign without a draw.
    """
    at = iso(runtime.clock())
    if campaign_id is None:
        runtime.draw_markets.switch_all(paused=True, reason=reason, by=by, at=at)
    elif not runtime.draw_markets.pause(campaign_id, reason=reason, by=by, at=at):
        raise no_draw(campaign_id)
    return _switched(campaign_id, True, reason, by, at)


def resume(runtime: Runtime, campaign_id: str | None, *, reason: str, by: str) -> dict[str, Any]:
    """Resume messages. The dead letters that the mailer's queue has now are tolerated: only more of them pause the
    campaign again. Raises UsageError for a campaign without a draw.
    """
    at, names = iso(runtime.clock()), runtime.names
    answer = _switched(campaign_id, False, reason, by, at)
    if campaign_id is None:
        runtime.draw_markets.switch_all(paused=False, reason=reason, by=by, at=at)
        return answer
    dead = runtime.queue(names.dead_letter_queue(names.notification_queue)).depth().total
    if not runtime.draw_markets.resume(campaign_id, reason=reason, by=by, at=at, tolerated=dead):
        raise no_draw(campaign_id)
    return {**answer, "toleratedDeadLetters": dead}


def _switched(campaign_id: str | None, paused: bool, reason: str, by: str, at: str) -> dict[str, Any]:
    return {"campaignId": campaign_id, "paused": paused, "reason": reason, "by": by, "at": at}


def retry(runtime: Runtime, campaign_id: str, *, by: str) -> dict[str, Any]:
    """Retry the FAILED messages, and close their dead letters. Raises UsageError for a campaign without a draw."""
    record = runtime.draws.light(campaign_id)
    if record is None:
        raise no_draw(campaign_id)
    at = iso(runtime.clock())
    rows = sum(runtime.outbox.retry(market) for market in record.market_phases())
    of_campaign = {"queue": SOURCE, "campaignId": campaign_id}
    closed = runtime.dead_letters.close_all(of_campaign, "resolved", before=at, at=at, by=by)
    return {"campaignId": campaign_id, "messages": rows, "deadLettersClosed": closed}


def no_draw(campaign_id: str) -> UsageError:
    """Return the error of an act on messages that need a draw first."""
    return UsageError(
        f"campaign {quoted(campaign_id)} has no draw, so it has no messages yet; to stop all campaigns, run "
        "`regworkers notifications pause --all`, or pause_notifications with `everything: true`"
    )
