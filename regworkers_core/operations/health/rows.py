"""The snapshot as rows, one for each component: its state, since when, and what helps. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, TypeAlias

from fairdraw.documents import as_document
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.alert import Severity
from regworkers_core.domain.snapshot import (
    CampaignState,
    CertificateState,
    FunctionState,
    LeaseState,
    LinesState,
    ParityState,
    PausedDrain,
    QueueState,
    SchedulerState,
    Snapshot,
    StreamState,
    UnarchivedEvents,
    Unread,
)
from regworkers_core.domain.timestamps import duration
from regworkers_core.operations.dependency_status import TOO_BUSY, way_out
from regworkers_core.settings import Settings

STREAM = "demand-table"
_OWN_JOB = "doctor"


class RowState(StrEnum):
    """From good to bad. NOTE is no reason for an alert; UNKNOWN is not configured; UNREAD could not be read."""

    FINE = "fine"
    NOTE = "note"
    UNKNOWN = "unknown"
    UNREAD = "unread"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def is_finding(self) -> bool:
        return self in (RowState.UNREAD, RowState.WARNING, RowState.CRITICAL)

    def or_worse(self, other: RowState) -> RowState:
        order = list(RowState)
        return max(self, other, key=order.index)

    @classmethod
    def of(cls, severity: Severity) -> RowState:
        return cls.CRITICAL if severity is Severity.CRITICAL else cls.WARNING


@dataclass(frozen=True, slots=True)
class Row:
    """`facts` are numbers and ids for programs; `since` is an ISO time, None: unknown."""

    section: str
    name: str
    state: RowState
    text: str
    since: str | None = None
    help: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        document = as_document(self, "name", "state", "text", "since", "help")
        return {**document, "help": self.help or None, **self.facts}


def rows_of(snapshot: Snapshot, settings: Settings) -> list[Row]:
    return [row for name, section in SECTIONS.items() for row in _rows(name, section, snapshot, settings)]


def _rows(name: str, section: Section, snapshot: Snapshot, settings: Settings) -> Iterable[Row]:
    found = getattr(snapshot, section.reads)
    if isinstance(found, Unread):
        # Without a configured address nothing is wrong with Dagster.
        is_unknown = section.reads == "scheduler" and not settings.dagster.url
        state = RowState.UNKNOWN if is_unknown else RowState.UNREAD
        yield Row(name, "", state, found.why, help=way_out(found.why, settings))
    else:
        yield from section.rows(found, snapshot, settings)
    if section.more:
        yield from section.more(snapshot, settings)


def _dependencies(found: Mapping[str, str | None], snapshot: Snapshot, settings: Settings) -> Iterable[Row]:
    yield from (_dependency(name, trouble, settings) for name, trouble in found.items())
    yield from (Row("dependencies", name, RowState.UNREAD, TOO_BUSY) for name in snapshot.unjudged)


def _dependency(name: str, trouble: str | None, settings: Settings) -> Row:
    if trouble is None:
        external = name == "dynamodb" and settings.demand_table.external
        return Row(
            "dependencies", name, RowState.FINE, f"answers{' (demand table: external)' if external else ''}"
        )
    return Row("dependencies", name, RowState.UNREAD, trouble, help=way_out(trouble, settings, name))


def _queues(
    queues: Iterable[QueueState], snapshot: Snapshot, settings: Settings, *, dead: bool
) -> Iterable[Row]:
    """Queues that could not be read while others could come last."""
    prefix, section = settings.names.prefix, "deadLetterQueues" if dead else "queues"
    yield from (_queue(queue, section, prefix) for queue in queues if queue.is_dead_letter is dead)
    for name, unread in snapshot.unread_queues.items():
        if name.endswith("-dlq") is dead:
            short, helps = name.removeprefix(prefix), way_out(unread.why, settings)
            yield Row(section, short, RowState.UNREAD, unread.why, help=helps)


def _queue(queue: QueueState, section: str, prefix: str) -> Row:
    oldest = queue.oldest_seconds
    old = f", oldest {duration(oldest)}" if queue.waiting and oldest is not None else ""
    return Row(
        section,
        queue.name.removeprefix(prefix),
        RowState.FINE,
        f"{queue.waiting:,} waiting{old}" if queue.waiting else "empty",
        facts={
            "visible": queue.visible,
            "inFlight": queue.in_flight,
            "delayed": queue.delayed,
            "oldestSeconds": None if oldest is None else round(oldest),
            "retentionSeconds": round(queue.retention_seconds),
        },
    )


def _stream(stream: StreamState, *_: object) -> Iterable[Row]:
    age = stream.iterator_age_seconds
    if age is None:
        text = "age of the oldest unread record unknown"
    else:
        text = f"oldest unread record {duration(age)} old" if age else "all read"
    shards = f"{stream.shards} shard{'' if stream.shards == 1 else 's'}"
    state = RowState.NOTE if age is None else RowState.FINE
    facts = {"shards": stream.shards, "iteratorAgeSeconds": age}
    yield Row("stream", STREAM, state, f"{shards}, {text}", facts=facts)


def _function(read: FunctionState | None, *_: object) -> Iterable[Row]:
    if read is None:
        return [Row("eligibility", "", RowState.FINE, "no metrics in CloudWatch")]
    p95 = read.duration_p95_seconds
    took = "" if p95 is None else f", p95 {p95:.1f} s of {read.limit_seconds:g} s"
    text = (
        f"{read.calls:,} calls in {duration(read.window_seconds)}: {read.errors:,} errors, "
        f"{read.throttles:,} throttled, {read.unknown:,} UNKNOWN{took}"
    )
    facts = as_document(
        read, "calls", "errors", "throttles", "unknown", "duration_p95_seconds", "limit_seconds"
    )
    return [Row("eligibility", "", RowState.FINE, text, facts=facts)]


def _lines(read: LinesState | None, *_: object) -> Iterable[Row]:
    if read is None:
        return [Row("logs", "", RowState.FINE, "no agent collects them here")]
    arrived = "arrive" if read.arrived else f"none for {duration(read.window_seconds)}"
    return [Row("logs", "", RowState.FINE, f"{read.log_group}: {arrived}")]


def _unarchived(events: UnarchivedEvents, settings: Settings) -> Row:
    oldest, kept = events.oldest_seconds, events.retention_seconds
    text = f"{events.waiting:,} not archived" if events.waiting else "all archived"
    old = f", oldest {duration(oldest)}" if events.waiting and oldest is not None else ""
    facts = {"waiting": events.waiting, "oldestSeconds": oldest and round(oldest), "retentionSeconds": kept}
    return Row(
        "archive", events.topic.removeprefix(settings.names.prefix), RowState.FINE, text + old, facts=facts
    )


def _lease(lease: LeaseState) -> Row:
    # `STREAM#demand-table SHARD#...` and `LEASE#draw-spring LEASE`.
    name = lease.name if lease.name != "LEASE" else lease.scope.partition("#")[2]
    text = f"held by {lease.owner}" if lease.owner else "free"
    facts = {
        "scope": lease.scope,
        "owner": lease.owner or None,
        "token": lease.token,
        "position": lease.position or None,
    }
    return Row("leases", name, RowState.FINE, text, facts=facts)


def _drains(drains: Iterable[DrainWindow], snapshot: Snapshot, settings: Settings) -> Iterable[Row]:
    """A drain that is paused says only that."""
    paused = {each.drain for each in _pauses(snapshot)}
    campaigns = () if isinstance(snapshot.campaigns, Unread) else snapshot.campaigns
    is_open = any(campaign.status == "OPEN" for campaign in campaigns)
    return (_drain(each, is_open) for each in drains if each.name not in paused)


def _pauses(snapshot: Snapshot) -> tuple[PausedDrain, ...]:
    return () if isinstance(snapshot.pauses, Unread) else snapshot.pauses


def _paused(paused: PausedDrain) -> Row:
    return Row(
        "drains",
        paused.drain,
        RowState.NOTE,
        paused.text,
        paused.since,
        help=paused.remedy,
        facts=paused.as_dict(),
    )


def _drain(drain: DrainWindow, is_open: bool) -> Row:
    p95, lag = drain.batch_p95_seconds, drain.lag_p95_seconds
    parts = [f"{drain.active_runs} running"] if drain.active_runs else []
    parts += [f"{drain.received:,} in {duration(drain.window_seconds)}"]
    parts += [f"{drain.failed:,} failed"] if drain.failed else []
    parts += [f"{differing:,} differ"] if (differing := sum(drain.differing.values())) else []
    parts += [f"batch p95 {p95:.1f} s"] if p95 is not None else []
    parts += [f"lag p95 {lag:.1f} s"] if lag is not None else []
    facts = {
        "windowSeconds": drain.window_seconds,
        "received": drain.received,
        "failed": drain.failed,
        "differing": dict(drain.differing),
        "activeRuns": drain.active_runs,
        "batchP95Seconds": p95,
        "batchLimitSeconds": drain.batch_limit_seconds,
        "lagP95Seconds": lag,
    }
    text = ", ".join(parts) if drain.received or drain.active_runs else "idle"
    state, way = RowState.FINE, ""
    if drain.wanted and not drain.active_runs:
        text += (
            ", none runs although a campaign is open: entries wait for a start"
            if is_open
            else ", none runs although one should stand by: no campaign is open, and what comes waits for a start"
        )
        state, way = RowState.NOTE, f"regworkers drain {drain.name} --resident"
    return Row("drains", drain.name, state, text, drain.last_seen_at, help=way, facts=facts)


def _campaign(campaign: CampaignState) -> Row:
    markets = f", {campaign.open_markets} markets open" if campaign.open_markets else ""
    failed = f", {campaign.failed}" if campaign.failed else ""
    facts = {
        "status": campaign.status,
        "closesAt": campaign.closes_at,
        "leaseOwner": campaign.lease_owner or None,
        "openMarkets": campaign.open_markets,
        "failed": campaign.failed or None,
    }
    return Row(
        "campaigns",
        campaign.campaign_id,
        RowState.NOTE if campaign.failed else RowState.FINE,
        campaign.status + markets + failed,
        campaign.since,
        f"regworkers campaign status {campaign.campaign_id}" if campaign.failed else "",
        facts,
    )


def _parity(parity: ParityState | None, *_: object) -> Iterable[Row]:
    if parity is None:
        text, help_ = "source and replica were never compared", "regworkers reconcile"
        yield Row("parity", "replica", RowState.NOTE, text, help=help_, facts={"differences": None})
        return
    total = sum(parity.differences.values())
    text = f"{total:,} entries differ" if total else "replica equals source"
    verified = parity.verified_as_of or None
    facts = {"comparedAt": parity.at, "verifiedAsOf": verified, "differences": dict(parity.differences)}
    text += f", compared {parity.at}" + (f", verified as of {verified}" if verified else "")
    yield Row("parity", "replica", RowState.FINE, text, facts=facts)


def _certificate(certificate: CertificateState) -> Row:
    days = certificate.days_left
    text = "none configured" if days is None else f"{days:.0f} days left"
    facts = {"daysLeft": days, "subject": certificate.subject or None, "trouble": certificate.trouble or None}
    return Row(
        "certificates", certificate.environment, RowState.FINE, certificate.trouble or text, facts=facts
    )


def _daemons(scheduler: SchedulerState, *_: object) -> Iterable[Row]:
    for name, beat in scheduler.daemons.items():
        text = f"last heartbeat {beat}" if beat else "no heartbeat yet"
        yield Row("daemons", name, RowState.FINE, text, facts={"lastHeartbeatAt": beat})


def _sensors(scheduler: SchedulerState, *_: object) -> Iterable[Row]:
    for tick in scheduler.ticks:
        facts: Mapping[str, Any] = {
            "intervalSeconds": tick.interval_seconds,
            "lastTickAt": tick.last_tick_at,
            "error": tick.error or None,
        }
        text = f"last tick {tick.last_tick_at}" if tick.last_tick_at else "no tick yet"
        yield Row("sensors", tick.name, RowState.FINE, text, facts=facts)


def _runs(scheduler: SchedulerState, *_: object) -> Iterable[Row]:
    queued = scheduler.queued_runs
    yield Row("runs", "queued", RowState.FINE, f"{queued} queued", facts={"number": queued})
    # A doctor run that found something has failed, which is not a problem of its own.
    for run in (run for run in scheduler.failed_runs if run.job != _OWN_JOB):
        name = f"{run.job}/{run.partition}" if run.partition else run.job
        facts = {"runId": run.run_id, "job": run.job, "partition": run.partition or None}
        yield Row("runs", name, RowState.NOTE, f"run {run.run_id[:8]} failed", run.ended_at, facts=facts)


Rows: TypeAlias = Callable[[Any, Snapshot, Settings], Iterable[Row]]


def _each(row: Callable[[Any], Row]) -> Rows:
    return lambda found, *_: map(row, found)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the doctor's answer."""

    title: str
    # The part of the snapshot that its rows show.
    reads: str
    rows: Rows
    # Rows that are shown even if that part could not be read.
    more: Callable[[Snapshot, Settings], Iterable[Row]] | None = None
    # What helps with a finding about a row; empty: what its runbook says first.
    helps: Callable[[str, Settings], str] = lambda name, settings: ""


# In display order.
SECTIONS: Mapping[str, Section] = {
    "dependencies": Section(
        "Dependencies",
        "dependencies",
        _dependencies,
        helps=lambda name, _: f"regworkers service check {name[8:]}" if name.startswith("service-") else "",
    ),
    "queues": Section("Queues", "queues", partial(_queues, dead=False)),
    "deadLetterQueues": Section(
        "Dead letters",
        "queues",
        partial(_queues, dead=True),
        helps=lambda name, _: f"regworkers dlq groups {name.removesuffix('-dlq')}",
    ),
    "stream": Section("Stream", "stream", _stream),
    "archive": Section(
        "Archive", "archive", lambda found, _, settings: (_unarchived(each, settings) for each in found)
    ),
    "leases": Section("Leases", "leases", _each(_lease)),
    "drains": Section("Drains", "drains", _drains, lambda snapshot, _: map(_paused, _pauses(snapshot))),
    "eligibility": Section("checkEligibility", "function", _function),
    "campaigns": Section(
        "Campaigns",
        "campaigns",
        _each(_campaign),
        helps=lambda name, _: f"regworkers campaign status {name}",
    ),
    "parity": Section("Parity", "parity", _parity),
    "certificates": Section("Certificates", "certificates", _each(_certificate)),
    "daemons": Section(
        "Daemons",
        "scheduler",
        _daemons,
        helps=lambda _, settings: (
            "make dev" if settings.environment == "local-dev" else "restart dagster-daemon"
        ),
    ),
    "sensors": Section(
        "Sensors",
        "scheduler",
        _sensors,
        helps=lambda name, _: f"Dagster UI, Automation, {name.rpartition(':')[2]}",
    ),
    "runs": Section("Runs", "scheduler", _runs),
    "logs": Section("Log lines", "lines", _lines),
}
