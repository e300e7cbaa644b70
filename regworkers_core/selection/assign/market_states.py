"""What of the assignment stands still and what would get it going again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from regworkers_core.adapters.mongo.draws import (
    DrawRecord,
    MarketStatus,
    PhaseRecord,
    PhaseStatus,
    lease_name,
)
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import LeaseHolder
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


# A chunk that nobody worked on for so many visibility times was lost on its way.
_LOST_VISIBILITIES = 3
# What a draw does next once a phase has come so far.
_NEXT_STEP = {
    PhaseStatus.OPENED: "judge and freeze",
    PhaseStatus.FROZEN: "commit",
    PhaseStatus.COMMITTED: "seed",
    PhaseStatus.SEEDED: "rank",
    PhaseStatus.RANKED: "allocate",
    PhaseStatus.DRAWN: "report, confirm and publish",
    PhaseStatus.PUBLISHED: "assign codes",
}


@dataclass(frozen=True, slots=True)
class MarketState:
    """One market of one phase. `why` is empty for one that is complete or under way; `retry` tells whether
    `retry_market` gets it going; `chunks` and `failed` count those that are open and those given up.
    """

    market: MarketPhase
    status: str
    why: str = ""
    retry: bool = False
    chunks: int = 0
    failed: int = 0
    first_failed: int | None = None

    def as_row(self) -> dict[str, Any]:
        market = self.market
        return {
            "campaign": market.campaign_id,
            "phase": market.phase,
            "market": "others" if market.market_id == NON_WINNERS else market.market_id,
            "status": self.status,
            "why": self.why,
            "openChunks": self.chunks,
            "failedChunks": self.failed,
            "firstFailedChunk": self.first_failed,
            "retryHelps": self.retry,
        }


@dataclass(frozen=True, slots=True)
class DrawState:
    """How a draw stands: `step` is what comes next of the phase at work, empty when all is complete. `lease_owner` is
    the run that says it works on it, `last_run` the one that moved the campaign last.
    """

    campaign_id: str
    campaign_status: str
    step: str
    lease_owner: str
    lease_token: int
    last_run: str
    last_change: str
    markets: tuple[MarketState, ...]

    def as_row(self) -> dict[str, Any]:
        return {
            "campaign": self.campaign_id,
            "status": self.campaign_status,
            "nextStep": self.step,
            "leaseOwner": self.lease_owner,
            "leaseToken": self.lease_token,
            "lastRun": self.last_run,
            "lastChange": self.last_change,
        }


def explain(runtime: Runtime, campaign: Campaign) -> DrawState:
    """Of one campaign. Raises TransientFailure."""
    campaign_id = campaign.campaign_id
    record = runtime.draws.get(campaign_id)
    row = runtime.leases.get(LeaseHolder.key_of(lease_name(campaign_id)))
    last = campaign.transitions[-1] if campaign.transitions else None
    lost_before = iso(runtime.clock() - _LOST_VISIBILITIES * runtime.settings.selection.visibility_seconds)
    return DrawState(
        campaign_id,
        campaign.status.value,
        _step(record),
        row.owner if row else "",
        row.token if row else 0,
        last.run_id if last else "",
        last.at if last else "",
        tuple(
            _state_of(runtime, record, MarketPhase(campaign_id, market_id, number), lost_before)
            for record in ([record] if record and not record.annulled else ())
            for number, phase in record.phases.items()
            for market_id in phase.markets
        ),
    )


def _step(record: DrawRecord | None) -> str:
    if record is None or not record.phases:
        return "draw"
    if record.annulled:
        return ""
    open_phases = [phase for phase in record.phases.values() if phase.status is not PhaseStatus.COMPLETED]
    if not open_phases:
        return ""
    due = open_phases[0].round_due
    waits = "" if due is None else f": round {open_phases[0].awaited_round} of the beacon, due {iso(due)}"
    return _NEXT_STEP[open_phases[0].status] + waits


def _state_of(runtime: Runtime, record: DrawRecord, market: MarketPhase, lost_before: str) -> MarketState:
    phase = record.phases[market.phase]
    entry = phase.markets[market.market_id]
    status = MarketStatus(entry["status"])
    if status is MarketStatus.COMPLETED:
        if phase.status is PhaseStatus.PUBLISHED and waits_to_finish(phase):
            return MarketState(
                market, status, "all markets are complete and nobody completed the phase", True
            )
        return MarketState(market, status)
    if status is MarketStatus.BLOCKED:
        needed, available = entry.get("needed"), entry.get("available")
        if enough_codes(runtime, record, market):
            return MarketState(market, status, f"it waited for {needed} codes, and they are there now", True)
        return MarketState(market, status, f"it needs {needed} codes and had {available}")
    if status is MarketStatus.PENDING:
        return MarketState(market, status, "its chunks were never planned", True)
    rows = runtime.chunks.open(market)
    failed = [row for row in rows if row.get("failedAt")]
    if failed:
        text = f"{len(failed)} chunks became dead letters, the first with: {failed[0].get('failure')}"
        return MarketState(market, status, text, True, len(rows), len(failed), failed[0].get("chunk"))
    if not rows:
        late = runtime.chunks.last_done_at(market) < lost_before
        return MarketState(
            market, status, "all chunks are done and nobody completed it" if late else "", late
        )
    lost = runtime.chunks.waits_since(market, lost_before)
    return MarketState(market, status, "chunks were lost on their way" if lost else "", lost, len(rows))


def blocked_lines(campaign_id: str, markets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each of `markets` (by id, as a phase's record has them) of which no code is given yet, because
    there are too few.
    """
    return [
        f"market {market_id} waits for codes, {entry.get('needed')} needed and {entry.get('available')} there: "
        f"`regworkers codes import <csv> --campaign {campaign_id} --market {market_id}`"
        for market_id, entry in markets.items()
        if entry.get("status") == MarketStatus.BLOCKED
    ]
