"""Selections: runs that failed, campaigns on which nobody works any more."""

from __future__ import annotations

from regworkers_core.domain.snapshot import DRAW, SELECTION_JOBS, CampaignState, Unread
from regworkers_core.operations.alerts.conditions.causes import of_draws
from regworkers_core.operations.alerts.conditions.condition import Finding, Given, Judgement
from regworkers_core.operations.alerts.conditions.texts import duration

RUNS, INPUT_DIFFERS = "selection-run", "draw-input-differs"
PROCESSING = "PROCESSING"
_STILL_SECONDS, _LEASES = 60.0, 4


def failed_runs(given: Given) -> Judgement | Unread:
    """One finding for each selection job and campaign whose last run failed; not for a draw that was done since then by
    other hands, of which Dagster knows nothing.
    """
    read, campaigns = given.snapshot.scheduler, given.snapshot.campaigns
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
                given.severity.selection_run,
                f"the run {run.job}{of} failed at {run.ended_at}",
                details,
                because=(f"{INPUT_DIFFERS}:{run.partition}",) if run.partition else (),
            )
    return Judgement(tuple(found.values()), unknown)


def stuck(given: Given) -> Judgement | Unread:
    """One finding for each campaign that is in PROCESSING for long while nobody holds its lease, or whoever does has
    died. Not while its winners get their codes and messages, which needs no lease, unless that is blocked.
    """
    campaigns = given.snapshot.campaigns
    if isinstance(campaigns, Unread):
        return campaigns
    found: list[Finding] = []
    unknown: dict[str, Unread] = {}
    for campaign in campaigns:
        if campaign.status != PROCESSING or _is_worked_on(given, campaign):
            continue
        name, age = campaign.campaign_id, given.age(campaign.since)
        if age is None or age < 0:
            when = "is not known" if age is None else "lies in the future"
            unknown[name] = Unread(f"the time since which it is in PROCESSING {when}")
        elif age > given.settings.alerts.stuck_seconds:
            why = f": {campaign.failed}" if campaign.failed else ""
            markets = f", {campaign.open_markets} markets open" if campaign.open_markets else ""
            found.append(
                Finding(
                    name,
                    given.severity.campaign_stuck,
                    f"campaign {name} is in PROCESSING for {duration(age)} and nobody works on it{markets}{why}",
                    {"campaignId": name, "seconds": round(age), "openMarkets": campaign.open_markets},
                    because=(
                        *of_draws(),
                        f"{INPUT_DIFFERS}:{name}",
                        *(f"{RUNS}:{_subject(job, name)}" for job in ("draw", "top_up")),
                    ),
                )
            )
    return Judgement(tuple(found), unknown)


def messages_waiting(given: Given) -> Judgement | Unread:
    """One finding for each campaign whose messages wait for long for the confirmation of a further phase."""
    campaigns, limit = given.snapshot.campaigns, given.settings.alerts.messages_wait_seconds
    if isinstance(campaigns, Unread):
        return campaigns
    found: list[Finding] = []
    for campaign in campaigns:
        name, age = campaign.campaign_id, given.age(campaign.held_since)
        if age is not None and age > limit:
            found.append(
                Finding(
                    name,
                    given.severity.messages_waiting,
                    f"messages of {name} wait for {duration(age)}: a further phase is drawn that changes what they "
                    "say, and is not confirmed",
                    {"campaignId": name, "seconds": round(age)},
                )
            )
    return Judgement(tuple(found))


def messages_failed(given: Given) -> Judgement | Unread:
    """One finding for each campaign with messages that raised an exception by themselves."""
    campaigns = given.snapshot.campaigns
    if isinstance(campaigns, Unread):
        return campaigns
    return Judgement(
        tuple(
            Finding(
                campaign.campaign_id,
                given.severity.messages_failed,
                f"{campaign.failed_messages} messages of {campaign.campaign_id} failed and are not tried again: "
                f"`regworkers notifications retry {campaign.campaign_id}` once their defect is gone",
                {"campaignId": campaign.campaign_id, "messages": campaign.failed_messages},
            )
            for campaign in campaigns
            if campaign.failed_messages
        )
    )


def input_differs(given: Given) -> Judgement | Unread:
    """One finding for each campaign whose draw has stopped because a file in the store is not the one that it wrote."""
    campaigns = given.snapshot.campaigns
    if isinstance(campaigns, Unread):
        return campaigns
    return Judgement(
        tuple(
            Finding(
                campaign.campaign_id,
                given.severity.draw_input_differs,
                f"the draw of {campaign.campaign_id} has stopped: {campaign.stopped}",
                {"campaignId": campaign.campaign_id},
            )
            for campaign in campaigns
            if campaign.stopped
        )
    )


def _is_worked_on(given: Given, campaign: CampaignState) -> bool:
    if campaign.lease_owner:
        # It moves several times within a lease's time.
        limit = max(_STILL_SECONDS, _LEASES * given.settings.selection.lease_seconds)
        return given.still_seconds.get(campaign.campaign_id, 0.0) < limit
    overdue = given.age(campaign.round_due_at)
    if overdue is not None and overdue <= given.settings.alerts.stuck_seconds:
        # It waits for the beacon, and its sensor goes on once the round is signed.
        return True
    return campaign.open_markets > 0 and not campaign.failed


def _subject(job: str, campaign_id: str) -> str:
    return f"{job}/{campaign_id}" if campaign_id else job
