"""The decisions of the selection's sensors: pure functions of what they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from regworkers_core.adapters.mongo.draws import PhaseRecord, PhaseStatus, works_on_draw
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.engine.leases import LeaseRow
from regworkers_core.selection.assign.market_states import StalledMarket
from regworkers_dagster.drains.decisions import pause_after_crashes

# After this many failures in a row a draw has a defect, or the beacon is unavailable: it is retried slowly, because
# either may end at any time.
MAX_FAILURES, SLOW_SECONDS = 5, 900.0
# Phases that completed earlier were checked before, or are checked by hand.
CHECKED_WITHIN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class DrawRuns:
    """The runs of one campaign's draw: whether one is active, how many failed in a row and how long ago the last
    failed, and whether an operator terminated the last one.
    """

    active: bool = False
    failed: int = 0
    seconds_since_failure: float = 0.0
    terminated: bool = False


@dataclass(frozen=True, slots=True)
class DrawDecision:
    """Whether to start a run of the draw; `reason` says why, or why not."""

    start: bool
    reason: str


def is_over(campaign: Campaign, now: str) -> bool:
    """Whether a campaign takes no more entries: it is closed, or its time has passed and it closes automatically. `now`
    is in the format of the campaign's times.
    """
    if campaign.status is CampaignStatus.OPEN:
        return campaign.auto_draw and campaign.closes_at <= now
    return not campaign.status.is_before(CampaignStatus.CLOSED)


def draw_due(
    campaign: Campaign, phase: PhaseRecord | None, *, auto_publish: bool
) -> Literal["draw", "resume"] | None:
    """What the draw of a campaign that is over needs if no run works on it: its first run, a run that resumes it, or
    none. The first run closes a campaign that is still open.

    `phase` is the latest one. A phase that waits for a confirmation needs a person and no run; after its publication
    the sensor `watch_markets` looks after its markets.
    """
    if campaign.status in (CampaignStatus.OPEN, CampaignStatus.CLOSED):
        return "draw" if campaign.auto_draw else None
    if campaign.status not in (CampaignStatus.PROCESSING, CampaignStatus.COMPLETED):
        return None
    if phase is None:
        return "resume" if campaign.status is CampaignStatus.PROCESSING else None
    if phase.reached(PhaseStatus.PUBLISHED):
        return None
    if "report" in phase.fields and not phase.confirmed and (not auto_publish or phase.gate.get("findings")):
        # `autoPublish` publishes nothing with a finding of the gate.
        return None
    return "resume"


def start_draw(
    due: Literal["draw", "resume"],
    *,
    runs: DrawRuns,
    lease_alive: bool,
    seconds_to_round: float | None = None,
) -> DrawDecision:
    """Whether a due draw is started now. `seconds_to_round` is the time until the beacon signs the round that the draw
    waits for; None when it waits for none.
    """
    if seconds_to_round is not None and seconds_to_round > 0:
        return DrawDecision(False, f"waits for its round of the beacon, due in {seconds_to_round:.0f} s")
    if runs.active:
        return DrawDecision(False, "a run is active")
    if lease_alive:
        return DrawDecision(False, "another run holds its lease")
    if runs.terminated:
        return DrawDecision(False, "its last run was terminated: launch `draw` to resume it")
    pause = pause_after_crashes(runs.failed, runs.seconds_since_failure)
    if runs.failed >= MAX_FAILURES:
        pause = max(0.0, SLOW_SECONDS - runs.seconds_since_failure)
    if pause:
        return DrawDecision(False, f"its last {runs.failed} runs failed; the next start is in {pause:.0f} s")
    if due == "draw":
        return DrawDecision(True, "its time is over")
    return DrawDecision(
        True, "its run died" if seconds_to_round is None else "its round of the beacon is due"
    )


@dataclass(frozen=True, slots=True)
class LeaseMark:
    """A lease as an observer saw it, and since when (epoch seconds) it is unchanged."""

    mark: str
    since: float


def observe_lease(
    row: LeaseRow | None, known: LeaseMark | None, *, now: float, lease_seconds: float
) -> tuple[bool, LeaseMark | None]:
    """Whether a run holds a draw's lease, and what to remember of it. The lease counts as alive until this observer has
    seen its counter unchanged for one lease time. A sender of messages under the lease is not a run.
    """
    if row is None or not works_on_draw(row.owner):
        return False, None
    mark = f"{row.owner}/{row.token}/{row.counter}"
    if known is None or known.mark != mark:
        return True, LeaseMark(mark, now)
    return now - known.since < lease_seconds, known


def retries(
    found: Sequence[StalledMarket],
    *,
    queued: int,
    active: frozenset[str],
    pauses: Mapping[str, float],
    limit: int,
) -> list[StalledMarket]:
    """The stalled markets that get a retry. While the queue holds messages (`queued`), lost chunks may be among them,
    so they are not retried. `active` are the markets with an active retry, `pauses` the seconds to wait after failed
    retries, both by `<campaignId>:<marketId>:<phase>`.
    """
    wanted = [
        each
        for each in found
        if each.market.prefix[:-1] not in active
        and not pauses.get(each.market.prefix[:-1])
        and not (each.why == "chunks" and queued)
    ]
    return wanted[:limit]


def to_check(phases: Sequence[tuple[str, PhaseRecord, float | None]], now: float) -> list[tuple[str, int]]:
    """The campaigns and phases to check now: those that completed recently. The third of each is the time of the
    completion in epoch seconds.
    """
    return [
        (campaign_id, phase.phase)
        for campaign_id, phase, completed in phases
        if completed is not None and now - completed <= CHECKED_WITHIN_SECONDS
    ]
