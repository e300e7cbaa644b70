"""Replication out of sync: compare the replica with its source, repair, compare again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.drains.runner import DrainSpec, drain_limits, run_drain
from regworkers_core.engine.queue import Received
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operation import Remark, Report
from regworkers_core.operations.runbook import OnLine, no_line, runbook_report
from regworkers_core.replication.drains import SAVE
from regworkers_core.replication.reconcile.classify import WAITING, Kind
from regworkers_core.replication.reconcile.reconciliation import Comparing, ReconcileResult, reconcile
from regworkers_core.runtime import Runtime

NAME = "out-of-sync"


def run(
    runtime: Runtime,
    campaign_id: str | None = None,
    *,
    apply: bool = False,
    yes_remove: int | None = None,
    on_line: OnLine = no_line,
) -> Report:
    """Compare; with `apply` also repair what differs, while a save drain of this process works beside those that run,
    and compare again. Raises TransientFailure when a side does not answer, UsageError for an unknown campaign.
    """
    before = reconcile(runtime, Comparing(campaign_id), on_phase=on_line)
    if not apply or before.clean:
        return assess(campaign_id, before)
    with saving(runtime):
        repaired = reconcile(
            runtime, Comparing(campaign_id, repair=True, yes_remove=yes_remove), on_phase=on_line
        )
    on_line("comparing again")
    after = reconcile(runtime, Comparing(campaign_id), on_phase=on_line)
    repair = repaired.repair
    if repair is None:
        return assess(campaign_id, before, after=after)
    return assess(campaign_id, before, repair.in_words, after, repair.advice)


@contextmanager
def saving(runtime: Runtime, spec: DrainSpec[Received] = SAVE) -> Iterator[None]:
    """A save drain in a thread, beside those that run elsewhere: queued keys are saved even if no sensor is on. Raises
    at the end what made it fail.
    """
    stop, failed = StopSignal(), list[BaseException]()
    limits = drain_limits(runtime.settings, spec, idle_seconds=float("inf"), max_seconds=float("inf"))

    def save() -> None:
        try:
            report = run_drain(runtime, spec, limits, stop=stop)
            if report.failure is not None:
                failed.append(UsageError(report.failure))
        except (Failure, UsageError) as error:
            failed.append(error)

    thread = threading.Thread(target=save, name="runbook-save")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def differences(result: ReconcileResult) -> dict[Kind, int]:
    """The differences by class, without entries that are only late or parked."""
    return {kind: number for kind, number in result.counts.items() if number and kind not in WAITING}


def assess(
    campaign_id: str | None,
    before: ReconcileResult,
    repaired: str = "",
    after: ReconcileResult | None = None,
    advice: str = "",
) -> Report:
    """`repaired` says in one line what the repair did, `advice` what is left to do, `after` is the next comparison."""
    last = after or before
    found, left = differences(before), differences(last)
    of = f" --campaign {campaign_id}" if campaign_id else ""
    repair = f"regworkers runbook {NAME}{of} --apply"
    # No repair heals these by itself: an operator decides that the source is right.
    cures = {Kind.AHEAD: f"regworkers reconcile{of} --repair"}
    findings = tuple(
        Remark("finding", f"{number} entries are {kind}", cures.get(kind) or advice or repair)
        for kind, number in left.items()
    )
    if last.clean:
        summary = f"{last.totals['source']} entries agree"
        summary += " after the repair" if after and not before.clean else ""
    else:
        summary = ", ".join(f"{number} {kind}" for kind, number in left.items())
        summary += " left after the repair" if after else ""
    steps = [cures.get(kind, repair) for kind in left]
    return runbook_report(
        NAME,
        summary,
        {
            "campaign": campaign_id or "all",
            "source": last.totals["source"],
            "replica": last.totals["replica"],
            "differences": sum(left.values()),
            "seconds": round(before.seconds + (after.seconds if after else 0.0), 3),
        },
        {
            "differences": [
                {
                    "class": kind.value,
                    "found": number,
                    "left": None if after is None else left.get(kind, 0),
                    "forExample": ", ".join(before.samples.get(kind, ())[:3]),
                    "meaning": before.explanations.get(kind, ""),
                }
                for kind, number in {**dict.fromkeys(left, 0), **found}.items()
            ]
        },
        findings,
        repaired,
        "" if last.clean or after or not steps else repair if repair in steps else steps[0],
    )
