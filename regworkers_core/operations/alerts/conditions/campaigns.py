"""Draws: runs that failed, campaigns that no run works on, messages that wait or failed."""

from __future__ import annotations

from regworkers_core.domain.snapshot import (
    DRAW,
    SELECTION_JOBS,
    CampaignState,
    FailedRun,
    Reading,
    Snapshot,
    Unread,
)
from regworkers_core.domain.timestamps import duration, iso, seconds
from regworkers_core.flows import DRAINS
from regworkers_core.operations.alerts.conditions.condition import (
    Assessment,
    Context,
    Finding,
    causes_of_stuck_draws,
)
from regworkers_core.operations.health.scheduler import look_back_seconds

RUNS, INPUT_DIFFERS = "selection-run", "draw-input-differs"
PROCESSING = "PROCESSING"
_STILL_SECONDS, _LEASES = 60.0, 4
_DRAIN_OF_JOB = {spec.job: spec.name for spec in DRAINS}


def failed_runs(context: Context) -> Assessment | Unread:
    """One finding for each selection job and campaign whose last run failed, unless its work was done since in another
    way: by another job, or outside of Dagster.
    """
    read = context.snapshot.scheduler
    if isinstance(read, Unread):
        return read
    found: dict[str, Finding] = {}
    unknown: dict[str, Unread] = {}
    for run in read.failed_runs:
        if run.job in SELECTION_JOBS:
            subject, done = _subject(run.job, run.partition), _done_since(context.snapshot, run)
            if isinstance(done, Unread):
                unknown[subject] = done
                continue
            if done:
                continue
            of = f" of {run.partition}" if run.partition else ""
            ended = seconds(run.ended_at)
            closes = "" if ended is None else f", or by itself at {iso(ended + look_back_seconds(run.job))}"
            details = {
                "runId": run.run_id,
                "job": run.job,
                "campaignId": run.partition,
                "endedAt": run.ended_at,
            }
            found[subject] = Finding(
                subject,
                context.severity.selection_run,
                f"the run {run.job}{of} failed at {run.ended_at}; this closes with the next one that succeeds{closes}",
                details,
                because=(f"{INPUT_DIFFERS}:{run.partition}",) if run.partition else (),
            )
    return Assessment(tuple(found.values()), unknown)


def _done_since(snapshot: Snapshot, run: FailedRun) -> Reading[bool]:
    """Whether what the run should have done is done: its phase is drawn, its markets are complete, or its drain has
    acknowledged work since.
    """
    if (drain := _DRAIN_OF_JOB.get(run.job)) is not None:
        last = snapshot.acknowledged
        if isinstance(last, Unread):
            return last
        return any(each.drain == drain and _is_later(each.at, run.ended_at) for each in last)
    if isinstance(snapshot.campaigns, Unread):
        return snapshot.campaigns
    campaign = next((each for each in snapshot.campaigns if each.campaign_id == run.partition), None)
    if campaign is None:
        return False
    if run.job == "top_up":
        return any(drawn is not None and _is_later(drawn, run.ended_at) for _, drawn in campaign.draws)
    if run.job == "retry_market_selection":
        return campaign.is_drawn and not campaign.open_markets
    return run.job == DRAW and campaign.is_drawn


def _is_later(at: str, than: str) -> bool:
    moment, other = seconds(at), seconds(than)
    return moment is not None and other is not None and moment > other


def stuck(context: Context) -> Assessment | Unread:
    """One finding for each campaign that has been in PROCESSING for long while no live run holds its lease. Assigning
    codes and sending messages needs no lease: then a campaign is stuck only if that is blocked.
    """
    campaigns = context.snapshot.campaigns
    if isinstance(campaigns, Unread):
        return campaigns
    found: list[Finding] = []
    unknown: dict[str, Unread] = {}
    for campaign in campaigns:
        if campaign.status != PROCESSING or _is_worked_on(context, campaign):
            continue
        name, age = campaign.campaign_id, context.age(campaign.since)
        if age is None or age < 0:
            when = "is unknown" if age is None else "is in the future"
            unknown[name] = Unread(f"the time at which it entered PROCESSING {when}")
        elif age > context.settings.alerts.stuck_seconds:
            why = f": {campaign.failed}" if campaign.failed else ""
            markets = f", {campaign.open_markets} markets open" if campaign.open_markets else ""
            found.append(
                Finding(
                    name,
                    context.severity.campaign_stuck,
                    f"campaign {name} has been in PROCESSING for {duration(age)} and no run works on it{markets}{why}",
                    {"campaignId": name, "seconds": round(age), "openMarkets": campaign.open_markets},
                    because=(
                        *causes_of_stuck_draws(),
                        f"{INPUT_DIFFERS}:{name}",
                        *(f"{RUNS}:{_subject(job, name)}" for job in ("draw", "top_up")),
                    ),
                )
            )
    return Assessment(tuple(found), unknown)


def messages_waiting(context: Context) -> Assessment | Unread:
    """One finding for each campaign whose messages have long waited for the confirmation of a further phase."""
    campaigns, limit = context.snapshot.campaigns, context.settings.alerts.messages_wait_seconds
    if isinstance(campaigns, Unread):
        return campaigns
    found: list[Finding] = []
    for campaign in campaigns:
        name, age = campaign.campaign_id, context.age(campaign.held_since)
        if age is not None and age > limit:
            found.append(
                Finding(
                    name,
                    context.severity.messages_waiting,
                    f"messages of {name} have waited for {duration(age)}: a further phase that changes what they say "
                    "is drawn and not confirmed",
                    {"campaignId": name, "seconds": round(age)},
                )
            )
    return Assessment(tuple(found))


def messages_failed(context: Context) -> Assessment | Unread:
    """One finding for each campaign with messages that raised an exception."""
    campaigns = context.snapshot.campaigns
    if isinstance(campaigns, Unread):
        return campaigns
    return Assessment(
        tuple(
            Finding(
                campaign.campaign_id,
                context.severity.messages_failed,
                f"{campaign.failed_messages} messages of {campaign.campaign_id} failed and are not retried: run "
                f"`regworkers notifications retry {campaign.campaign_id}` once the defect is fixed",
                {"campaignId": campaign.campaign_id, "messages": campaign.failed_messages},
            )
            for campaign in campaigns
            if campaign.failed_messages
        )
    )


def unjudged_key(campaign_id: str) -> str:
    """The key of its first phase that was not checked, among what evaluations compare (`Context.still_seconds`)."""
    return f"unjudged:{campaign_id}"


def not_judged(context: Context) -> Assessment | Unread:
    """One finding for each campaign with a phase that evaluations saw complete for long and not checked. Of a phase
    that completed with an earlier version the check begins after the update.
    """
    campaigns, limit = context.snapshot.campaigns, context.settings.alerts.not_judged_seconds
    if isinstance(campaigns, Unread):
        return campaigns
    found: list[Finding] = []
    for campaign in campaigns:
        name, since = campaign.campaign_id, campaign.unjudged_since
        still = context.still_seconds.get(unjudged_key(name), 0.0)
        if since and still >= limit:
            found.append(
                Finding(
                    name,
                    context.severity.selection_not_judged,
                    f"a phase of {name} completed at {since}, and for {duration(still)} nothing has checked whether "
                    "each winner has one code and one message: launch `check_selection`",
                    {"campaignId": name, "completedAt": since, "seconds": round(still)},
                )
            )
    return Assessment(tuple(found))


def input_differs(context: Context) -> Assessment | Unread:
    """One finding for each campaign whose draw has stopped at a file that differs from the one that it wrote."""
    campaigns = context.snapshot.campaigns
    if isinstance(campaigns, Unread):
        return campaigns
    return Assessment(
        tuple(
            Finding(
                campaign.campaign_id,
                context.severity.draw_input_differs,
                f"the draw of {campaign.campaign_id} has stopped: {campaign.stopped}",
                {"campaignId": campaign.campaign_id},
            )
            for campaign in campaigns
            if campaign.stopped
        )
    )


def _is_worked_on(context: Context, campaign: CampaignState) -> bool:
    if campaign.lease_owner:
        # A live run renews it several times within its duration.
        limit = max(_STILL_SECONDS, _LEASES * context.settings.selection.lease_seconds)
        return context.still_seconds.get(campaign.campaign_id, 0.0) < limit
    overdue = context.age(campaign.round_due_at)
    if overdue is not None and overdue <= context.settings.alerts.stuck_seconds:
        # It waits for the beacon; its sensor continues once the round is signed.
        return True
    return campaign.open_markets > 0 and not campaign.failed


def _subject(job: str, campaign_id: str) -> str:
    return f"{job}/{campaign_id}" if campaign_id else job
