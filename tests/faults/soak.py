"""Every kill point many times over, on one stack of its own: `python -m tests.faults.soak --repetitions 20`.

Prints a table of what was lost and doubled; exit code 1 if anything was.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from rich.console import Console
from rich.table import Table

from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack
from tests.faults.crash import PASSES, SECTIONS, Fault, crash_and_recover
from tests.faults.story import Verdict
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


def soak(repetitions: int, steps: list[str], say: Callable[[str], None]) -> list[Row]:
    """The servers come from the environment, as for a test run."""
    rows = [Row(step) for step in steps]
    for repetition in range(repetitions):
        # Round by round, so that an interrupted soak has seen every point.
        for row in rows:
            fault = Fault(row.step, 1 + repetition % PASSES[row.step])
            started = time.monotonic()
            verdict = once(fault)
            row.add(verdict, time.monotonic() - started)
            result = "clean" if verdict.clean else f"{verdict.lost + verdict.doubled}"
            say(f"{repetition + 1}/{repetitions} kill at {fault.step}, pass {fault.occurrence}: {result}")
    return rows


def once(fault: Fault) -> Verdict:
    """One crash in a namespace of its own. What does not recover in time counts as lost."""
    runtime = new_runtime(None, **SECTIONS)
    try:
        return crash_and_recover(runtime, fault)
    except AssertionError as failure:
        return Verdict(lost=[str(failure)])
    finally:
        remove_namespace(runtime)


def table(rows: list[Row]) -> Table:
    made = Table(title="kill -9 of a drain (repeats: events that came again with the id they had)")
    made.add_column("at", no_wrap=True)
    for name in ("repetitions", "lost", "doubled", "repeats", "seconds"):
        made.add_column(name, justify="right")
    for row in rows:
        numbers = (row.repetitions, row.lost, row.doubled, row.repeats)
        made.add_row(row.step, *(str(number) for number in numbers), f"{row.seconds:.0f}")
    return made


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument(
        "--step", action="append", choices=list(PASSES), help="only this one (may be repeated)"
    )
    arguments = parser.parse_args()
    # Drains report at every end; here only troubles and the table are of interest.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    # Neither the caller's overrides nor the addresses of a running instance.
    os.environ["REGWORKERS_INSTANCE"] = "none"
    os.environ.pop("CONFIG_ENV", None)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    stack = Stack(PROJECT_ROOT, f"soak-{os.getpid()}")
    try:
        state = stack.up(say)
        os.environ.update({variable: state.address(name) for name, variable in ADDRESSES.items()})
        rows = soak(arguments.repetitions, arguments.step or list(PASSES), say)
    finally:
        stack.reset()
    Console().print(table(rows))
    findings = [finding for row in rows for finding in row.findings]
    for finding in findings:
        say(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
