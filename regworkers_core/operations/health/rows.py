"""The snapshot as rows, one for each component: its state, since when, and what helps. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any, TypeAlias

from fairdraw.documents import as_document
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.snapshot import (
    BeaconState,
    CampaignState,
    CertificateState,
    FunctionState,
    LeaseState,
    LinesState,
    ParityState,
    PausedDrain,
    QueueState,
    SchedulerState,
    Severity,
    Snapshot,
    StreamState,
    UnarchivedEvents,
    Unread,
)
from regworkers_core.domain.timestamps import duration
from regworkers_core.operations.dependency_status import TOO_BUSY, way_out
from regworkers_core.reporting import counted
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

    @property
    def rank(self) -> int:
        """How bad it is: the worst is the highest."""
        return list(RowState).index(self)

    @classmethod
    def of(cls, severity: Severity) -> RowState:
        return cls.CRITICAL if severity is Severity.CRITICAL else cls.WARNING


@dataclass(frozen=True, slots=True)
class Row:
    """One thing of a section."""

    name: str
    # Its state in words.
    text: str
    state: RowState = RowState.FINE
    # An ISO time, None: unknown.
    since: str | None = None
    # The command that helps.
    help: str = ""
    # Numbers and ids for programs.
    facts: Mapping[str, Any] = field(default_factory=dict)
    # The title of its section.
    section: str = ""

    def as_dict(self) -> dict[str, Any]:
        document = as_document(self, "name", "state", "text", "since", "help")
        return {**document, "help": self.help or None, **self.facts}


def _facts(value: Any, *names: str) -> dict[str, Any]:
    """An empty text is None."""
    return {name: None if each == "" else each for name, each in as_document(value, *names).items()}


def _unread(name: str, why: str, settings: Settings, dependency: str = "") -> Row:
    return Row(name, why, RowState.UNREAD, help=way_out(why, settings, dependency))


def rows_of(snapshot: Snapshot, settings: Settings) -> list[Row]:
    return [
        replace(row, section=name)
        for name, section in SECTIONS.items()
        for row in _rows(section, snapshot, settings)
    ]


def _rows(section: Section, snapshot: Snapshot, settings: Settings) -> Iterable[Row]:
    found = getattr(snapshot, section.reads)
    if not isinstance(found, Unread):
        yield from section.rows(found, snapshot, settings)
    elif section.reads == "scheduler" and not settings.dagster.url:
        # Without a configured address nothing is wrong with Dagster.
        yield replace(_unread("", found.why, settings), state=RowState.UNKNOWN)
    else:
        yield _unread("", found.why, settings)
    if section.more:
        yield from section.more(snapshot, settings)


def _dependencies(found: Mapping[str, str | None], snapshot: Snapshot, settings: Settings) -> Iterable[Row]:
    for name, trouble in found.items():
        external = name == "dynamodb" and settings.demand_table.external
        text = f"answers{' (demand table: external)' if external else ''}"
        yield Row(name, text) if trouble is None else _unread(name, trouble, settings, name)
    yield from (Row(name, TOO_BUSY, RowState.UNREAD) for name in snapshot.unjudged)


def _queues(
    queues: Iterable[QueueState], snapshot: Snapshot, settings: Settings, *, dead: bool
) -> Iterable[Row]:
    """Queues that could not be read while others could come last."""
    prefix = settings.names.prefix
    for queue in queues:
        oldest = queue.oldest_seconds
        if queue.is_dead_letter is dead:
            old = f", oldest {duration(oldest)}" if queue.waiting and oldest is not None else ""
            text = f"{queue.waiting:,} waiting{old}" if queue.waiting else "empty"
            facts = as_document(queue, "visible", "in_flight", "delayed")
            facts |= {
                "oldestSeconds": None if oldest is None else round(oldest),
                "retentionSeconds": round(queue.retention_seconds),
            }
            yield Row(queue.name.removeprefix(prefix), text, facts=facts)
    for name, unread in snapshot.unread_queues.items():
        if name.endswith("-dlq") is dead:
            yield _unread(name.removeprefix(prefix), unread.why, settings)


def _stream(stream: StreamState, *_: object) -> Iterable[Row]:
    age = stream.iterator_age_seconds
    if age is None:
        text = "age of the oldest unread record unknown"
    else:
        text = f"oldest unread record {duration(age)} old" if age else "all read"
    shards = counted(stream.shards, "shard")
    state = RowState.NOTE if age is None else RowState.FINE
    yield Row(STREAM, f"{shards}, {text}", state, facts=_facts(stream, "shards", "iterator_age_seconds"))


def _function(read: FunctionState | None, *_: object) -> Iterable[Row]:
    if read is None:
        return [Row("", "no metrics in CloudWatch")]
    p95 = read.duration_p95_seconds
    took = "" if p95 is None else f", p95 {p95:.1f} s of {read.limit_seconds:g} s"
    text = (
        f"{read.calls:,} calls in {duration(read.window_seconds)}: {read.errors:,} errors, "
        f"{read.throttles:,} throttled, {read.unknown:,} UNKNOWN{took}"
    )
    names = ("calls", "errors", "throttles", "unknown", "duration_p95_seconds", "limit_seconds")
    return [Row("", text, facts=_facts(read, *names))]


def _lines(read: LinesState | None, *_: object) -> Iterable[Row]:
    if read is None:
        return [Row("", "no agent collects them here")]
    arrived = "arrive" if read.arrived else f"none for {duration(read.window_seconds)}"
    return [Row("", f"{read.log_group}: {arrived}")]


def _unarchived(events: UnarchivedEvents, settings: Settings) -> Row:
    oldest, kept = events.oldest_seconds, events.retention_seconds
    text = f"{events.waiting:,} not archived" if events.waiting else "all archived"
    old = f", oldest {duration(oldest)}" if events.waiting and oldest is not None else ""
    facts = {"waiting": events.waiting, "oldestSeconds": oldest and round(oldest), "retentionSeconds": kept}
    return Row(events.topic.removeprefix(settings.names.prefix), text + old, facts=facts)


def _lease(lease: LeaseState) -> Row:
    # `STREAM#demand-table SHARD#...` and `LEASE#draw-spring LEASE`.
    name = lease.name if lease.name != "LEASE" else lease.scope.partition("#")[2]
    text = f"held by {lease.owner}" if lease.owner else "free"
    return Row(name, text, facts=_facts(lease, "scope", "owner", "token", "position"))


def _drains(drains: Iterable[DrainWindow], snapshot: Snapshot, settings: Settings) -> Iterable[Row]:
    """A drain that is paused says only that."""
    paused = {each.drain for each in _pauses(snapshot)}
    campaigns = () if isinstance(snapshot.campaigns, Unread) else snapshot.campaigns
    is_open = any(campaign.status == "OPEN" for campaign in campaigns)
    return (_drain(each, is_open) for each in drains if each.name not in paused)


def _pauses(snapshot: Snapshot) -> tuple[PausedDrain, ...]:
    return () if isinstance(snapshot.pauses, Unread) else snapshot.pauses


def _paused(paused: PausedDrain) -> Row:
    state, facts = RowState.NOTE, paused.as_dict()
    return Row(paused.drain, paused.text, state, paused.since, paused.remedy, facts)


def _drain(drain: DrainWindow, is_open: bool) -> Row:
    p95, lag = drain.batch_p95_seconds, drain.lag_p95_seconds
    parts = [f"{drain.active_runs} running"] if drain.active_runs else []
    parts += [f"{drain.received:,} in {duration(drain.window_seconds)}"]
    parts += [f"{drain.failed:,} failed"] if drain.failed else []
    parts += [f"{differing:,} differ"] if (differing := sum(drain.differing.values())) else []
    parts += [f"batch p95 {p95:.1f} s"] if p95 is not None else []
    parts += [f"lag p95 {lag:.1f} s"] if lag is not None else []
    names = ("received", "failed", "differing", "active_runs", "batch_p95_seconds", "batch_limit_seconds")
    facts = _facts(drain, "window_seconds", *names, "lag_p95_seconds")
    text = ", ".join(parts) if drain.received or drain.active_runs else "idle"
    state, way = RowState.FINE, ""
    if drain.wanted and not drain.active_runs:
        text += (
            ", none runs although a campaign is open: entries wait for a start"
            if is_open
            else ", none runs although one should stand by: no campaign is open, and what comes waits for a start"
        )
        state, way = RowState.NOTE, f"regworkers drain {drain.name} --resident"
    return Row(drain.name, text, state, drain.last_seen_at, way, facts)


def _campaign(campaign: CampaignState) -> Row:
    name, failed, paused = campaign.campaign_id, campaign.failed, campaign.paused_since
    parts = [campaign.status]
    parts += [f"{campaign.open_markets} markets open"] if campaign.open_markets else []
    parts += [f"replication paused since {paused}"] if paused else []
    parts += [f"lag {campaign.lag_seconds:.1f} s"] if campaign.lag_seconds is not None and not paused else []
    parts += [failed] if failed else []
    way = f"regworkers campaign status {name}" if failed else ""
    return Row(
        name,
        ", ".join(parts),
        RowState.NOTE if failed or paused else RowState.FINE,
        campaign.since,
        f"regworkers campaign resume {name}" if paused else way,
        _facts(campaign, "status", "closes_at", "lease_owner", "open_markets", "failed")
        | _facts(campaign, "paused_since", "lag_seconds"),
    )


def _parity(parity: ParityState | None, *_: object) -> Iterable[Row]:
    if parity is None:
        text, ways = "source and replica were never compared", "regworkers reconcile"
        yield Row("replica", text, RowState.NOTE, help=ways, facts={"differences": None})
        return
    total, verified = sum(parity.differences.values()), parity.verified_as_of or None
    text = f"{total:,} entries differ" if total else "replica equals source"
    text += f", compared {parity.at}" + (f", verified as of {verified}" if verified else "")
    facts = {"comparedAt": parity.at, "verifiedAsOf": verified, "differences": dict(parity.differences)}
    yield Row("replica", text, facts=facts)


def _certificate(found: CertificateState) -> Row:
    days = found.days_left
    text = "none configured" if days is None else f"{days:.0f} days left"
    facts = _facts(found, "days_left", "subject", "trouble")
    return Row(found.environment, found.trouble or text, facts=facts)


def _beacon(beacon: BeaconState, *_: object) -> Iterable[Row]:
    lead = beacon.trusted_lead_seconds
    known = "lead unknown" if lead is None else f"lead {lead} s"
    text = f"answers, latest round {beacon.round} of {beacon.due_at}, {known}"
    yield Row(beacon.chain, text, facts=_facts(beacon, "round", "due_at", "trusted_lead_seconds"))


def _daemons(scheduler: SchedulerState, *_: object) -> Iterable[Row]:
    for name, beat in scheduler.daemons.items():
        text = f"last heartbeat {beat}" if beat else "no heartbeat yet"
        yield Row(name, text, facts={"lastHeartbeatAt": beat})


def _sensors(scheduler: SchedulerState, *_: object) -> Iterable[Row]:
    for tick in scheduler.ticks:
        text = f"last tick {tick.last_tick_at}" if tick.last_tick_at else "no tick yet"
        yield Row(tick.name, text, facts=_facts(tick, "interval_seconds", "last_tick_at", "error"))


def _runs(scheduler: SchedulerState, *_: object) -> Iterable[Row]:
    queued = scheduler.queued_runs
    yield Row("queued", f"{queued} queued", facts={"number": queued})
    for run in scheduler.failed_runs:
        # A doctor run that found something has failed, which is not a problem of its own.
        if run.job != _OWN_JOB:
            name = f"{run.job}/{run.partition}" if run.partition else run.job
            text, facts = f"run {run.run_id[:8]} failed", _facts(run, "run_id", "job", "partition")
            yield Row(name, text, RowState.NOTE, run.ended_at, facts=facts)


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


# The sections, in the order in which they are shown.
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
    "beacon": Section("Beacon", "beacon", _beacon),
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
