"""The whole stack is gone: provision, look, rebuild the replica, verify; each step timed, against one hour."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.operations.health.status import command_in
from regworkers_core.operations.runbooks.runbook_report import Finding, RunbookReport

NAME = "total-failure"
# For how many entries the time is stretched, where nobody says.
ENTRIES = 1_000_000
# Fewer than these say nothing about a million: what starts and waits once is most of their time.
ENOUGH_ENTRIES = 1_000


@dataclass(frozen=True, slots=True)
class Done:
    """What a step came to, in one line; `finding` is None where all is well, `entries` how many it went through."""

    said: str
    finding: Finding | None = None
    entries: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """`grows` with the entries: its time is stretched."""

    name: str
    run: Callable[[], Done]
    grows: bool = False
    changes: bool = False


@dataclass(frozen=True, slots=True)
class Timed:
    step: Step
    done: Done
    seconds: float


@dataclass(slots=True)
class Recovery:
    """Runs steps in order and times them; `tell` hears of each when it begins and ends."""

    tell: Callable[[str], None] = lambda _line: None
    clock: Callable[[], float] = time.monotonic

    def run(self, steps: Sequence[Step]) -> list[Timed]:
        """The first that fails is the last: what comes after needs it."""
        timed: list[Timed] = []
        for step in steps:
            self.tell(f"{step.name} ...")
            began = self.clock()
            try:
                done, failed = step.run(), False
            except (Failure, UsageError) as error:
                first = command_in(str(error))
                finding = Finding(f"{step.name}: {error}", f"{first}, then run it again")
                done, failed = Done(str(error), finding), True
            timed.append(Timed(step, done, self.clock() - began))
            self.tell(f"{step.name}: {done.said} ({timed[-1].seconds:.1f} s)")
            if failed:
                break
        return timed


def judged(
    timed: Sequence[Timed],
    *,
    applied: bool,
    entries: int = ENTRIES,
    per_second: float,
    objective_seconds: float,
) -> RunbookReport:
    """Times of the steps, of all, and of all for so many `entries`, against the objective; `per_second` is the rate at
    which a backfill queues. Not `applied`: what a rebuild takes at least.
    """
    total = sum(each.seconds for each in timed)
    counted = max((each.done.entries or 0 for each in timed), default=0)
    stretched = (
        extrapolated(timed, entries) if applied and counted >= ENOUGH_ENTRIES else entries / per_second
    )
    findings = [each.done.finding for each in timed if each.done.finding is not None]
    longest = max(total if applied else counted / per_second, stretched)
    if longest > objective_seconds:
        text = f"{longest / 60:.0f} minutes, and the objective is {objective_seconds / 60:.0f}"
        findings.append(
            Finding(
                text,
                "raise replication.backfillItemsPerSecond and run more save drains; `regworkers drill recovery`",
            )
        )
    measured = applied and counted >= ENOUGH_ENTRIES
    estimate = f"{entries:,} entries take {'' if measured else 'at least '}{stretched / 60:.1f} minutes"
    what = "rebuilt and verified" if applied else "looked at, nothing changed"
    rows = [
        {
            "step": each.step.name,
            "seconds": round(each.seconds, 2),
            "entriesPerSecond": _rate(each),
            "result": each.done.said,
        }
        for each in timed
    ]
    facts = {
        "entries": counted,
        "seconds": round(total, 1),
        "objectiveSeconds": objective_seconds,
        "extrapolatedEntries": entries,
        "extrapolatedSeconds": round(stretched, 1),
        "extrapolatedFrom": "the times of the steps" if measured else "the rate of the backfill alone",
        "backfillItemsPerSecond": per_second,
    }
    done = [each.step.name for each in timed if each.step.changes]
    return RunbookReport(
        NAME,
        f"{counted:,} entries {what} in {total:.1f} s; {estimate}",
        facts,
        {"steps": rows},
        tuple(findings),
        f"ran {' and '.join(done)}" if done else "",
        "" if applied else f"regworkers runbook {NAME} --yes",
    )


def extrapolated(timed: Sequence[Timed], entries: int) -> float:
    """Seconds for so many entries: steps that grow with them in proportion, the others as they were."""
    return sum(
        each.seconds * entries / each.done.entries if each.step.grows and each.done.entries else each.seconds
        for each in timed
    )


def _rate(timed: Timed) -> float | None:
    if not timed.step.grows or not timed.done.entries or timed.seconds <= 0:
        return None
    return round(timed.done.entries / timed.seconds, 1)
