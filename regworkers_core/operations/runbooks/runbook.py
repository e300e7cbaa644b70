"""What all runbooks share: the catalogue, the report, and the recent work of the drains from `drain_log`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from regworkers_core.adapters.mongo.activity import DrainMinute
from regworkers_core.domain.documents import as_document
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.snapshot import Reading, Unread
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.runtime import Runtime

MINUTE_SECONDS = 60.0
# A run writes its minute when it is over, or a little later: one that is silent for longer has ended or died.
_SILENT_SECONDS = 180.0
# Calls that write the log and the heartbeat are not part of the work.
_OVERHEAD = frozenset({"drain-log", "heartbeats"})
T = TypeVar("T")
P = ParamSpec("P")
Row = Mapping[str, Any]
# Called with one line of progress at a time.
OnLine = Callable[[str], None]


def no_line(_line: str) -> None:
    """The default of every `OnLine`."""


def read_or_unread(read: Callable[P, T], *args: P.args, **more: P.kwargs) -> Reading[T]:
    """The result of `read`, or Unread with the reason why it failed."""
    try:
        return read(*args, **more)
    except (Failure, UsageError) as error:
        return Unread(str(error))


@dataclass(frozen=True, slots=True)
class RunbookFinding:
    """A problem with its numbers; `advice` is the command or the setting that helps."""

    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class RunbookReport:
    """`facts` are single numbers, `tables` lists of rows with the same keys; keys are camelCase, and neither holds a
    fan's data. `changed` says in one line what was changed, empty: nothing. `next_step` is the command to run next.
    """

    name: str
    summary: str
    facts: Row = field(default_factory=dict)
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    findings: tuple[RunbookFinding, ...] = ()
    changed: str = ""
    next_step: str = ""

    @property
    def fine(self) -> bool:
        return not self.findings

    @property
    def page(self) -> str:
        """The page with the details, below docs/."""
        return f"runbooks/{self.name}.md"

    def as_dict(self) -> dict[str, Any]:
        document = as_document(self, "fine", "summary", "facts", "tables", "changed", "next_step", "page")
        findings = [{"finding": each.text, "advice": each.advice} for each in self.findings]
        return {"runbook": self.name, **document, "findings": findings}


@dataclass(frozen=True, slots=True)
class Runbook:
    """`command` is what to run first; `changes` is what it may change with `--apply`, empty: it only reads."""

    name: str
    symptom: str
    command: str
    changes: str = ""

    @property
    def page(self) -> str:
        return f"docs/runbooks/{self.name}.md"

    def as_dict(self) -> dict[str, str]:
        return as_document(self, "name", "symptom", "command", "changes", "page")


CATALOG: tuple[Runbook, ...] = (
    Runbook(
        "stream-lag",
        "entries arrive late in the entry store; replication-queue grows",
        "regworkers runbook stream-lag",
    ),
    Runbook(
        "total-failure",
        "tables, queues or the entry store are gone",
        "regworkers runbook total-failure",
        "provisions what is missing, queues and saves every entry again",
    ),
    Runbook(
        "out-of-sync",
        "entries are missing, outdated or superfluous in the entry store",
        "regworkers runbook out-of-sync",
        "queues and saves what differs",
    ),
    Runbook(
        "selection-failures",
        "a draw or the assignment of its codes does not continue",
        "regworkers runbook selection-failures",
        "resumes the markets that a retry helps",
    ),
    Runbook(
        "campaign-configuration",
        "a campaign is shown with wrong times, markets or status",
        "regworkers runbook campaign-configuration",
        "deletes from Redis the campaigns that differ from their source",
    ),
    Runbook("kafka", "Kafka does not accept events; analytics-queue grows", "regworkers runbook kafka"),
    Runbook("time-outs", "calls time out, drains end as dependency_down", "regworkers runbook time-outs"),
    Runbook(
        "dead-letters",
        "a dead-letter queue is not empty",
        "regworkers dlq groups",
        "its own commands redrive messages, or drop them",
    ),
    Runbook(
        "certificates", "Kafka's client certificate expires soon or is refused", "regworkers certs check"
    ),
    Runbook("cost", "the bill grew", "regworkers runbook cost"),
    Runbook("scheduler", "no run starts by itself", "regworkers doctor"),
    Runbook("eligibility", "valid entries are rejected; fans get no answer", "regworkers doctor"),
    Runbook("log-lines", "no line of a pod arrives in the log group", "regworkers doctor"),
)


@dataclass(slots=True)
class DrainWork:
    """The work of one drain. `minutes` counts minutes of runs (two runs of one minute are two), `active` runs that did
    not end. `waited` is the seconds spent in calls, by dependency; `throttles` counts calls that it throttled; `ends`
    counts runs by how they ended. Percentiles are those of the worst minute.
    """

    drain: str
    minutes: int = 0
    active: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    batch_p95_seconds: float | None = None
    batch_limit_seconds: float | None = None
    lag_p95_seconds: float | None = None
    calls: Counter[str] = field(default_factory=Counter)
    waited: dict[str, float] = field(default_factory=dict)
    throttles: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)

    @property
    def seconds(self) -> float:
        """Running time, to the minute."""
        return self.minutes * MINUTE_SECONDS

    @property
    def rate(self) -> float:
        """Items received per second and run."""
        return self.counts["received"] / self.seconds if self.minutes else 0.0

    @property
    def items_of_a_batch(self) -> float:
        return self.counts["received"] / self.batches if self.batches else 0.0

    def mean_wait(self, dependency: str) -> float | None:
        """Seconds per call; None without calls."""
        calls = self.calls[dependency]
        return self.waited.get(dependency, 0.0) / calls if calls else None

    def busy(self, concurrency: int, dependencies: Iterable[str]) -> float:
        """The share of its threads' time that was spent waiting for these, 0 to 1."""
        waited = sum(self.waited.get(name, 0.0) for name in dependencies)
        return min(1.0, waited / (self.seconds * concurrency)) if self.minutes else 0.0


def recent_work(runtime: Runtime, minutes: float) -> Mapping[str, DrainWork]:
    """The work of each drain in the last `minutes`. Raises TransientFailure."""
    now = runtime.clock()
    return add_up(runtime.drain_log.since(iso(now - minutes * MINUTE_SECONDS)[:16]), now=now)


def add_up(log: Iterable[DrainMinute], *, now: float) -> Mapping[str, DrainWork]:
    """By drain; `log` is oldest first, `now` in epoch seconds."""
    found: dict[str, DrainWork] = {}
    latest: dict[tuple[str, str], DrainMinute] = {}
    for minute in log:
        work = found.setdefault(minute.drain, DrainWork(minute.drain))
        work.minutes += 1
        work.counts.update(minute.counts)
        work.batches += minute.batches
        if minute.batch_p95_seconds is not None:
            work.batch_p95_seconds = max(minute.batch_p95_seconds, work.batch_p95_seconds or 0.0)
        work.batch_limit_seconds = minute.batch_limit_seconds
        if minute.lag_p95_seconds is not None:
            work.lag_p95_seconds = max(minute.lag_p95_seconds, work.lag_p95_seconds or 0.0)
        work.calls.update({name: calls for name, calls in minute.calls.items() if name not in _OVERHEAD})
        work.throttles.update(minute.throttles)
        for name, waited in minute.waited_seconds.items():
            if name not in _OVERHEAD:
                work.waited[name] = work.waited.get(name, 0.0) + waited
        latest[minute.drain, minute.run_id] = minute
    for (drain, _), minute in latest.items():
        if minute.ended:
            found[drain].ends[minute.ended] += 1
        elif now - (seconds(minute.minute) or 0.0) <= _SILENT_SECONDS:
            found[drain].active += 1
    return found
