"""Why each market of a campaign's draw is where it is, and whether a retry helps: reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regworkers_core.adapters.mongo.draws import DrawRecord, MarketStatus, PhaseStatus, lease_name
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.completion import waits_to_finish
from regworkers_core.selection.assign.release import enough_codes

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
            _market(runtime, record, MarketPhase(campaign_id, market_id, number), lost_before)
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


def _market(runtime: Runtime, record: DrawRecord, market: MarketPhase, lost_before: str) -> MarketState:
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
