"""Draws: runs that failed, campaigns that no run works on, messages that wait or failed."""

from __future__ import annotations

from regworkers_core.domain.snapshot import DRAW, SELECTION_JOBS, CampaignState, Unread
from regworkers_core.operations.alerts.conditions.condition import (
    Assessment,
    Context,
    Finding,
    causes_of_stuck_draws,
    duration,
)

RUNS, INPUT_DIFFERS = "selection-run", "draw-input-differs"
PROCESSING = "PROCESSING"
_STILL_SECONDS, _LEASES = 60.0, 4


def failed_runs(context: Context) -> Assessment | Unread:
    """One finding for each selection job and campaign whose last run failed, unless the draw has succeeded since
    outside of Dagster.
    """
    read, campaigns = context.snapshot.scheduler, context.snapshot.campaigns
    if isinstance(read, Unread):
        return read
    drawn = set()
    if not isinstance(campaigns, Unread):
        drawn = {campaign.campaign_id for campaign in campaigns if campaign.is_drawn}
    found: dict[str, Finding] = {}
    unknown: dict[str, Unread] = {}
    for run in read.failed_runs:
        if run.job in SELECTION_JOBS:
            subject = _subject(run.job, run.partition)
            if run.job == DRAW and isinstance(campaigns, Unread):
                unknown[subject] = campaigns
                continue
            if run.job == DRAW and run.partition in drawn:
                continue
            of = f" of {run.partition}" if run.partition else ""
            details = {
                "runId": run.run_id,
                "job": run.job,
                "campaignId": run.partition,
                "endedAt": run.ended_at,
            }
            found[subject] = Finding(
                subject,
                context.severity.selection_run,
                f"the run {run.job}{of} failed at {run.ended_at}",
                details,
                because=(f"{INPUT_DIFFERS}:{run.partition}",) if run.partition else (),
            )
    return Assessment(tuple(found.values()), unknown)


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
