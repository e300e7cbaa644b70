"""Reads the snapshot of the whole system: all sections in parallel, in a few seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from regworkers_core.adapters.mongo.draws import (
    DrawRecord,
    MarketStatus,
    PhaseStatus,
    lease_name,
    works_on_draw,
)
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.reasons import Reason, UsageError
from regworkers_core.domain.snapshot import (
    BlownFuse,
    CampaignState,
    CertificateState,
    LeaseState,
    ParityState,
    PausedDrain,
    SchedulerState,
    Snapshot,
    Unread,
)
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import is_heartbeat
from regworkers_core.drains.live_entries import latest_lags
from regworkers_core.drains.recorder import last_acknowledged
from regworkers_core.drains.residency import residents_wanted
from regworkers_core.drains.runner import batch_limit, fuse_in_force
from regworkers_core.engine.defects import HOLDS, hold_of
from regworkers_core.engine.leases import LeaseHolder, LeaseKey, LeaseRow
from regworkers_core.flows import DRAINS
from regworkers_core.operations.dependency_status import (
    DEPENDENCIES,
    SERVICES,
    is_late,
    is_too_busy,
    needs_setting,
    patience,
    read_in_parallel,
    too_busy,
)
from regworkers_core.operations.health.activity import Activity
from regworkers_core.operations.health.objectives import draw_states, read_objectives
from regworkers_core.operations.health.sources import (
    dependency_of,
    queue_readers,
    queue_states,
    read_beacon,
    read_function,
    read_lines,
    read_registrations,
    read_unarchived,
)
from regworkers_core.replication.enqueue.stream_probe import stream_state
from regworkers_core.replication.second_look import COUNTED
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.keys import secret_needed, stored_keys
from regworkers_core.selection.campaigns.opening import is_logged, why_refused
from regworkers_core.selection.draw.passing_on import RoundState, round_of
from regworkers_core.selection.notify.outbox import due_units
from regworkers_core.selection.registrations.source import is_due

READ_SECONDS = 4.0
# Drain activity is that of this window.
WINDOW_SECONDS = 300.0
# Far more than there are shards and draws at one time.
_MOST_LEASES = 500
# A draw may be under way in these.
_DRAWING = (CampaignStatus.CLOSED, CampaignStatus.PROCESSING)
_NO_KEY = LeaseKey("", "")
_PROBE = "answers:"
# Reads the state of Dagster, which the core does not import. Raises a Failure or a UsageError.
ReadScheduler = Callable[[], SchedulerState]


def read_system(
    runtime: Runtime, scheduler: ReadScheduler, *, within_seconds: float = READ_SECONDS
) -> Snapshot:
    """Takes `within_seconds` on an idle machine, longer on a busy one (`patience`), and half as long again for a slow
    login. Whatever is unavailable or late is Unread; what was late because this machine is busy says so. `runtime`
    should have short time-outs (`dependency_status.with_short_timeouts`).

    Raises UsageError only when no address is configured, with a line for each setting that is missing.
    """
    within_seconds = patience(within_seconds)
    _create_clients(runtime, within_seconds / 2)
    services = [f"service-{name}" for name in SERVICES if getattr(runtime.settings.services, name).base_url]
    readers: dict[str, Callable[[], Any]] = {
        _PROBE + name: partial(_trouble, runtime, name) for name in (*DEPENDENCIES, *services)
    }
    readers |= queue_readers(runtime)
    parts = {
        "stream": _Part(
            "streams", partial(stream_state, runtime.streams, runtime.leases, now=runtime.clock())
        ),
        "leases": _Part("dynamodb", partial(_leases, runtime)),
        "drains": _Part("mongo", partial(read_drains, runtime)),
        "objectives": _Part("mongo", partial(read_objectives, runtime)),
        "fuses": _Part("dynamodb", partial(_fuses, runtime)),
        "pauses": _Part("dynamodb", partial(_pauses, runtime)),
        "acknowledged": _Part(
            "dynamodb", partial(last_acknowledged, runtime.leases, [spec.name for spec in DRAINS])
        ),
        "messages_due": _Part("mongo", lambda: bool(due_units(runtime))),
        "registrations_due": _Part("mongo", partial(is_due, runtime)),
        "campaigns": _Part("mongo", partial(read_campaigns, runtime)),
        "campaign_keys": _Part("secretsmanager", partial(stored_keys, runtime)),
        "registrations": _Part("mongo", partial(read_registrations, runtime)),
        "certificates": _Part("", partial(_certificates, runtime)),
        "scheduler": _Part("dagster", scheduler),
        "parity": _Part("mongo", partial(_parity, runtime)),
        "forged": _Part("mongo", lambda: runtime.dead_letters.number_open(Reason.FORGED)),
        "archive": _Part("kafka", partial(read_unarchived, runtime)),
        "function": _Part("cloudwatch", partial(read_function, runtime)),
        "lines": _Part("logs", partial(read_lines, runtime)),
        "beacon": _Part("drand", partial(read_beacon, runtime)),
    }
    readers |= {name: part.read for name, part in parts.items()}

    def first_called(reader: str) -> str:
        if reader.startswith(_PROBE):
            return reader.removeprefix(_PROBE)
        return parts[reader].dependency if reader in parts else dependency_of(reader)

    found = _judged(read_in_parallel(readers, within_seconds, first_called), within_seconds)
    asked = [found[_PROBE + name] for name in DEPENDENCIES]
    if all(isinstance(each, Unread) and needs_setting(each.why) for each in asked):
        raise UsageError("\n".join(dict.fromkeys(each.why for each in asked)))
    queues, unread_queues = queue_states(found)
    campaigns = found["campaigns"]
    if not isinstance(campaigns, Unread) and not isinstance(found["objectives"], Unread):
        found["objectives"] += draw_states(campaigns, runtime.settings.objectives, runtime.clock())
    return Snapshot(
        at=iso(runtime.clock()),
        environment=runtime.settings.environment,
        dependencies={
            name.removeprefix(_PROBE): state.why if isinstance(state, Unread) else state
            for name, state in found.items()
            if name.startswith(_PROBE) and state != too_busy()
        },
        unjudged=tuple(
            name.removeprefix(_PROBE)
            for name, state in found.items()
            if name.startswith(_PROBE) and state == too_busy()
        ),
        queues=queues,
        unread_queues=unread_queues,
        **{name: found[name] for name in parts},
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """What is read for one field of the snapshot, and the dependency that it calls first."""

    dependency: str
    read: Callable[[], Any]


def _create_clients(runtime: Runtime, within_seconds: float) -> None:
    """Before threads need them. It may be slow: AWS resolves credentials, DNS the servers of MongoDB.

    Raises UsageError when neither has an address.
    """

    def refused(make: Callable[[], object]) -> UsageError | None:
        try:
            make()
        except UsageError as error:
            return error
        return None

    def aws() -> object:
        return runtime.demand_table, runtime.leases, runtime.streams, runtime.sqs, runtime.objects

    def mongo() -> object:
        return runtime.replica, runtime.drain_log, runtime.campaigns, runtime.draws

    def redis() -> object:
        # On a busy machine the import of its library takes longer than the time-out of a probe.
        return runtime.dependency("redis").once(lambda: runtime.redis_client)

    makers = {"aws": aws, "mongo": mongo, "redis": redis}
    readers = {name: partial(refused, make) for name, make in makers.items()}
    found = read_in_parallel(readers, within_seconds)
    refusals = [each for name in ("aws", "mongo") if isinstance(each := found[name], UsageError)]
    if len(refusals) == 2:
        raise refusals[0]


def _judged(found: dict[str, Any], waited_seconds: float) -> dict[str, Any]:
    """Replace what was late by `too_busy`, if this machine is the better reason."""
    late = [name for name, each in found.items() if isinstance(each, Unread) and each.late]
    if not is_too_busy({found[name].dependency for name in late}, waited_seconds):
        return found
    return found | dict.fromkeys(late, too_busy())


def _trouble(runtime: Runtime, name: str) -> Unread | None:
    failure = runtime.failure_of(name)
    return None if failure is None else Unread(failure.error, name, late=is_late(failure.error))


def _leases(runtime: Runtime) -> tuple[LeaseState, ...]:
    rows = sorted(runtime.leases.all(_MOST_LEASES), key=lambda row: row.key)
    return tuple(
        LeaseState(row.key.pk, row.key.sk, row.owner, row.token, row.position.lstrip("0"))
        for row in rows
        if not is_heartbeat(row.key.pk) and not row.key.pk.startswith(HOLDS)
    )


def _fuses(runtime: Runtime) -> tuple[BlownFuse, ...]:
    """Fuses that stop drains of this code version."""
    return tuple(fuse for spec in DRAINS if (fuse := fuse_in_force(runtime, spec.name)) is not None)


def _pauses(runtime: Runtime) -> tuple[PausedDrain, ...]:
    return tuple(
        paused for spec in DRAINS if (paused := hold_of(runtime.leases, PausedDrain, spec.name)) is not None
    )


def _certificates(runtime: Runtime) -> tuple[CertificateState, ...]:
    # Late, for it brings cryptography.
    from regworkers_core.operations.certificates import certificate_state, check_certificate

    environment = runtime.settings.environment
    try:
        return (certificate_state(environment, check_certificate(runtime, environment)),)
    except UsageError as error:
        # A certificate that is configured and missing is a finding.
        return (CertificateState(environment, None, trouble=str(error)),)


def _parity(runtime: Runtime) -> ParityState | None:
    last = runtime.reconcile_results.last()
    return None if last is None else ParityState(last.at, last.differences, last.verified_as_of)


def read_drains(runtime: Runtime) -> tuple[DrainWindow, ...]:
    """One of each drain. Raises TransientFailure."""
    found = Activity(runtime).last(WINDOW_SECONDS)
    residents = residents_wanted(runtime)
    return tuple(
        replace(
            each := found.get(spec.name) or _idle(runtime, spec.name),
            wanted=residents and bool(spec.residents),
            differing={
                kind.value: number for kind, count in COUNTED.items() if (number := each.counts[count])
            },
        )
        for spec in DRAINS
    )


def _idle(runtime: Runtime, name: str) -> DrainWindow:
    last, limit = runtime.drain_log.last(name), batch_limit(runtime.settings)
    at = last.minute if last else None
    return DrainWindow(name, WINDOW_SECONDS, batch_limit_seconds=limit, active_runs=0, last_seen_at=at)


def read_campaigns(runtime: Runtime) -> tuple[CampaignState, ...]:
    """All of them, by id. Raises TransientFailure."""
    # An annulled draw does not continue, so it cannot be stuck.
    draws = {record.campaign_id: record for record in runtime.draws.all() if not record.annulled}
    campaigns = runtime.campaigns.list()
    keys = {
        campaign.campaign_id: LeaseHolder.key_of(lease_name(campaign.campaign_id))
        for campaign in campaigns
        if campaign.status in _DRAWING
    }
    leases = runtime.leases.several(list(keys.values()))
    failed, pauses, lags = runtime.outbox.failed(), runtime.parking.pauses(), latest_lags(runtime)
    held = {
        name: record.unconfirmed.fields.get("drawnAt")
        for name, record in draws.items()
        if record.unconfirmed is not None and runtime.outbox.any_held(name)
    }
    return tuple(
        replace(
            campaign_state(
                campaign,
                draws.get(campaign.campaign_id),
                leases.get(keys.get(campaign.campaign_id, _NO_KEY)),
            ),
            paused_since=pauses[campaign.campaign_id].at if campaign.campaign_id in pauses else None,
            lag_seconds=lags.get(campaign.campaign_id, (None,))[0],
            held_since=held.get(campaign.campaign_id),
            not_logged=_not_logged(runtime, campaign),
            refused=why_refused(runtime, campaign) if campaign.status is CampaignStatus.OPEN else "",
            keys=secret_needed(runtime, campaign),
            round_stopped=_round_stopped(runtime, campaign),
            failed_messages=failed[campaign.campaign_id] if campaign.campaign_id in draws else 0,
        )
        for campaign in campaigns
    )


def _not_logged(runtime: Runtime, campaign: Campaign) -> str:
    if campaign.status is not CampaignStatus.OPEN or is_logged(runtime, campaign):
        return ""
    return campaign.opened.hash if campaign.opened else campaign.opens_at


def _round_stopped(runtime: Runtime, campaign: Campaign) -> str:
    if campaign.status is not CampaignStatus.COMPLETED or campaign.pass_on is None:
        return ""
    decision = round_of(runtime, campaign)
    return decision.why if decision.state is RoundState.STOPPED else ""


def campaign_state(
    campaign: Campaign, record: DrawRecord | None, lease: LeaseRow | None = None
) -> CampaignState:
    """Pure: what these show. Markets are open from a phase's publication until their last code is assigned and every
    fan is notified.
    """
    if lease is not None and not works_on_draw(lease.owner):
        lease = None
    open_markets, blocked, stopped = 0, [], record.former_rules if record else ""
    for phase in record.phases.values() if record else ():
        if phase.stopped:
            stopped = str(phase.stopped.get("text") or phase.stopped["file"])
        if not phase.reached(PhaseStatus.PUBLISHED):
            continue
        for market_id, market in phase.markets.items():
            open_markets += market.get("status") != MarketStatus.COMPLETED
            if market.get("status") == MarketStatus.BLOCKED:
                codes = f"{market.get('needed')} codes needed, {market.get('available')} there"
                blocked.append(f"market {market_id}: {codes}")
    due = record.latest.round_due if record and record.phases else None
    unjudged = [str(each.fields["completedAt"]) for each in record.unjudged] if record else []
    return CampaignState(
        campaign.campaign_id,
        campaign.status.value,
        since=campaign.transitions[-1].at if campaign.transitions else None,
        closes_at=campaign.closes_at,
        lease_owner=lease.owner if lease else "",
        open_markets=open_markets,
        failed="; ".join(blocked),
        lease_beat=f"{lease.token}/{lease.counter}" if lease else "",
        round_due_at=None if due is None else iso(due),
        stopped=stopped,
        unjudged_since=min(unjudged, default=None),
        draws=_draws(campaign, record),
    )


def _draws(campaign: Campaign, record: DrawRecord | None) -> tuple[tuple[str, str | None], ...]:
    """Begin and end of each phase. The first began when the campaign came into PROCESSING."""
    began = next((each.at for each in campaign.transitions if each.to is CampaignStatus.PROCESSING), None)
    starts = {
        number: began if number == 1 else phase.fields.get("openedAt")
        for number, phase in (record.phases if record else {}).items()
    }
    return tuple(
        (start, record.phases[number].fields.get("drawnAt"))
        for number, start in starts.items()
        if start and record
    )
