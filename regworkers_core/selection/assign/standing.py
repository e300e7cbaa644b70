"""What of the assignment stands still and what would get it going again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regworkers_core.adapters.mongo.draws import DrawRecord, MarketStatus, PhaseRecord, PhaseStatus
from regworkers_core.domain.selection import MarketPhase
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.completion import waits_to_finish
from regworkers_core.selection.assign.release import enough_codes


@dataclass(frozen=True, slots=True)
class Standing:
    """A market that does not go on by itself. `retry_market` helps each of these.

    `codes`: it waited for codes, and there are enough now. `chunks`: chunks were queued long ago, or never, and
    are neither done nor dead letters. `completion`: all is done and nobody completed it, or nobody completed the
    phase after its markets (then this is one of them).
    """

    market: MarketPhase
    why: Literal["codes", "chunks", "completion"]


def standing(runtime: Runtime, *, older_than_seconds: float) -> list[Standing]:
    """Every market that stands still. Few cheap reads for each market that is not complete; changes nothing."""
    before = iso(runtime.clock() - older_than_seconds)
    found = []
    for record in runtime.draws.all():
        if record.annulled:
            continue
        for number, phase in record.phases.items():
            if phase.status is not PhaseStatus.PUBLISHED or phase.fields.get("releasedAt", "") > before:
                continue
            if waits_to_finish(phase):
                if phase.markets and _last_completed(phase) < before:
                    market = MarketPhase(record.campaign_id, next(iter(phase.markets)), number)
                    found.append(Standing(market, "completion"))
                continue
            for market_id in phase.markets:
                market = MarketPhase(record.campaign_id, market_id, number)
                why = _why(runtime, record, market, before)
                if why is not None:
                    found.append(Standing(market, why))
    return found


def _last_completed(phase: PhaseRecord) -> str:
    return max(str(entry.get("completedAt") or "") for entry in phase.markets.values())


def _why(
    runtime: Runtime, record: DrawRecord, market: MarketPhase, before: str
) -> Literal["codes", "chunks", "completion"] | None:
    status = record.phases[market.phase].markets[market.market_id]["status"]
    if status == MarketStatus.BLOCKED:
        return "codes" if enough_codes(runtime, record, market) else None
    if status == MarketStatus.PENDING:
        return "chunks"
    if status == MarketStatus.ASSIGNING:
        if runtime.chunks.last_open(market) is None:
            return "completion" if runtime.chunks.last_done_at(market) < before else None
        return "chunks" if runtime.chunks.waits_since(market, before) else None
    return None
