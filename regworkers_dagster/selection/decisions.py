"""What the sensors of the selection decide: pure functions of what they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from regworkers_core.adapters.mongo.draws import PhaseRecord, PhaseStatus, works_on_draw
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.engine.leases import LeaseRow
from regworkers_core.selection.assign.standing import Standing
from regworkers_dagster.drains.decisions import pause_after_crashes

# A draw that fails so often in a row has a defect that needs a person, or the beacon is away: it is tried slowly from
# then on, for either may be over at any time.
MAX_FAILURES, SLOW_SECONDS = 5, 900.0
# How long a completed phase is worth a check. Older ones were checked, or are checked by hand.
CHECKED_WITHIN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class DrawRuns:
    """The runs of one campaign's draw: whether one is active, how many failed in a row and how long ago the last
    one did, and whether somebody terminated the last one.
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
    """Whether a campaign takes no entries any more: it is closed, or its time has passed and nobody needs to
    close it by hand. `now` as the campaign writes its times.
    """
    if campaign.status is CampaignStatus.OPEN:
        return campaign.auto_draw and campaign.closes_at <= now
    return not campaign.status.is_before(CampaignStatus.CLOSED)


def draw_due(
    campaign: Campaign, phase: PhaseRecord | None, *, auto_publish: bool
) -> Literal["draw", "resume"] | None:
    """What the draw of a campaign that is over needs, if nobody works on it: its first run, to be taken up
    again, or nothing. A first run closes what is still open.

    `phase` is the latest one. A phase that waits for a confirmation needs a person and no run; from its
    publication on its markets are looked after by themselves.
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
        # The settings publish nothing that the gate has found something about.
        return None
    return "resume"


def start_draw(
    due: Literal["draw", "resume"],
    *,
    runs: DrawRuns,
    lease_alive: bool,
    seconds_to_round: float | None = None,
) -> DrawDecision:
    """Whether a draw that is due is started now. `seconds_to_round`: until the beacon signs the round that it waits
    for; None when it waits for none.
    """
    if seconds_to_round is not None and seconds_to_round > 0:
        return DrawDecision(False, f"waits for its round of the beacon, due in {seconds_to_round:.0f} s")
    if runs.active:
        return DrawDecision(False, "a run is at work")
    if lease_alive:
        return DrawDecision(False, "somebody holds its lease")
    if runs.terminated:
        return DrawDecision(False, "its last run was terminated: launch `draw` to go on")
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
    """A lease as an observer saw it, and since when (epoch seconds) it looks so."""

    mark: str
    since: float


def observe_lease(
    row: LeaseRow | None, known: LeaseMark | None, *, now: float, lease_seconds: float
) -> tuple[bool, LeaseMark | None]:
    """Whether a run holds a draw's lease, and what to remember of it. It is taken for alive until its counter stood
    still for one lease time before this observer's eyes. A sender of messages under the lease is no run.
    """
    if row is None or not works_on_draw(row.owner):
        return False, None
    mark = f"{row.owner}/{row.token}/{row.counter}"
    if known is None or known.mark != mark:
        return True, LeaseMark(mark, now)
    return now - known.since < lease_seconds, known


def retries(
    found: Sequence[Standing],
    *,
    queued: int,
    active: frozenset[str],
    pauses: Mapping[str, float],
    limit: int,
) -> list[Standing]:
    """Which of the markets that stand still get a retry. Chunks that may still lie on the queue (`queued`
    messages) are left to it; `active` are the markets with a retry at work, `pauses` the seconds that those
    still wait whose last retries failed, both by `<campaignId>:<marketId>:<phase>`.
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
    """Campaigns and phases whose promises are to be judged now: completed a while ago at most. The third of each
    is the time of the completion in epoch seconds.
    """
    return [
        (campaign_id, phase.phase)
        for campaign_id, phase, completed in phases
        if completed is not None and now - completed <= CHECKED_WITHIN_SECONDS
    ]
