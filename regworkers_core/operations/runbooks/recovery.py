"""Total failure of the stack: provision, look, rebuild the replica, verify."""

from __future__ import annotations

import time
from collections.abc import Callable

from regworkers_core.engine.stop import StopSignal
from regworkers_core.infrastructure.provision import provision
from regworkers_core.infrastructure.provisioned import Outcome
from regworkers_core.operations.health.earlier import examined
from regworkers_core.operations.health.scheduler import read_scheduler
from regworkers_core.operations.health.status import impatient
from regworkers_core.operations.health.system import read_system
from regworkers_core.operations.runbooks import total_failure
from regworkers_core.operations.runbooks.runbook_report import Finding, RunbookReport
from regworkers_core.operations.runbooks.saving import saving
from regworkers_core.operations.runbooks.total_failure import Done, Recovery, Step
from regworkers_core.operations.runbooks.unread import Tell, silent
from regworkers_core.replication.backfill.flow import start_backfill
from regworkers_core.replication.reconcile import Kind, reconcile
from regworkers_core.runtime import Runtime

# How often a queue is looked at that is to become empty.
_POLL_SECONDS = 0.5


def recover(
    runtime: Runtime,
    *,
    apply: bool = False,
    entries: int = total_failure.ENTRIES,
    rate: float | None = None,
    tell: Tell = silent,
    stop: StopSignal | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RunbookReport:
    """After a total failure: without `apply` count and compare, with it provision, rebuild the replica (it overwrites
    nothing newer) and verify. `rate` is in keys a second. A step that fails is the last one.
    """
    stop = stop or StopSignal()
    if apply:
        steps = [
            Step("provision", lambda: _provisioned(runtime), changes=True),
            Step("doctor", lambda: _examined(runtime)),
            Step("rebuild", lambda: _rebuilt(runtime, rate, stop, clock), grows=True, changes=True),
            Step("verify", lambda: _verified(runtime), grows=True),
        ]
    else:
        steps = [
            Step("doctor", lambda: _examined(runtime)),
            Step("count", lambda: _counted(runtime, stop), grows=True),
            Step("compare", lambda: _verified(runtime), grows=True),
        ]
    timed = Recovery(tell, clock).run(steps)
    replication = runtime.settings.replication
    return total_failure.judged(
        timed,
        applied=apply,
        entries=entries,
        per_second=rate or replication.backfill_items_per_second,
        objective_seconds=replication.recovery_objective_seconds,
    )


def _provisioned(runtime: Runtime) -> Done:
    things = list(provision(runtime))
    made = sum(each.outcome is not Outcome.STOOD for each in things)
    return Done(f"{len(things)} things stand, {made} of them were created or changed")


def _examined(runtime: Runtime) -> Done:
    """As the doctor does. Who is away is a finding, and a step that needs them fails by itself; that the replica
    differs or queues are deep is why somebody rebuilds.
    """
    eager = Runtime(impatient(runtime.settings))
    snapshot = read_system(eager, lambda: read_scheduler(eager.dagster, eager.clock()))
    found = examined(eager, snapshot).found
    away = [each for each in found if each.section == "dependencies"]
    said = "; ".join(each.summary for each in found) or "nothing wrong in what could be read"
    helps = ", ".join(dict.fromkeys(each.help or each.runbook for each in away))
    return Done(said, Finding("; ".join(each.summary for each in away), helps) if away else None)


def _counted(runtime: Runtime, stop: StopSignal) -> Done:
    report = start_backfill(runtime, dry_run=True, stop=stop)
    return Done(f"{report.sent} entries in the demand table", entries=report.sent)


def _rebuilt(runtime: Runtime, rate: float | None, stop: StopSignal, clock: Callable[[], float]) -> Done:
    """Queue all keys and save them meanwhile, until the queue is empty or nothing moves any more."""
    with saving(runtime):
        report = start_backfill(runtime, rate=rate, stop=stop)
        waiting = _await_empty(runtime, stop, clock)
    said = f"{report.sent} keys queued and saved"
    if not report.finished:
        return Done(said, Finding(f"the backfill is {report.ended}", report.advice), report.sent)
    if waiting:
        text = f"{waiting} messages still wait on the replication queue"
        return Done(said, Finding(text, "regworkers drain save"), report.sent)
    return Done(said, entries=report.sent)


def _await_empty(runtime: Runtime, stop: StopSignal, clock: Callable[[], float]) -> int:
    """Messages that are left: 0, or as many as did not move for two lag objectives."""
    patience = 2 * runtime.settings.replication.lag_objective_seconds
    queue = runtime.queue(runtime.names.replication_queue)
    least, moved_at = queue.depth().total, clock()
    while least and clock() - moved_at < patience and not stop.wait(_POLL_SECONDS):
        depth = queue.depth().total
        if depth < least:
            least, moved_at = depth, clock()
    return least


def _verified(runtime: Runtime) -> Done:
    result = reconcile(runtime)
    entries = int(result.totals["source"])
    differing = {
        kind: number for kind, number in result.counts.items() if number and kind is not Kind.NOT_YET
    }
    if not differing:
        return Done(f"{result.totals['matched']} entries agree", entries=entries)
    text = ", ".join(f"{number} {kind.value}" for kind, number in differing.items())
    return Done(
        text, Finding(f"replica and source differ: {text}", "regworkers runbook out-of-sync"), entries
    )
