"""Draws: runs that failed, campaigns that no run works on, messages that wait or failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from regworkers_core.domain.selection import MOST_BEHIND_SECONDS
from regworkers_core.domain.snapshot import (
    DRAWS,
    BeaconState,
    CampaignState,
    FailedRun,
    Reading,
    RegistrationsState,
    SchedulerState,
    SelectionJob,
    Snapshot,
    Unread,
)
from regworkers_core.domain.timestamps import duration, iso, seconds
from regworkers_core.flows import DRAINS, WATCHED_JOBS
from regworkers_core.operations.alerts.conditions.condition import (
    Check,
    Context,
    Finding,
    Unknown,
    causes_of_stuck_draws,
)
from regworkers_core.operations.alerts.conditions.objectives import or_burns
from regworkers_core.operations.health.scheduler import look_back_seconds
from regworkers_core.settings.operations import AlertSettings

Campaigns: TypeAlias = Sequence[CampaignState]
RUNS, INPUT_DIFFERS = "selection-run", "draw-input-differs"
PROCESSING = "PROCESSING"
_STILL_SECONDS, _LEASES = 60.0, 4
# A chain signs every few seconds, and its answer takes a second or two.
_BEACON_LATE_SECONDS = 60.0
_DRAIN_OF_JOB = {spec.job: spec.name for spec in DRAINS}


@Check(
    name=RUNS,
    section="runs",
    fires="the last run of a selection job failed, a day ago at most, for another reason than a config that is "
    "missing or wrong: "
    + ", ".join(f"`{job}`" for job in WATCHED_JOBS)
    + "; of a draw a week ago at most; unless its work was done since in another way: the phase is drawn, the "
    "markets are complete, the drain acknowledges again",
    key="job, or `<job>/<campaignId>`",
    runbook="selection-failures.md",
    several="selection runs failed",
    reads=("scheduler",),
)
def failed_runs(context: Context, read: SchedulerState) -> Iterator[Finding | Unknown]:
    """Each selection job and campaign whose last run failed, unless its work was done since in another way: by another
    job, or outside of Dagster.
    """
    for run in read.failed_runs:
        if run.job not in WATCHED_JOBS:
            continue
        subject, done = _subject(run.job, run.partition), _done_since(context.snapshot, run)
        if isinstance(done, Unread):
            yield Unknown(subject, done)
        elif not done:
            of = f" of {run.partition}" if run.partition else ""
            ended = seconds(run.ended_at)
            closes = "" if ended is None else f", or by itself at {iso(ended + look_back_seconds(run.job))}"
            details = {
                "runId": run.run_id,
                "job": run.job,
                "campaignId": run.partition,
                "endedAt": run.ended_at,
            }
            yield Finding(
                subject,
                context.severity.selection_run,
                f"the run {run.job}{of} failed at {run.ended_at}; this closes with the next one that succeeds{closes}",
                details,
                because=(f"{INPUT_DIFFERS}:{run.partition}",) if run.partition else (),
            )


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
    if run.job in (SelectionJob.TOP_UP, SelectionJob.LAPSE):
        return any(drawn is not None and _is_later(drawn, run.ended_at) for _, drawn in campaign.draws)
    if run.job == SelectionJob.RETRY:
        return campaign.is_drawn and not campaign.open_markets
    return run.job == SelectionJob.DRAW and campaign.is_drawn


def _is_later(at: str, than: str) -> bool:
    moment, other = seconds(at), seconds(than)
    return moment is not None and other is not None and moment > other


@Check(
    name="campaign-stuck",
    section="campaigns",
    key="campaignId, or `all`",
    several="campaigns are stuck in PROCESSING",
    burns=or_burns(DRAWS),
    timed=True,
    runbook="selection-failures.md",
    reads=("campaigns",),
)
def stuck(context: Context, campaigns: Campaigns) -> Iterator[Finding | Unknown]:
    """Fires when a campaign is in PROCESSING for `stuckSeconds` ({alerts.stuck_seconds!d}) and no run holds the lease
    of its draw, or the lease is not renewed; or codes for its winners are missing; or the budget of
    [draws](#objectives) burns.

    Assigning codes and sending messages needs no lease: then a campaign is stuck only if that is blocked.
    """
    for campaign in campaigns:
        if campaign.status != PROCESSING or _is_worked_on(context, campaign):
            continue
        name, age = campaign.campaign_id, context.age(campaign.since)
        if age is None or age < 0:
            when = "is unknown" if age is None else "is in the future"
            yield Unknown(name, Unread(f"the time at which it entered PROCESSING {when}"))
        elif age > context.settings.alerts.stuck_seconds:
            why = f": {campaign.failed}" if campaign.failed else ""
            markets = f", {campaign.open_markets} markets open" if campaign.open_markets else ""
            yield Finding(
                name,
                context.severity.campaign_stuck,
                f"campaign {name} has been in PROCESSING for {duration(age)} and no run works on it{markets}{why}",
                {"campaignId": name, "seconds": round(age), "openMarkets": campaign.open_markets},
                because=(
                    *causes_of_stuck_draws(),
                    f"{INPUT_DIFFERS}:{name}",
                    *(f"{RUNS}:{_subject(job, name)}" for job in (SelectionJob.DRAW, SelectionJob.TOP_UP)),
                ),
            )


@Check(
    name="round-stopped",
    section="campaigns",
    key="campaignId",
    several="campaigns do not pass seats on",
    runbook="redemptions.md",
    reads=("campaigns",),
)
def round_stopped(context: Context, campaigns: Campaigns) -> Iterator[Finding]:
    """Fires when seats should pass on by themselves and a person is needed first: fresh codes are missing, the issuer
    has stated nothing for an hour after the end of codes, or the gate found something in the round.
    """
    for campaign in campaigns:
        if campaign.round_stopped:
            yield Finding(
                campaign.campaign_id,
                context.severity.round_stopped,
                f"no seat of {campaign.campaign_id} passes on: {campaign.round_stopped}",
                {"campaignId": campaign.campaign_id},
            )


@Check(
    name="campaign-paused",
    section="campaigns",
    key="campaignId",
    several="campaigns are paused for long",
    timed=True,
    runbook="stream-lag.md",
    reads=("campaigns",),
)
def paused(context: Context, campaigns: Campaigns) -> Iterator[Finding]:
    """Fires when the replication of a campaign is paused for `campaignPausedSeconds`
    ({alerts.campaign_paused_seconds!d}); closes when it is resumed.
    """
    for campaign in campaigns:
        name, age = campaign.campaign_id, context.age(campaign.paused_since)
        if age is not None and age > context.settings.alerts.campaign_paused_seconds:
            yield Finding(
                name,
                context.severity.campaign_paused,
                f"the replication of campaign {name} has been paused for {duration(age)}: its entries wait, and its "
                f"draw does not begin; `regworkers campaign resume {name}` takes them up",
                {"campaignId": name, "seconds": round(age)},
            )


@Check(
    name="messages-waiting",
    section="campaigns",
    key="campaignId",
    several="campaigns have messages that wait for a further phase",
    timed=True,
    runbook="selection-failures.md",
    reads=("campaigns",),
)
def messages_waiting(context: Context, campaigns: Campaigns) -> Iterator[Finding]:
    """Fires when messages to fans wait for `messagesWaitSeconds` ({alerts.messages_wait_seconds!d}) for a further phase
    that changes what they say, is drawn, and is not confirmed.
    """
    for campaign in campaigns:
        name, age = campaign.campaign_id, context.age(campaign.held_since)
        if age is not None and age > context.settings.alerts.messages_wait_seconds:
            yield Finding(
                name,
                context.severity.messages_waiting,
                f"messages of {name} have waited for {duration(age)}: a further phase that changes what they say "
                "is drawn and not confirmed",
                {"campaignId": name, "seconds": round(age)},
            )


@Check(
    name="messages-failed",
    section="campaigns",
    key="campaignId",
    several="campaigns have messages that failed",
    runbook="selection-failures.md",
    reads=("campaigns",),
)
def messages_failed(context: Context, campaigns: Campaigns) -> Iterator[Finding]:
    """Fires when a message to a fan raised an exception and is not retried."""
    for campaign in campaigns:
        name, failed = campaign.campaign_id, campaign.failed_messages
        if failed:
            yield Finding(
                name,
                context.severity.messages_failed,
                f"{failed} messages of {name} failed and are not retried: run "
                f"`regworkers notifications retry {name}` once the defect is fixed",
                {"campaignId": name, "messages": failed},
            )


class Waiting(NamedTuple):
    """What of a campaign a run has to end soon. Evaluations compare it (`Context.still_seconds`)."""

    # Names it among what evaluations compare.
    name: str
    # The same until it is ended; empty or None: it is ended.
    of: Callable[[CampaignState], str | None]
    # How long it may last, in seconds.
    limit: Callable[[AlertSettings], float]

    def key(self, campaign_id: str) -> str:
        return f"{self.name}:{campaign_id}"

    def too_long(self, context: Context, campaign: CampaignState) -> float | None:
        """For how many seconds it has lasted, if that is too long; else None."""
        still = context.still_seconds.get(self.key(campaign.campaign_id), 0.0)
        return still if self.of(campaign) and still >= self.limit(context.settings.alerts) else None


UNJUDGED = Waiting("unjudged", lambda each: each.unjudged_since, lambda alerts: alerts.not_judged_seconds)
NOT_LOGGED = Waiting("not-logged", lambda each: each.not_logged, lambda alerts: alerts.not_logged_seconds)
WAITINGS = (UNJUDGED, NOT_LOGGED)


@Check(
    name="selection-not-judged",
    section="campaigns",
    key="campaignId",
    several="campaigns completed and were not checked",
    runbook="selection-failures.md",
    reads=("campaigns",),
)
def not_judged(context: Context, campaigns: Campaigns) -> Iterator[Finding]:
    """Fires when a phase is complete, and for `notJudgedSeconds` ({alerts.not_judged_seconds!d}) evaluations saw that
    `check_selection` has not checked its codes and messages; closes when it has.
    """
    for campaign in campaigns:
        name, since = campaign.campaign_id, campaign.unjudged_since
        if (still := UNJUDGED.too_long(context, campaign)) is not None:
            yield Finding(
                name,
                context.severity.selection_not_judged,
                f"a phase of {name} completed at {since}, and for {duration(still)} nothing has checked whether "
                "each winner has one code and one message: launch `check_selection`",
                {"campaignId": name, "completedAt": since, "seconds": round(still)},
            )


@Check(
    name="campaign-not-logged",
    section="campaigns",
    key="campaignId",
    several="open campaigns are not in the public log",
    runbook="selection-failures.md",
    reads=("campaigns",),
)
def not_logged(context: Context, campaigns: Campaigns) -> Iterator[Finding]:
    """Fires when a campaign is OPEN, and for `notLoggedSeconds` ({alerts.not_logged_seconds!d}) evaluations saw that
    the public log does not have it as it is; at once when it can never have it so.
    """
    for campaign in campaigns:
        name, still = campaign.campaign_id, NOT_LOGGED.too_long(context, campaign)
        if not campaign.refused and still is None:
            continue
        yield Finding(
            name,
            context.severity.campaign_not_logged,
            campaign.refused
            or f"campaign {name} is open, and for {duration(still or 0)} the public log has not had it as it is: "
            "`regworkers campaign log` says why",
            {"campaignId": name} | ({} if still is None else {"seconds": round(still)}),
        )


@Check(
    name="registrations-not-logged",
    section="campaigns",
    key="campaignId",
    several="campaigns register fans that the public log lacks",
    runbook="registrations.md",
    reads=("registrations",),
)
def registrations_not_logged(
    context: Context, registrations: tuple[RegistrationsState, ...]
) -> Iterator[Finding]:
    """Fires when the published log lacks a size of a campaign's tree of registrations that is `notLoggedSeconds`
    ({alerts.not_logged_seconds!d}) old, or one of both cannot be read.
    """
    for each in registrations:
        name, behind, since = each.campaign_id, each.size - each.logged, each.lacks_since
        still = context.age(since) or 0.0
        if each.trouble:
            summary = f"whether the public log has the registrations of {name} cannot be read: {each.trouble}"
        elif still < context.settings.alerts.not_logged_seconds:
            continue
        else:
            summary = (
                f"the public log is {behind:,} registrations of {name} behind, for {duration(still)}: "
                + (
                    _over_close(each, context.now)
                    or "they are registered, and it catches up when log and witnesses answer"
                )
            )
        yield Finding(
            name,
            context.severity.registrations_not_logged,
            summary,
            {"campaignId": name, "behind": behind, "since": since, "seconds": round(still)},
        )


def _over_close(state: RegistrationsState, now: float) -> str:
    """What to say of a log that has taken nothing since before registration ended."""
    closed, since = seconds(state.closes_at or ""), seconds(state.lacks_since or "")
    if closed is None or since is None or not since <= closed < now:
        return ""
    before = f"from {state.logged_at}" if state.logged_at else "from the first entry"
    return (
        f"it has nothing {before} to now, over the close at {state.closes_at}; what it gets later than 15 minutes after"
        " that is a finding of `draw log`"
    )


@Check(
    name="campaign-keys",
    section="campaigns",
    key="campaignId",
    several="campaigns have no keys that can be read",
    runbook="selection-failures.md",
    reads=("campaigns", "campaign_keys"),
)
def keys_lost(context: Context, campaigns: Campaigns, stored: frozenset[str]) -> Iterator[Finding]:
    """Fires when the secret store lacks the keys of a campaign that is OPEN, or has keys and is not COMPLETED."""
    for campaign in campaigns:
        if campaign.keys and campaign.keys not in stored:
            yield Finding(
                campaign.campaign_id,
                context.severity.campaign_keys,
                f"the secret store does not have the keys of campaign {campaign.campaign_id}, which cannot be drawn "
                f"without them: restore the secret {campaign.keys}; a campaign that never had keys gets them by "
                "`regworkers campaign log`",
                {"campaignId": campaign.campaign_id},
            )


@Check(
    name=INPUT_DIFFERS,
    section="campaigns",
    key="campaignId",
    several="draws have stopped at a file that differs",
    runbook="selection-failures.md",
    reads=("campaigns",),
)
def input_differs(context: Context, campaigns: Campaigns) -> Iterator[Finding]:
    """Fires when a file of a draw in the artefacts' bucket is not the one that the draw wrote, or is missing, or when
    the rules of a draw are gone; the draw has stopped; closes when the step that found it succeeds, or with its
    annulment.
    """
    for campaign in campaigns:
        if campaign.stopped:
            yield Finding(
                campaign.campaign_id,
                context.severity.draw_input_differs,
                f"the draw of {campaign.campaign_id} has stopped: {campaign.stopped}",
                {"campaignId": campaign.campaign_id},
            )


@Check(
    name="beacon",
    section="beacon",
    key="chain",
    several="beacons cannot seed draws",
    runbook="selection-failures.md",
    reads=("beacon",),
)
def beacon_unusable(context: Context, beacon: BeaconState) -> Iterator[Finding]:
    """Fires when the beacon that seeds draws has signed nothing for 60 s; when this machine's clock is 15 s behind it;
    or when no trust file has its lead, or has a longer one than draws are made with.
    """
    wanted, ago, why = beacon.trusted_lead_seconds, beacon.ago_seconds, ""
    if ago > _BEACON_LATE_SECONDS:
        why = f"has signed nothing for {duration(ago)}: draws wait for it"
    elif -ago > MOST_BEHIND_SECONDS:
        why = (
            f"is {duration(-ago)} ahead of this machine's clock: correct the clock, else no draw is committed"
        )
    elif wanted is None:
        why = "is in no trust file, so its lead is unknown, and no draw that it seeds is proved"
    elif wanted > beacon.lead_seconds:
        why = (
            f"seeds draws with a lead of {beacon.lead_seconds} s (selection.beacon.leadSeconds), and the trust file"
            f" wants {wanted} s: they would not verify"
        )
    if why:
        yield Finding(
            beacon.chain,
            context.severity.beacon,
            f"the beacon {beacon.chain} {why}",
            {"chain": beacon.chain, "round": beacon.round, "dueAt": beacon.due_at},
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
