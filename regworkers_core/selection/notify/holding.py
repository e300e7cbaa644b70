"""What a later phase changes waits while that phase is drawn and not confirmed, and is superseded by its confirmation.

All of it happens under the draw's lease, under which alone a phase is drawn and confirmed and messages are sent. So a
message either went out before the phase was drawn, or it waits; what is confirmed is never sent before it is
superseded. Every step can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord, PhaseStatus
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime

# When the rows that the phase changes were held, and when they were superseded: fields of a phase.
HELD_AT, SUPERSEDED_AT = "messagesHeldAt", "messagesSupersededAt"


def is_settled(record: DrawRecord) -> bool:
    """Whether all rows wait, or are superseded, that a drawn phase changes. Of an annulled draw none goes out."""
    return bool(record.annulled) or not any(
        _to_hold(phase) or _to_supersede(phase) for phase in record.phases.values()
    )


def settle(runtime: Runtime, campaign_id: str, *, token: int) -> None:
    """Hold and supersede what is to be. The caller holds the draw's lease, with this token.

    Raises Fenced, TransientFailure, PermanentFailure when the result of the phase is not the committed one.
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
            for market in markets_of(record, before=phase.phase):
                runtime.outbox.supersede(market, why=f"phase {phase.phase}", at=at, held_for=phase.phase)
            runtime.draws.decide(campaign_id, phase.phase, {SUPERSEDED_AT: at}, token=token)


def markets_of(record: DrawRecord, *, before: int | None = None) -> list[MarketPhase]:
    """All that owe messages, those of earlier phases than `before` if that is given."""
    return [
        MarketPhase(record.campaign_id, market_id, number)
        for number, phase in record.phases.items()
        if before is None or number < before
        for market_id in phase.markets
    ]


def supersede_all(runtime: Runtime, record: DrawRecord, *, why: str, at: str) -> int:
    """Nothing of this draw that is not sent goes out any more; how many messages that are. The caller holds the draw's
    lease.
    """
    return sum(runtime.outbox.supersede(market, why=why, at=at) for market in markets_of(record))


def _to_hold(phase: PhaseRecord) -> bool:
    return phase.phase > 1 and phase.reached(PhaseStatus.DRAWN) and HELD_AT not in phase.fields


def _to_supersede(phase: PhaseRecord) -> bool:
    return phase.phase > 1 and "confirmedAt" in phase.fields and SUPERSEDED_AT not in phase.fields


def _hold(runtime: Runtime, record: DrawRecord, phase: PhaseRecord) -> None:
    """A page of refs at a time, with the keys of every row in which an earlier phase may have said what changes."""
    # Late: it brings pyarrow and DuckDB, which a sender needs for this alone.
    from regworkers_core.selection.assign.committed import committed

    with committed(runtime, record.campaign_id, phase.phase, phase.fields) as result:
        for refs, markets in result.changed():
            runtime.outbox.hold(_keys(record.campaign_id, phase.phase, refs, markets), phase.phase)


def _keys(campaign_id: str, phase: int, refs: Sequence[str], markets: Sequence[str]) -> list[str]:
    """`markets` are those that they had won before, empty for none."""
    return [
        MarketPhase(campaign_id, market or NON_WINNERS, earlier).key(ref)
        for ref, market in zip(refs, markets, strict=True)
        for earlier in range(1, phase)
    ]
