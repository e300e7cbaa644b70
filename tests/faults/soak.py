"""Every kill point many times over, on one stack of its own: `python -m tests.faults.soak`.

The points of replication and of the export twenty times each, those of a draw and of what follows it ten times
(`--repetitions` for all).

Prints a table of what was lost and doubled; exit code 1 if anything was. `--write` puts it into
benchmarks/reliability.md.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any

import structlog
from rich.console import Console
from rich.table import Table

from benchmarks.readme import conditions, described, say, write
from benchmarks.readme import table as markdown
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack
from tests.analytics import crash as analytics
from tests.faults import crash as replication
from tests.faults import killer
from tests.faults.story import Verdict
from tests.replication.reconcile import crash as acceptance
from tests.selection.assign import crash as assign
from tests.selection.draw import crash as draw
from tests.support.environment import leave_instances
from tests.support.runtimes import ADDRESSES, new_runtime, remove_namespace


@dataclass(slots=True)
class Row:
    """What the repetitions of one kill point came to. `lost` and `doubled` count findings."""

    step: str
    repetitions: int = 0
    lost: int = 0
    doubled: int = 0
    repeats: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)

    def add(self, verdict: Verdict, seconds: float) -> None:
        self.repetitions += 1
        self.lost += len(verdict.lost)
        self.doubled += len(verdict.doubled)
        self.repeats += verdict.repeats
        self.seconds += seconds
        self.findings += [*verdict.lost, *verdict.doubled]


@dataclass(frozen=True, slots=True)
class Point:
    """A kill point: `passes` is how often a run passes it at least, `crash` kills at the n-th pass and recovers."""

    repetitions: int
    passes: int
    sections: Mapping[str, Any]
    crash: Callable[[Runtime, str, int], Verdict]


def _replication(runtime: Runtime, step: str, occurrence: int) -> Verdict:
    return replication.crash_and_recover(runtime, replication.Fault.at(step, occurrence))


def _killer(runtime: Runtime, _step: str, _occurrence: int) -> Verdict:
    return killer.die_until_it_is_given_up(runtime)[2]


def _acceptance(runtime: Runtime, step: str, _occurrence: int) -> Verdict:
    return acceptance.crash_and_repeat(runtime, step)


def _draw(runtime: Runtime, step: str, _occurrence: int) -> Verdict:
    return Verdict(lost=draw.crash_and_resume(runtime, step))


def _broker(runtime: Runtime, _step: str, occurrence: int) -> Verdict:
    return analytics.broker_dies_and_returns(runtime, _stack(), occurrence)[1]


def _stack() -> Stack:
    """The one of this soak."""
    return Stack(PROJECT_ROOT, f"soak-{os.getpid()}")


POINTS: Mapping[str, Point] = {
    **{
        step: Point(20, passes, replication.SECTIONS, _replication)
        for step, passes in replication.PASSES.items()
    },
    killer.POINT: Point(20, 1, replication.SECTIONS, _killer),
    **{step: Point(20, 1, {}, _acceptance) for step in acceptance.STEPS},
    **{step: Point(10, 1, {}, _draw) for step in draw.STEPS},
    **{
        step: Point(10, passes, assign.SECTIONS, assign.crash_and_recover)
        for step, passes in assign.PASSES.items()
    },
    **{
        step: Point(20, passes, analytics.SECTIONS, analytics.crash_and_recover)
        for step, passes in analytics.PASSES.items()
    },
    analytics.BROKER: Point(20, 3, analytics.SECTIONS, _broker),
}


def soak(repetitions: int | None, steps: Sequence[str], say: Callable[[str], None]) -> list[Row]:
    """The servers come from the environment, as for a test run."""
    rows = [Row(step) for step in steps]
    wanted = {step: repetitions or POINTS[step].repetitions for step in steps}
    for repetition in range(max(wanted.values())):
        # Round by round, so that an interrupted soak has seen every point.
        for row in rows:
            if repetition >= wanted[row.step]:
                continue
            occurrence = 1 + repetition % POINTS[row.step].passes
            started = time.monotonic()
            verdict = once(row.step, occurrence)
            row.add(verdict, time.monotonic() - started)
            result = "clean" if verdict.clean else f"{verdict.lost + verdict.doubled}"
            say(f"{repetition + 1}/{wanted[row.step]} kill at {row.step}, pass {occurrence}: {result}")
    return rows


def once(step: str, occurrence: int) -> Verdict:
    """One crash in a namespace of its own. What does not recover in time counts as lost."""
    point = POINTS[step]
    runtime = new_runtime(None, **point.sections)
    try:
        return point.crash(runtime, step, occurrence)
    except AssertionError as failure:
        return Verdict(lost=[str(failure)])
    finally:
        remove_namespace(runtime)


HEAD = ("at", "repetitions", "lost", "doubled", "repeats", "seconds")
PAGE = PROJECT_ROOT / "benchmarks" / "reliability.md"
BEGIN, END = "<!-- figures of the soak: begin -->", "<!-- figures of the soak: end -->"


def cells(row: Row) -> list[str]:
    numbers = (row.repetitions, row.lost, row.doubled, row.repeats)
    return [row.step, *(f"{number:,}" for number in numbers), f"{row.seconds:,.0f}"]


def for_terminals(rows: list[Row]) -> Table:
    made = Table(title="kill -9 (repeats: events and messages that came again with the id they had)")
    made.add_column(HEAD[0], no_wrap=True)
    for name in HEAD[1:]:
        made.add_column(name, justify="right")
    for row in rows:
        made.add_row(*cells(row))
    return made


def for_the_page(rows: list[Row], where: dict[str, Any]) -> str:
    lost, doubled = (sum(getattr(row, name) for row in rows) for name in ("lost", "doubled"))
    times = sum(row.repetitions for row in rows)
    head = f"{described(where)} Killed {times:,} times at {len(rows)} points: **{lost} lost, {doubled} doubled**."
    return f"{fill(head, 100)}\n\n{markdown(HEAD, [cells(row) for row in rows])}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument(
        "--repetitions", type=int, help="default: 20 of replication and the export, 10 of selection"
    )
    parser.add_argument(
        "--step", action="append", choices=list(POINTS), help="only this one (may be repeated)"
    )
    parser.add_argument("--write", action="store_true", help="update the table in benchmarks/reliability.md")
    arguments = parser.parse_args()
    where = conditions()
    # Drains report at every end; here only troubles and the table are of interest.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    leave_instances()

    stack = _stack()
    try:
        state = stack.up(say)
        os.environ.update({variable: state.address(name) for name, variable in ADDRESSES.items()})
        rows = soak(arguments.repetitions, arguments.step or list(POINTS), say)
    finally:
        stack.reset()
    Console().print(for_terminals(rows))
    if arguments.write:
        write(for_the_page(rows, where), BEGIN, END, PAGE)
    findings = [finding for row in rows for finding in row.findings]
    for finding in findings:
        say(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
