"""Total failure: provision the stack, check it, rebuild the replica, verify, see that the workers are back; each step
timed against the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fairdraw import scheduling
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.infrastructure.provision import provision
from regworkers_core.infrastructure.provision_aws import ProvisionOutcome
from regworkers_core.operation import Remark, Report
from regworkers_core.operations.dependency_status import command_in, with_short_timeouts
from regworkers_core.operations.doctor import examine_snapshot
from regworkers_core.operations.health.scheduler import read_scheduler
from regworkers_core.operations.health.snapshot import ReadScheduler, read_system
from regworkers_core.operations.runbook import OnLine, no_line, runbook_report
from regworkers_core.operations.runbooks.out_of_sync import differences, saving
from regworkers_core.replication.backfill import Backfill, start_backfill
from regworkers_core.replication.drains import REBUILD
from regworkers_core.replication.reconcile.reconciliation import reconcile
from regworkers_core.runtime import Runtime

NAME = "total-failure"
# The default number of entries that the times are extrapolated to.
ENTRIES = 1_000_000
# Fewer entries say nothing about a million: most of their time is start-up and waiting.
ENOUGH_ENTRIES = 1_000
# Brings back image, release, Dagster's database and sensors.
_WORKERS = f"docs/runbooks/{NAME}.md#the-workers"
# How often the depth of a queue is read until it is empty.
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a step in one line. `finding` is None if all is well, `entries` how many it processed."""

    text: str
    finding: Remark | None = None
    entries: int | None = None


@dataclass(frozen=True, slots=True)
class RebuildStep:
    """A step of a rebuild."""

    name: str
    # Does it.
    run: Callable[[], Done]
    # Its time grows with the entries and is extrapolated.
    grows: bool = False
    # It changes something.
    changes: bool = False


@dataclass(frozen=True, slots=True)
class Timed:
    step: RebuildStep
    done: Done
    seconds: float


def run(
    runtime: Runtime,
    *,
    apply: bool = False,
    entries: int = ENTRIES,
    rate: float | None = None,
    on_line: OnLine = no_line,
    stop: StopSignal | None = None,
    clock: Callable[[], float] = scheduling.monotonic,
    scheduler: ReadScheduler | None = None,
) -> Report:
    """Without `apply` count and compare; with it provision, rebuild the replica (nothing newer is overwritten) and
    verify. `rate` is in keys a second, `scheduler` reads the state of Dagster (default: over its API). A step that
    fails is the last one.
    """
    stop = stop or StopSignal()
    if scheduler is None and runtime.settings.dagster.url:
        scheduler = _over_its_api(runtime)
    workers = RebuildStep("workers", lambda: check_workers(scheduler))
    if apply:
        steps = [
            RebuildStep("provision", lambda: _provision(runtime, on_line), changes=True),
            RebuildStep("doctor", lambda: _examine(runtime)),
            RebuildStep("rebuild", lambda: _rebuild(runtime, rate, stop, clock), grows=True, changes=True),
            RebuildStep("verify", lambda: _verify(runtime, "regworkers runbook out-of-sync"), grows=True),
            workers,
        ]
    else:
        steps = [
            RebuildStep("doctor", lambda: _examine(runtime)),
            RebuildStep("count", lambda: _count(runtime, stop), grows=True),
            RebuildStep(
                "compare", lambda: _verify(runtime, f"regworkers runbook {NAME} --apply"), grows=True
            ),
            workers,
        ]
    replication = runtime.settings.replication
    return assess(
        run_steps(steps, on_line, clock),
        applied=apply,
        entries=entries,
        per_second=rate or replication.backfill_items_per_second,
        objective_seconds=replication.recovery_objective_seconds,
    )


def run_steps(
    steps: Sequence[RebuildStep], on_line: OnLine = no_line, clock: Callable[[], float] = scheduling.monotonic
) -> list[Timed]:
    """Run the steps in order. The first that fails is the last: what comes after needs it."""
    timed: list[Timed] = []
    for step in steps:
        on_line(f"{step.name} ...")
        began = clock()
        try:
            done, failed = step.run(), False
        except (Failure, UsageError) as error:
            finding = Remark(
                "finding", f"{step.name}: {error}", f"{command_in(str(error))}, then run it again"
            )
            done, failed = Done(str(error), finding), True
        timed.append(Timed(step, done, clock() - began))
        on_line(f"{step.name}: {done.text} ({timed[-1].seconds:.1f} s)")
        if failed:
            break
    return timed


def _provision(runtime: Runtime, on_line: OnLine) -> Done:
    resources = list(provision(runtime, on_line=on_line))
    changed = sum(each.outcome is not ProvisionOutcome.EXISTED for each in resources)
    text = f"{len(resources)} resources exist, {changed} of them were created or changed"
    blocked = [each for each in resources if each.outcome is ProvisionOutcome.BLOCKED]
    if not blocked:
        return Done(text)
    problems = "; ".join(f"{each.kind} {each.name}: {each.note}" for each in blocked)
    return Done(text, Remark("finding", problems, "regworkers provision"))


def _examine(runtime: Runtime) -> Done:
    """Examine as the doctor does. Only an unavailable dependency is a finding, and a step that needs it fails by
    itself: deep queues and a replica that differs are the reason for the rebuild.
    """
    quick = Runtime(with_short_timeouts(runtime.settings))
    snapshot = read_system(quick, _over_its_api(quick))
    found = examine_snapshot(quick, snapshot).found
    text = "; ".join(each.summary for each in found) or "nothing wrong in what could be read"
    unavailable = [each for each in found if each.section == "dependencies"]
    if not unavailable:
        return Done(text)
    advice = ", ".join(dict.fromkeys(each.help or each.runbook for each in unavailable))
    return Done(text, Remark("finding", "; ".join(each.summary for each in unavailable), advice))


def _over_its_api(runtime: Runtime) -> ReadScheduler:
    return lambda: read_scheduler(runtime.dagster, runtime.clock())


def check_workers(scheduler: ReadScheduler | None) -> Done:
    """Whether Dagster has the code location and starts drains by itself; None: it has no known address, which the
    doctor does not count as a finding either. Raises TransientFailure, UsageError.
    """
    if scheduler is None:
        return Done(f"unknown, because REGWORKERS_DAGSTER__URL is not set; {_WORKERS} brings them back")
    state = scheduler()
    missing = sorted(name for name, heartbeat in state.daemons.items() if heartbeat is None)
    text = f"{len(state.ticks)} sensors and schedules are on, {len(state.daemons)} daemons are required"
    if missing:
        return Done(text, Remark("finding", f"daemons that have never run: {', '.join(missing)}", _WORKERS))
    if not state.ticks:
        return Done(text, Remark("finding", "every sensor and schedule is off", _WORKERS))
    return Done(text)


def _count(runtime: Runtime, stop: StopSignal) -> Done:
    report = start_backfill(runtime, Backfill(dry_run=True), stop=stop)
    return Done(f"{report.sent} entries in the demand table", entries=report.sent)


def _rebuild(runtime: Runtime, rate: float | None, stop: StopSignal, clock: Callable[[], float]) -> Done:
    """Queue all keys and save them meanwhile, until the queue is empty or stops moving."""
    with saving(runtime, REBUILD):
        report = start_backfill(runtime, Backfill(rate=rate), stop=stop)
        waiting = _await_empty(runtime, stop, clock)
    text = f"{report.sent} keys queued and saved"
    if not report.finished:
        return Done(text, Remark("finding", f"the backfill is {report.ended}", report.advice), report.sent)
    if waiting:
        left = f"{waiting} messages still wait on the replication queue"
        return Done(text, Remark("finding", left, "regworkers drain save"), report.sent)
    return Done(text, entries=report.sent)


def _await_empty(runtime: Runtime, stop: StopSignal, clock: Callable[[], float]) -> int:
    """Messages that are left: 0, or the number that did not change for two lag objectives."""
    patience = 2 * runtime.settings.replication.lag_objective_seconds
    queue = runtime.queue(runtime.names.replication_queue)
    least, moved_at = queue.depth().total, clock()
    while least and clock() - moved_at < patience and not stop.wait(_POLL_SECONDS):
        depth = queue.depth().total
        if depth < least:
            least, moved_at = depth, clock()
    return least


def _verify(runtime: Runtime, advice: str) -> Done:
    result = reconcile(runtime)
    entries = int(result.totals["source"])
    if not (differing := differences(result)):
        return Done(f"{result.totals['matched']} entries agree", entries=entries)
    text = ", ".join(f"{number} {kind}" for kind, number in differing.items())
    return Done(text, Remark("finding", f"replica and source differ: {text}", advice), entries)


def assess(
    timed: Sequence[Timed],
    *,
    applied: bool,
    entries: int = ENTRIES,
    per_second: float,
    objective_seconds: float,
) -> Report:
    """The time of each step, of all, and of all for `entries`, against the objective. `per_second` is the rate at which
    a backfill queues keys; if nothing was `applied`, it gives the shortest time of a rebuild.
    """
    total = sum(each.seconds for each in timed)
    counted = max((each.done.entries or 0 for each in timed), default=0)
    measured = applied and counted >= ENOUGH_ENTRIES
    extrapolated = extrapolate(timed, entries) if measured else entries / per_second
    findings = [each.done.finding for each in timed if each.done.finding is not None]
    longest = max(total if applied else counted / per_second, extrapolated)
    if longest > objective_seconds:
        text = f"{longest / 60:.0f} minutes, and the objective is {objective_seconds / 60:.0f}"
        advice = (
            "raise replication.backfillItemsPerSecond and run more save drains; `regworkers drill recovery`"
        )
        findings.append(Remark("finding", text, advice))
    estimate = f"{entries:,} entries take {'' if measured else 'at least '}{extrapolated / 60:.1f} minutes"
    what = "rebuilt and verified" if applied else "counted, nothing changed"
    entries_read = any(each.done.entries is not None for each in timed)
    changes = [each.step.name for each in timed if each.step.changes]
    return runbook_report(
        NAME,
        f"{counted:,} entries {what} in {total:.1f} s; {estimate}"
        if entries_read
        else f"no entry could be counted; {estimate}",
        {
            "entries": counted,
            "seconds": round(total, 1),
            "objectiveSeconds": objective_seconds,
            "extrapolatedEntries": entries,
            "extrapolatedSeconds": round(extrapolated, 1),
            "extrapolatedFrom": "the times of the steps" if measured else "the rate of the backfill alone",
            "backfillItemsPerSecond": per_second,
        },
        {
            "steps": [
                {
                    "step": each.step.name,
                    "seconds": round(each.seconds, 2),
                    "entriesPerSecond": _rate(each),
                    "result": each.done.text,
                }
                for each in timed
            ]
        },
        tuple(findings),
        f"ran {' and '.join(changes)}" if changes else "",
        "" if applied else f"regworkers runbook {NAME} --apply",
    )


def extrapolate(timed: Sequence[Timed], entries: int) -> float:
    """Seconds for `entries`: steps that grow are scaled in proportion, the others stay as they were."""
    return sum(
        each.seconds * entries / each.done.entries if each.step.grows and each.done.entries else each.seconds
        for each in timed
    )


def _rate(timed: Timed) -> float | None:
    if not timed.step.grows or not timed.done.entries or timed.seconds <= 0:
        return None
    return round(timed.done.entries / timed.seconds, 1)
