"""A snapshot of the whole system, as plain values: what the doctor prints and alert conditions evaluate.

Whatever could not be read is `Unread` and says why: it is never taken for empty, so that an alert neither opens nor
closes on a blind eye.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from fairdraw.documents import as_document
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.timestamps import seconds

T = TypeVar("T")
# How long a pause of a drain is meant to last if its operator does not say.
PAUSE_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Unread:
    """`why` is one line. `dependency` names what did not answer; empty where no dependency is at fault. `late`: nothing
    came in time, which may be the fault of this machine. What it hides is not urgent for `slack_seconds`.
    """

    why: str
    dependency: str = ""
    late: bool = False
    slack_seconds: float = 0.0


Reading: TypeAlias = T | Unread
AGE_UNKNOWN = Unread("the age of the oldest unread record of the stream is unknown", "streams")
NOT_READ = Unread("not read")


@dataclass(frozen=True, slots=True)
class QueueState:
    """Messages by their state; `is_dead_letter` for a `-dlq`. Ages and retention in seconds.

    The oldest message is at least `oldest_seconds` and at most `oldest_at_most_seconds` old; None: unknown, and
    `age_unread` says why if it could not be read.
    """

    name: str
    visible: int
    in_flight: int
    delayed: int
    is_dead_letter: bool
    retention_seconds: float
    oldest_seconds: float | None = None
    age_unread: Unread | None = None
    oldest_at_most_seconds: float | None = None

    @property
    def waiting(self) -> int:
        return self.visible + self.in_flight + self.delayed

    @property
    def seconds_left(self) -> float | None:
        """Until SQS deletes the oldest message; None: unknown."""
        if self.oldest_seconds is None:
            return None
        return max(0.0, self.retention_seconds - self.oldest_seconds)


@dataclass(frozen=True, slots=True)
class StreamState:
    """The demand table's stream: its open and closed shards, and the age in seconds of the oldest record that no
    checkpoint covers; 0 when all is read, None when that is not known. `unread`: there is such a record, also if its
    age is not known.
    """

    shards: int
    iterator_age_seconds: float | None
    retention_seconds: float = 24 * 3600.0
    unread: bool = False

    @property
    def due(self) -> Reading[str]:
        """The work that its drain could do now, in words; empty: none."""
        if self.unread or self.iterator_age_seconds:
            return "records of the stream are unread"
        return AGE_UNKNOWN if self.iterator_age_seconds is None else ""


@dataclass(frozen=True, slots=True)
class UnarchivedEvents:
    """Events of a topic that the archive has not read: how many, and the age in seconds of the oldest, None: unknown.
    Kafka deletes them when they are `retention_seconds` old; None: never.
    """

    topic: str
    waiting: int
    oldest_seconds: float | None
    retention_seconds: float | None


@dataclass(frozen=True, slots=True)
class LeaseState:
    """A lease of `worker-leases`: `owner` is empty while it is free."""

    scope: str
    name: str
    owner: str
    token: int
    position: str = ""


@dataclass(frozen=True, slots=True)
class LastAcknowledged:
    """The last acknowledgement of a drain, of all its runs: `mark` is another one after each, `at` the ISO time by the
    clock of the run.
    """

    drain: str
    mark: int
    at: str


@dataclass(frozen=True, slots=True)
class BlownFuse:
    """A drain that has stopped itself because one defect failed too many of its items: what failed (`reason`, and its
    `fingerprint` among dead letters), when (ISO time), in which run, of which version.
    """

    drain: str
    fingerprint: str
    reason: str
    tripped_at: str
    run_id: str
    code_version: str = ""

    def as_dict(self) -> dict[str, str]:
        """As `worker-leases` stores it, under the name of the drain."""
        return as_document(self, "fingerprint", "reason", "tripped_at", "code_version", "run_id")


@dataclass(frozen=True, slots=True)
class PausedDrain:
    """A drain that an operator paused: since and until when (ISO times), who and why. It stays paused after its end,
    which is when an alert asks for it.
    """

    drain: str
    since: str
    by: str
    reason: str
    # Empty: PAUSE_SECONDS after `since`.
    until: str = ""

    def as_dict(self) -> dict[str, str]:
        """As `worker-leases` stores it, under the name of the drain."""
        return as_document(self, "since", "until", "by", "reason")

    def is_over(self, now: float) -> bool:
        """Whether its time has passed at `now` (epoch seconds)."""
        began = seconds(self.since) or 0.0
        return now >= (seconds(self.until) or began + PAUSE_SECONDS)

    @property
    def text(self) -> str:
        until = f" until {self.until}" if self.until else ""
        return f"paused since {self.since}{until} by {self.by}: {self.reason}"

    @property
    def remedy(self) -> str:
        """The command that ends it."""
        return f"regworkers drain resume {self.drain}"


@dataclass(frozen=True, slots=True)
class CampaignState:
    """`since` is when it came into its status, `lease_owner` who works on its draw (empty: free). `lease_beat` is
    another one at every look while that one lives. `round_due_at` is when the beacon signs the round that its draw
    waits for, None: it waits for none. Messages are `held_since` a further phase that is not confirmed was drawn, None:
    none is held; `failed_messages` raised an exception by themselves. `stopped` says which file of its draw is not the
    one that was written, empty: all are. `unjudged_since` is when the first phase completed whose codes and messages
    were not checked since, None: all were. `draws` are the ISO times at which each of its phases began and was drawn,
    None: is not yet.
    """

    campaign_id: str
    status: str
    since: str | None
    closes_at: str | None
    lease_owner: str = ""
    open_markets: int = 0
    failed: str = ""
    lease_beat: str = ""
    round_due_at: str | None = None
    held_since: str | None = None
    failed_messages: int = 0
    stopped: str = ""
    unjudged_since: str | None = None
    draws: tuple[tuple[str, str | None], ...] = ()

    @property
    def is_drawn(self) -> bool:
        """Whether a phase of its draw is published."""
        return self.status == "COMPLETED" or self.open_markets > 0


@dataclass(frozen=True, slots=True)
class CertificateState:
    """Of one environment; `trouble` is what is wrong besides its age, empty: nothing. With one that is `unusable` no
    new connection is made.
    """

    environment: str
    days_left: float | None
    subject: str = ""
    trouble: str = ""
    unusable: bool = False


@dataclass(frozen=True, slots=True)
class TickState:
    """A sensor or schedule that is switched on: ISO time of its last tick, None: never. `error` of that tick.

    `since` is when it was switched on, None: not known. Of a schedule, `due_at` is its first time after its last tick,
    or after `since`; None: not known.
    """

    name: str
    interval_seconds: float
    last_tick_at: str | None
    error: str = ""
    since: str | None = None
    due_at: str | None = None


# Jobs from the closing of a campaign to the messages to its fans, besides the drains on that way (`flows`).
DRAW = "draw"
SELECTION_JOBS = (DRAW, "top_up", "confirm_draw", "retry_market_selection")


@dataclass(frozen=True, slots=True)
class FailedRun:
    """`partition` is the campaign of its work; empty: it has none, or failed before that was known."""

    run_id: str
    job: str
    ended_at: str
    partition: str = ""


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """Of Dagster: `daemons` maps each required daemon to its last heartbeat (ISO), None: never seen. `failed_runs`
    are of the last day (of draws: week), and only the last that ended of its job and partition.
    """

    daemons: Mapping[str, str | None]
    ticks: tuple[TickState, ...] = ()
    failed_runs: tuple[FailedRun, ...] = ()
    queued_runs: int = 0


@dataclass(frozen=True, slots=True)
class ParityState:
    """What the last reconcile found, `differences` by class; `at` is its ISO time, and until `verified_as_of` every
    entry was verified (empty: some never were).
    """

    at: str
    differences: Mapping[str, int] = field(default_factory=dict)
    verified_as_of: str = ""


@dataclass(frozen=True, slots=True)
class FunctionState:
    """What came of the calls of checkEligibility within the last `window_seconds`, of which each may take
    `limit_seconds`. `unknown` counts verdicts that could not be given.
    """

    window_seconds: float
    calls: int
    errors: int
    throttles: int
    unknown: int
    duration_p95_seconds: float | None
    limit_seconds: float


@dataclass(frozen=True, slots=True)
class LinesState:
    """Whether a line of a pod `arrived` in the log group within the last `window_seconds`."""

    log_group: str
    window_seconds: float
    arrived: bool


# What is promised of every item of `drain_log` and of every draw; `objectives` has a target for each.
FRESHNESS, DELIVERY, DRAWS, CORRECTNESS = "freshness", "delivery", "draws", "correctness"
OBJECTIVES = (FRESHNESS, DELIVERY, DRAWS, CORRECTNESS)


@dataclass(frozen=True, slots=True)
class Share:
    """Of `events`, how many were `bad`."""

    events: int = 0
    bad: int = 0

    def burn(self, target: float) -> float:
        """How many times faster than it may the budget of this target burns; 0 without events."""
        return self.bad / self.events / (1 - target) if self.events else 0.0


@dataclass(frozen=True, slots=True)
class ObjectiveState:
    """What came of an objective's events within each window (its seconds, until now). `subject` is the part of the
    alert's key that the objective shares with a condition. `steady` are the short windows of pages, of items
    without their two worst minutes. The last bad event came at `last_bad_at` (epoch seconds), None: not known.
    """

    objective: str
    subject: str
    windows: Mapping[float, Share]
    steady: Mapping[float, Share]
    last_bad_at: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read of a system, or of a part of it. `at` is an ISO time. `dependencies` maps each to None when it
    answers, else to what is wrong in one line; `unjudged` are those that a machine without a free core could not judge.
    `queues` has those whose depth could be read (Unread: none), `unread_queues` the others by their full name.
    `messages_due`: the outbox has messages that a sender may send now. `forged` is the number of open dead letters
    FORGED.
    """

    at: str
    environment: str
    dependencies: Mapping[str, str | None] = field(default_factory=dict)
    queues: Reading[tuple[QueueState, ...]] = NOT_READ
    stream: Reading[StreamState] = NOT_READ
    leases: Reading[tuple[LeaseState, ...]] = NOT_READ
    drains: Reading[tuple[DrainWindow, ...]] = NOT_READ
    campaigns: Reading[tuple[CampaignState, ...]] = NOT_READ
    certificates: Reading[tuple[CertificateState, ...]] = NOT_READ
    scheduler: Reading[SchedulerState] = NOT_READ
    parity: Reading[ParityState | None] = NOT_READ
    unread_queues: Mapping[str, Unread] = field(default_factory=dict)
    fuses: Reading[tuple[BlownFuse, ...]] = ()
    pauses: Reading[tuple[PausedDrain, ...]] = ()
    archive: Reading[tuple[UnarchivedEvents, ...]] = ()
    objectives: Reading[tuple[ObjectiveState, ...]] = ()
    acknowledged: Reading[tuple[LastAcknowledged, ...]] = ()
    messages_due: Reading[bool] = False
    forged: Reading[int] = 0
    unjudged: tuple[str, ...] = ()
    # None: CloudWatch has no metrics of this environment, no agent collects its lines.
    function: Reading[FunctionState | None] = None
    lines: Reading[LinesState | None] = None
