"""The sensors that look after campaigns and their markets: they start and resume draws, start checks, and retry
markets. What they decide are pure functions of what they read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import dagster as dg
import orjson

from regworkers_core.adapters.mongo.draws import (
    DrawRecord,
    PhaseRecord,
    PhaseStatus,
    lease_name,
    works_on_draw,
)
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.selection import confirmation_word
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import LeaseHolder, LeaseRow
from regworkers_core.operation import Operation
from regworkers_core.operations.drawing import pass_on
from regworkers_core.operations.draws import retry
from regworkers_core.operations.health.scheduler import CAMPAIGN_TAG
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.opening import waits_for_log
from regworkers_core.selection.campaigns.operations import log as log_campaigns
from regworkers_core.selection.codes.operations import export as export_codes
from regworkers_core.selection.draw.passing_on import RoundState, round_of
from regworkers_dagster.drains.decisions import pause_after_crashes
from regworkers_dagster.drains.sensing import ACTIVE, Answer, crashes_in_a_row, ticking
from regworkers_dagster.factories import CAMPAIGN_PARTITIONS
from regworkers_dagster.runs import ENDED, MARKET_TAG, PARTITION_TAG
from regworkers_dagster.selection import specs

if TYPE_CHECKING:
    from regworkers_core.selection.assign.markets import StalledMarket

# After this many failures in a row a draw has a defect, or the beacon is unavailable: it is retried slowly, because
# either may end at any time.
MAX_FAILURES, SLOW_SECONDS = 5, 900.0


@dataclass(frozen=True, slots=True)
class DrawRuns:
    """The runs of one campaign's draw."""

    # Whether one is active.
    active: bool = False
    # How many failed in a row.
    failed: int = 0
    seconds_since_failure: float = 0.0
    # Whether an operator terminated the last one.
    terminated: bool = False


@dataclass(frozen=True, slots=True)
class CheckRuns:
    """The runs of the check of one campaign, as `DrawRuns`."""

    active: bool = False
    failed: int = 0
    seconds_since_failure: float = 0.0


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


class Observed(NamedTuple):
    alive: bool
    mark: LeaseMark | None


def observe_lease(
    row: LeaseRow | None, known: LeaseMark | None, *, now: float, lease_seconds: float
) -> Observed:
    """Whether a run holds a draw's lease, and what to remember of it. The lease counts as alive until this observer has
    seen its counter unchanged for one lease time. A sender of messages under the lease is not a run.
    """
    if row is None or not works_on_draw(row.owner):
        return Observed(False, None)
    mark = f"{row.owner}/{row.token}/{row.counter}"
    if known is None or known.mark != mark:
        return Observed(True, LeaseMark(mark, now))
    return Observed(now - known.since < lease_seconds, known)


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


def to_check(draws: Iterable[DrawRecord], runs: Callable[[str], CheckRuns]) -> list[str]:
    """The campaigns to check now: those with a phase that completed and was not judged since, by the record of their
    draw. `runs` reads the runs of the check that a sensor started for a campaign.
    """
    found = []
    for record in draws:
        if record.unjudged:
            known = runs(record.campaign_id)
            if not known.active and not pause_after_crashes(known.failed, known.seconds_since_failure):
                found.append(record.campaign_id)
    return found


# A tick requests a few runs at most: the next one follows soon.
_MAX_REQUESTS = 5
# The chunk of a drain that died returns to the queue after one visibility timeout, and another drain works on it.
_STALLED_VISIBILITIES = 3
# For how long a started run counts as active while it holds no lease, between two steps.
_BELIEVED_SECONDS = 600.0
# What *Materialize* decides a draw with; `eligibility_report` alone is a preview.
_DECIDING = frozenset(spec.key for spec in specs.STEPS) - {specs.ELIGIBILITY_REPORT.key}
_DRAW, _CHECK = specs.DRAW_JOB, "check_selection"


@ticking
def campaigns_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Read campaigns, draws and the leases of due draws; start the logging of campaigns, draws and checks, and add
    partitions.
    """
    now = iso(time.time())
    # A name that Dagster cannot take as a partition cannot be drawn either.
    known = [each for each in runtime.campaigns.list() if is_selection_id(each.campaign_id)]
    campaigns = [campaign for campaign in known if is_over(campaign, now)]
    draws = {record.campaign_id: record for record in runtime.draws.all()}
    requests, words, marks = _draws_to_start(context, runtime, campaigns, draws)
    requests += _checks_to_run(context.instance, draws.values(), time.time())
    # First, because fans enter meanwhile.
    requests[:0] = _logging_to_run(context.instance, runtime, known)
    added = _new_partitions(context.instance, [campaign.campaign_id for campaign in known])
    return dg.SensorResult(
        run_requests=requests[:_MAX_REQUESTS],
        dynamic_partitions_requests=[CAMPAIGN_PARTITIONS.build_add_request(added)] if added else [],
        cursor=_cursor(marks),
        # Dagster takes either requests or a reason.
        skip_reason=None if requests else "; ".join(words) or f"{len(campaigns)} are closed, no draw is due",
    )


class _Due(NamedTuple):
    requests: list[dg.RunRequest]
    words: list[str]  # the decision on each due draw
    marks: dict[str, LeaseMark]  # the leases that were seen


def _draws_to_start(
    context: dg.SensorEvaluationContext,
    runtime: Runtime,
    campaigns: Sequence[Campaign],
    draws: dict[str, DrawRecord],
) -> _Due:
    settings, now = runtime.settings.selection, time.time()
    known = lease_marks(context.cursor)
    requests: list[dg.RunRequest] = []
    words: list[str] = []
    marks: dict[str, LeaseMark] = {}
    for campaign in campaigns:
        record = draws.get(campaign.campaign_id)
        if record is not None and record.annulled:
            continue
        if record is not None and record.former_rules:
            words.append(record.former_rules)
            continue
        phase = record.latest if record is not None and record.phases else None
        due = draw_due(campaign, phase, auto_publish=settings.auto_publish)
        if due is None:
            continue
        alive, mark = observe_lease(
            runtime.leases.get(LeaseHolder.key_of(lease_name(campaign.campaign_id))),
            known.get(campaign.campaign_id),
            now=now,
            lease_seconds=settings.lease_seconds,
        )
        if mark is not None:
            marks[campaign.campaign_id] = mark
        runs = draw_runs(context.instance, campaign.campaign_id, now)
        round_due = None if phase is None else phase.round_due
        decision = start_draw(
            due,
            runs=runs,
            lease_alive=alive,
            seconds_to_round=None if round_due is None else round_due - now,
        )
        words.append(f"{campaign.campaign_id}: {decision.reason}")
        if decision.start:
            # No run key: a draw may need several runs, and its lease admits one at a time.
            requests.append(
                dg.RunRequest(
                    job_name=_DRAW, partition_key=campaign.campaign_id, tags={"regworkers/draw": due}
                )
            )
    return _Due(requests, words, marks)


def draw_runs(instance: dg.DagsterInstance, campaign_id: str, now: float) -> DrawRuns:
    """The runs of a campaign's draw. A run of one of its steps counts as active for a limited time, because a run that
    was killed in a terminal is never marked as ended; after that the lease decides. Reports of the campaign are runs
    of its partition, too, and no runs of its draw.
    """
    tags = {PARTITION_TAG: campaign_id}
    records = instance.get_run_records(dg.RunsFilter(tags=tags, statuses=list(ACTIVE)))
    active = [record for record in records if _is_of_draw(record.dagster_run)]
    ended = dg.RunsFilter(job_name=_DRAW, tags=tags, statuses=list(ENDED))
    last = instance.get_run_records(ended, limit=1)
    failed, since = crashes_in_a_row(instance, tags, now, job_name=_DRAW)
    return DrawRuns(
        active=any(now - (record.start_time or now) < _BELIEVED_SECONDS for record in active),
        failed=failed,
        seconds_since_failure=since,
        terminated=bool(last) and last[0].dagster_run.status is dg.DagsterRunStatus.CANCELED,
    )


def _is_of_draw(run: dg.DagsterRun) -> bool:
    return run.job_name == _DRAW or not _DECIDING.isdisjoint(run.asset_selection or ())


def _checks_to_run(
    instance: dg.DagsterInstance, draws: Iterable[DrawRecord], now: float
) -> list[dg.RunRequest]:
    """No run key: Dagster counts it as used by any run that has it, and only the draw's record says what was judged."""

    def runs(campaign_id: str) -> CheckRuns:
        tags = {CAMPAIGN_TAG: campaign_id}
        active = dg.RunsFilter(job_name=_CHECK, tags=tags, statuses=list(ACTIVE))
        crashes = crashes_in_a_row(instance, tags, now, job_name=_CHECK)
        return CheckRuns(bool(instance.get_run_records(active, limit=1)), *crashes)

    return [
        dg.RunRequest(
            job_name=_CHECK, run_config={"campaign_id": campaign_id}, tags={CAMPAIGN_TAG: campaign_id}
        )
        for campaign_id in to_check(draws, runs)
    ]


def _logging_to_run(
    instance: dg.DagsterInstance, runtime: Runtime, campaigns: Iterable[Campaign]
) -> list[dg.RunRequest]:
    """One run for all OPEN campaigns that the public log does not have as they are, and can have."""
    if not any(waits_for_log(runtime, each) for each in campaigns):
        return []
    active = dg.RunsFilter(job_name=log_campaigns.job, statuses=list(ACTIVE))
    failed = crashes_in_a_row(instance, {}, time.time(), job_name=log_campaigns.job)
    if instance.get_run_records(active, limit=1) or pause_after_crashes(*failed):
        return []
    return [dg.RunRequest(job_name=log_campaigns.job, run_config=log_campaigns.request())]


def _new_partitions(instance: dg.DagsterInstance, campaign_ids: Sequence[str]) -> list[str]:
    known = set(instance.get_dynamic_partitions(str(CAMPAIGN_PARTITIONS.name)))
    return [campaign_id for campaign_id in campaign_ids if campaign_id not in known]


@ticking
def markets_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Read the markets that are not complete, and the depth of their queue; retry those that are stalled."""
    from regworkers_core.selection.assign.markets import stalled_markets

    patience = _STALLED_VISIBILITIES * runtime.settings.selection.visibility_seconds
    found = stalled_markets(runtime, older_than_seconds=patience)
    if not found:
        return dg.SkipReason("no market is stalled")
    now = time.time()
    names = {each: each.market.prefix[:-1] for each in found}
    wanted = retries(
        found,
        queued=runtime.queue(runtime.names.selection_queue).depth().total,
        active=frozenset(name for name in names.values() if _retry_is_active(context.instance, name)),
        pauses={
            name: pause_after_crashes(*crashes_in_a_row(context.instance, {MARKET_TAG: name}, now))
            for name in names.values()
        },
        limit=_MAX_REQUESTS,
    )
    if not wanted:
        return dg.SkipReason(f"{len(found)} markets are stalled; their chunks or retries are on the way")
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                job_name=retry.job,
                run_config=retry.request(
                    campaign_id=each.market.campaign_id, market_id=each.market.market_id
                ),
                tags={MARKET_TAG: names[each], "regworkers/why": each.why.value},
            )
            for each in wanted
        ]
    )


@ticking
def rounds_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Read campaigns that pass seats on, their draws and codes; start a round that is due. An alert says why one is
    stopped. Start the export of codes that were given since the last one.
    """
    requests, words = list[dg.RunRequest](), list[str]()
    # Phases of a draw that goes on may have given codes already.
    for campaign in runtime.campaigns.list():
        campaign_id = campaign.campaign_id
        if campaign.pass_on is None or not is_selection_id(campaign_id):
            continue
        record = runtime.draws.light(campaign_id)
        if record is not None and not record.is_over and record.issuer_lacks_codes:
            given = {"campaign_id": campaign_id, "for_issuer": True, "put": True}
            requests += _unless_active(context.instance, campaign_id, export_codes, given)
        if campaign.status is not CampaignStatus.COMPLETED:
            continue
        decision = round_of(runtime, campaign)
        words.append(f"{campaign_id}: {decision.why}")
        if decision.state is RoundState.DUE:
            given = {"campaign_id": campaign_id, "confirm": confirmation_word(campaign_id, decision.phase)}
            requests += _unless_active(context.instance, campaign_id, pass_on, given)
    if not requests:
        return dg.SkipReason("; ".join(words) or "no campaign passes seats on by itself")
    return dg.SensorResult(run_requests=requests[:_MAX_REQUESTS])


def _unless_active(
    instance: dg.DagsterInstance, campaign_id: str, operation: Operation[Any], given: Mapping[str, Any]
) -> list[dg.RunRequest]:
    """A run of this campaign, unless one is active, or the last ones crashed a moment ago."""
    tags = {CAMPAIGN_TAG: campaign_id}
    active = dg.RunsFilter(job_name=operation.job, tags=tags, statuses=list(ACTIVE))
    crashes = crashes_in_a_row(instance, tags, time.time(), job_name=operation.job)
    if instance.get_run_records(active, limit=1) or pause_after_crashes(*crashes):
        return []
    return [dg.RunRequest(job_name=operation.job, run_config=operation.request(**given), tags=tags)]


def _retry_is_active(instance: dg.DagsterInstance, market: str) -> bool:
    filters = dg.RunsFilter(tags={MARKET_TAG: market}, statuses=list(ACTIVE))
    return bool(instance.get_run_records(filters, limit=1))


def lease_marks(cursor: str | None) -> dict[str, LeaseMark]:
    """The leases as the last tick saw them; a lost cursor costs one lease time."""
    try:
        document: Any = orjson.loads(cursor or "{}")
        return {
            str(campaign): LeaseMark(str(mark), float(since)) for campaign, (mark, since) in document.items()
        }
    except (orjson.JSONDecodeError, TypeError, ValueError, AttributeError):
        return {}


def _cursor(marks: dict[str, LeaseMark]) -> str:
    return orjson.dumps({campaign: [mark.mark, mark.since] for campaign, mark in marks.items()}).decode()
