"""A snapshot of the whole system, as plain values: what the doctor prints and alert conditions evaluate; and the alerts
that follow: what is wrong, how urgent it is, and the runbook page.

Whatever could not be read is `Unread` and says why: it is never taken for empty, so that an alert neither opens nor
closes on a blind eye.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias, TypeVar

from fairdraw.documents import as_document
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.timestamps import seconds


class Severity(StrEnum):
    """CRITICAL pages the engineer on call; WARNING is read in the morning."""

    CRITICAL = "critical"
    WARNING = "warning"

    @classmethod
    def worst(cls, severities: Iterable[Severity]) -> Severity:
        """CRITICAL if one of them is. Raises ValueError without any."""
        return min(severities, key=list(cls).index)


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition that holds now. None of it holds a fan's data."""

    key: str  # `<scope>:<what>`, which stays the same while the cause does
    severity: Severity
    summary: str  # one line with the numbers in it
    runbook: str  # a path below docs/
    details: dict[str, Any] = field(default_factory=dict)  # numbers and ids of ours

    @property
    def scope(self) -> str:
        """The scope of the condition: the part of the key before the first colon."""
        return self.key.partition(":")[0]


class IncidentChange(StrEnum):
    OPENED = "opened"
    # An operator has taken it on; it is still open.
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


T = TypeVar("T")
# How long a pause of a drain is meant to last if its operator does not say.
PAUSE_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Unread:
    """Something that could not be read."""

    why: str  # one line
    dependency: str = ""  # what did not answer; empty where no dependency is at fault
    late: bool = False  # nothing came in time, which may be the fault of this machine
    slack_seconds: float = 0.0  # for so long, what it hides is not urgent


Reading: TypeAlias = T | Unread
AGE_UNKNOWN = Unread("the age of the oldest unread record of the stream is unknown", "streams")
NOT_READ = Unread("not read")


@dataclass(frozen=True, slots=True)
class QueueState:
    """Messages of a queue by their state."""

    name: str
    visible: int  # messages that wait
    in_flight: int
    delayed: int  # messages that come later
    is_dead_letter: bool  # a `-dlq`
    retention_seconds: float
    oldest_seconds: float | None = None  # the oldest message is at least this old, None: unknown
    age_unread: Unread | None = None  # why, if it could not be read
    oldest_at_most_seconds: float | None = None  # the oldest message is at most this old, None: unknown

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
    """The demand table's stream."""

    shards: int  # open and closed ones
    # The age of the oldest record that no checkpoint covers; 0 when all is read, None when it is not known.
    iterator_age_seconds: float | None
    retention_seconds: float = 24 * 3600.0
    unread: bool = False  # whether there is such a record, also if its age is not known

    @property
    def due(self) -> Reading[str]:
        """The work that its drain could do now, in words; empty: none."""
        if self.unread or self.iterator_age_seconds:
            return "records of the stream are unread"
        return AGE_UNKNOWN if self.iterator_age_seconds is None else ""


@dataclass(frozen=True, slots=True)
class UnarchivedEvents:
    """Events of a topic that the archive has not read."""

    topic: str
    waiting: int  # how many
    oldest_seconds: float | None  # the age of the oldest, None: unknown
    retention_seconds: float | None  # Kafka deletes them at this age, None: never


@dataclass(frozen=True, slots=True)
class LeaseState:
    """A lease of `worker-leases`."""

    scope: str  # what it is a lease of
    name: str
    owner: str  # empty: it is free
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
    """A drain that has stopped itself because one defect failed too many of its items."""

    drain: str
    fingerprint: str  # that of the defect among dead letters
    reason: str  # what failed
    tripped_at: str  # an ISO time
    run_id: str
    code_version: str = ""

    def as_dict(self) -> dict[str, str]:
        """What `worker-leases` stores under the name of the drain."""
        return as_document(self, "fingerprint", "reason", "tripped_at", "code_version", "run_id")


@dataclass(frozen=True, slots=True)
class PausedDrain:
    """A drain that an operator paused. It stays paused after its end, which is when an alert asks for it."""

    drain: str
    since: str  # an ISO time
    by: str  # the operator
    reason: str
    # Empty: PAUSE_SECONDS after `since`.
    until: str = ""

    def as_dict(self) -> dict[str, str]:
        """What `worker-leases` stores under the name of the drain."""
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
    """Where a campaign and its draw are."""

    campaign_id: str
    status: str  # its status
    since: str | None  # when it came into that
    closes_at: str | None
    lease_owner: str = ""  # who works on its draw; empty: free
    open_markets: int = 0
    failed: str = ""  # the markets of its draw that are blocked, and why
    lease_beat: str = ""  # another one whenever it is read, while the owner lives
    # When the beacon signs the round that its draw waits for, None: it waits for none.
    round_due_at: str | None = None
    paused_since: str | None = None  # since when its replication is paused; None: it is not
    lag_seconds: float | None = None  # the longest of its last saves; None: nothing of it was saved lately
    # When a further phase was drawn that is not confirmed and whose messages wait, None: none does.
    held_since: str | None = None
    failed_messages: int = 0  # those that raised an exception by themselves
    stopped: str = ""  # which file of its draw is not the one that was written; empty: all are
    # When the first phase completed whose codes and messages were not checked since, None: all were.
    unjudged_since: str | None = None
    # What an evaluation compares while the public log lacks it, or a change of it; empty: the log has it.
    not_logged: str = ""
    refused: str = ""  # why the public log can never have it as it is; empty: it can
    # Why no seat of it passes on by itself although one should; empty: none should, or it does.
    round_stopped: str = ""
    keys: str = ""  # the name of the secret with its keys, which it needs now; empty: none
    # The ISO times at which each of its phases began and was drawn, None: it is not yet.
    draws: tuple[tuple[str, str | None], ...] = ()

    @property
    def is_drawn(self) -> bool:
        """Whether a phase of its draw is published."""
        return self.status == "COMPLETED" or self.open_markets > 0


@dataclass(frozen=True, slots=True)
class RegistrationsState:
    """How far the public log has the registrations of a campaign that is open, or was not drawn yet."""

    campaign_id: str
    size: int = 0  # entries of its tree
    logged: int = 0  # how many of them the published log has
    # When the tree had the last size that is in the log, and the first one that is not (ISO), None: there is none.
    logged_at: str | None = None
    lacks_since: str | None = None
    closes_at: str | None = None  # when registration ends or ended
    trouble: str = ""  # why tree or log cannot be read; empty: they can


@dataclass(frozen=True, slots=True)
class CertificateState:
    """The certificate of one environment."""

    environment: str
    days_left: float | None  # None: not known
    subject: str = ""  # whom it names
    trouble: str = ""  # what is wrong besides its age; empty: nothing
    unusable: bool = False  # no new connection is made with it


@dataclass(frozen=True, slots=True)
class TickState:
    """A sensor or schedule that is switched on."""

    name: str
    interval_seconds: float
    last_tick_at: str | None  # an ISO time, None: never
    error: str = ""  # what its last tick raised
    since: str | None = None  # when it was switched on, None: not known
    # A schedule's first time after its last tick or since it was switched on, None: not known.
    due_at: str | None = None


class SelectionJob(StrEnum):
    """From the closing of a campaign to the messages to its fans, besides the drains on that way. Who declares such a
    job takes its name from here.
    """

    DRAW = "draw"
    TOP_UP = "top_up"
    LAPSE = "pass_on"
    CONFIRM = "confirm_draw"
    RETRY = "retry_market_selection"


class CopyJob(StrEnum):
    """Those that bring copies up to date, besides the drains. Who declares such a job takes its name from here."""

    RECONCILE = "reconcile_entries"
    BACKFILL = "backfill_entries"
    ARCHIVE = "archive_events"


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run of Dagster that failed."""

    run_id: str
    job: str
    ended_at: str  # an ISO time
    partition: str = ""  # the campaign of its work; empty: it has none, or failed before that was known


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """What Dagster does."""

    daemons: Mapping[str, str | None]  # the last heartbeat (ISO) of each required daemon, None: never seen
    ticks: tuple[TickState, ...] = ()  # of sensors and schedules
    # Those of the last day (of draws: week), and only the last that ended of its job and partition.
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
    """What came of the calls of checkEligibility within the last `window_seconds`."""

    window_seconds: float
    calls: int  # how many came
    errors: int  # calls that raised
    throttles: int  # calls that AWS refused
    unknown: int  # verdicts that could not be given
    duration_p95_seconds: float | None
    limit_seconds: float  # how long a call may take


@dataclass(frozen=True, slots=True)
class LinesState:
    """Whether a line of a pod `arrived` in the log group within the last `window_seconds`."""

    log_group: str
    window_seconds: float
    arrived: bool


@dataclass(frozen=True, slots=True)
class BeaconState:
    """The beacon that seeds draws, by the latest round that it has signed."""

    chain: str  # its name
    round: int  # its number
    due_at: str  # when that round was to be signed, an ISO time
    ago_seconds: float  # since then by this machine's clock; below 0: it is to come
    lead_seconds: int  # from the commit of a draw to its round, by the settings
    # What readers want it to be: by the rules, or by a trust file. None: no trust file has the chain.
    trusted_lead_seconds: int | None


# What is promised of every item of `drain_log` and of every draw; `objectives` has a target for each.
FRESHNESS, DELIVERY, DRAWS, CORRECTNESS = "freshness", "delivery", "draws", "correctness"
OBJECTIVES = (FRESHNESS, DELIVERY, DRAWS, CORRECTNESS)


@dataclass(frozen=True, slots=True)
class Share:
    """How many of the `events` were `bad`."""

    events: int = 0
    bad: int = 0

    def burn(self, target: float) -> float:
        """How many times faster than it may the budget of this target burns; 0 without events."""
        return self.bad / self.events / (1 - target) if self.events else 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What is left of an objective's budget, over all its subjects: 1 is all of it, below 0 it is overdrawn."""

    objective: str
    target: float
    share: Share

    @property
    def left(self) -> float:
        return 1 - self.share.burn(self.target)


@dataclass(frozen=True, slots=True)
class ObjectiveState:
    """What came of an objective's events within each window."""

    objective: str  # its name
    subject: str  # the part of the alert's key that it shares with a condition
    windows: Mapping[float, Share]  # for each window, in seconds until now
    # The same for the short windows of pages, of items without their two worst minutes.
    steady: Mapping[float, Share]
    last_bad_at: float | None = None  # when the last bad event came (epoch seconds), None: not known


class Pattern(NamedTuple):
    """Error and warning lines that say the same."""

    level: str  # that of the log
    worker: str  # who wrote them
    event: str  # what they say
    about: str  # the dependency, reason or error, with `#` for ids and numbers


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read of a system, or of a part of it."""

    at: str  # an ISO time
    environment: str
    # For each None when it answers, else what is wrong in one line.
    dependencies: Mapping[str, str | None] = field(default_factory=dict)
    queues: Reading[tuple[QueueState, ...]] = NOT_READ  # those whose depth could be read; Unread: none
    stream: Reading[StreamState] = NOT_READ
    leases: Reading[tuple[LeaseState, ...]] = NOT_READ
    drains: Reading[tuple[DrainWindow, ...]] = NOT_READ
    campaigns: Reading[tuple[CampaignState, ...]] = NOT_READ
    certificates: Reading[tuple[CertificateState, ...]] = NOT_READ
    scheduler: Reading[SchedulerState] = NOT_READ
    parity: Reading[ParityState | None] = NOT_READ
    unread_queues: Mapping[str, Unread] = field(default_factory=dict)  # the others, by their full name
    fuses: Reading[tuple[BlownFuse, ...]] = ()  # of drains, blown
    pauses: Reading[tuple[PausedDrain, ...]] = ()  # of drains
    archive: Reading[tuple[UnarchivedEvents, ...]] = ()
    objectives: Reading[tuple[ObjectiveState, ...]] = ()
    acknowledged: Reading[tuple[LastAcknowledged, ...]] = ()
    messages_due: Reading[bool] = False  # whether the outbox has messages that a sender may send now
    registrations_due: Reading[bool] = False  # whether a tree of registrations lacks what it may get now
    campaign_keys: Reading[frozenset[str]] = frozenset()  # names of the secrets with keys of campaigns
    registrations: Reading[tuple[RegistrationsState, ...]] = ()  # of campaigns that log them
    forged: Reading[int] = 0  # open dead letters FORGED
    unjudged: tuple[str, ...] = ()  # dependencies that a machine without a free core could not judge
    # None: CloudWatch has no metrics of this environment, no agent collects its lines.
    function: Reading[FunctionState | None] = None
    lines: Reading[LinesState | None] = None
    beacon: Reading[BeaconState] = NOT_READ
    # Only reviews read these.
    budgets: Reading[tuple[Budget, ...]] = NOT_READ
    patterns: Reading[Counter[Pattern]] = NOT_READ  # how many lines of each, in the period
    patterns_before: Reading[Counter[Pattern]] = NOT_READ  # the same of the period before
