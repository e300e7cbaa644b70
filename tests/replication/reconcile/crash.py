"""An acceptance or its undo that is killed at a named step, and what a repeat makes of it.

`python -m tests.replication.reconcile.crash <prefix> <step>` is the process that dies.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from regworkers_core.domain.keys import EntryKey
from regworkers_core.engine.stop import no_step
from regworkers_core.replication.reconcile.acceptance import Accept
from regworkers_core.replication.reconcile.classify import Kind, Sides
from regworkers_core.replication.reconcile.reconciliation import (
    Comparing,
    ReconcileResult,
    Reconciliation,
    reconcile,
)
from regworkers_core.replication.reconcile.segments import Segments
from regworkers_core.replication.reconcile.undo import Undo, UndoReport
from regworkers_core.runtime import Runtime
from tests.faults.story import Verdict
from tests.support.children import run_child
from tests.support.drains import replicate_all
from tests.support.entries import document, key, put, source
from tests.support.runtimes import test_settings

STEPS = ("accept.after_keep", "accept.after_lower", "undo.after_restore")
AHEAD = [key(f"ahead-{number}") for number in range(5)]
FINE = [key(f"fine-{number}") for number in range(5)]
_OLD, _OLDER = "2026-01-02T00:00:00.000Z", "2026-01-01T00:00:00.000Z"


def crash_and_repeat(runtime: Runtime, step: str) -> Verdict:
    """Entries that are ahead beside others that are not: killed at `step`, then accepted (or undone) by a repeat."""
    for each in (*AHEAD, *FINE):
        put(runtime, each, createdAt=_OLD, updatedAt=_OLD, firstName="before")
    replicate_all(runtime)
    for each in AHEAD:
        # A slow clock: the same entry under an older order, which every save refuses.
        put(runtime, each, createdAt=_OLDER, updatedAt=_OLDER, firstName="again")
    replicate_all(runtime)
    former = _stored(runtime)
    if step.startswith("undo."):
        accept(runtime, len(AHEAD), after_restore=True)
    answer = run_child("tests.replication.reconcile.crash", runtime.names.prefix, step, seconds=60)
    assert answer.returncode == -signal.SIGKILL, f"{step} did not die: {answer.stdout}{answer.stderr}"
    if not step.startswith("undo."):
        return _accepted(runtime, former)
    undo(runtime, len(AHEAD))
    lost = [
        f"{each}: the former version is not back"
        for each, was in former.items()
        if was != document(runtime, each)
    ]
    return Verdict(lost=lost)


def accept(
    runtime: Runtime, number: int, on_step: Callable[[str], None] = no_step, *, after_restore: bool = False
) -> ReconcileResult:
    """In all campaigns, without a drain and without waiting for one."""
    replication = runtime.settings.replication.model_copy(update={"lag_objective_seconds": 0.05})
    flow = Reconciliation(
        Sides(runtime.demand_table, runtime.replica, runtime.dead_letters),
        runtime.queue(runtime.names.replication_queue),
        replication,
        segments=Segments(runtime.leases, lease_seconds=1),
        superseded=runtime.superseded_entries,
        visibility_seconds=1,
        on_step=on_step,
    )
    return flow.run(Comparing(repair=True, accept=Accept(number, after_restore)))


def undo(
    runtime: Runtime, confirmed: int | None = None, on_step: Callable[[str], None] = no_step
) -> UndoReport:
    return Undo(runtime.superseded_entries, runtime.replica, on_step=on_step).run(None, confirmed)


def _accepted(runtime: Runtime, former: dict[EntryKey, object]) -> Verdict:
    """Whether any repair after the crash leads to the source's states, with every former version kept once."""
    accept(runtime, reconcile(runtime).counts[Kind.AHEAD], after_restore=True)
    reconcile(runtime, Comparing(repair=True))
    replicate_all(runtime)
    kept = [row["former"] for row in runtime.database["superseded_entries"].find()]
    lost = [
        f"{each} is not as its source"
        for each in (*AHEAD, *FINE)
        if (document(runtime, each) or {}).get("firstName") != (source(runtime, each) or {}).get("firstName")
    ]
    lost += [f"the version before of {each} is not kept" for each, was in former.items() if was not in kept]
    doubled = [f"{len(kept)} versions are kept of {len(former)}"] if len(kept) > len(former) else []
    return Verdict(lost=lost, doubled=doubled)


def _stored(runtime: Runtime) -> dict[EntryKey, object]:
    return {each: document(runtime, each) for each in AHEAD}


def main(prefix: str, step: str) -> None:
    def on_step(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    runtime = Runtime(test_settings(prefix))
    if step.startswith("undo."):
        undo(runtime, len(AHEAD), on_step)
    else:
        accept(runtime, len(AHEAD), on_step, after_restore=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
