"""Planted defects: `python -m tests.mutants` plants each of `mutants.yml` in a copy of the tree and runs its tests.

Prints a line for each: its name, `red` or `survived`, by which test, seconds. The servers are those that the
environment names, and one embedded stack for the others. Exit code 1 if a defect survived, or its tests took longer
than 60 s; 2 if an old text does not occur exactly once, or a test does not exist or pass without the defect. `--write`
puts the table into benchmarks/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from shutil import rmtree
from textwrap import fill
from typing import Any

from benchmarks.readme import conditions, described, say, write
from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack
from tests.mutants.table import Mutant, mutants, problems
from tests.mutants.trial import CannotTry, Outcome, Trial, scratch_copy, try_all
from tests.support.runtimes import ADDRESSES

PAGE = PROJECT_ROOT / "benchmarks" / "reliability.md"
BEGIN, END = "<!-- begin: make mutants -->", "<!-- end: make mutants -->"
_WRONG_TABLE = 2


def line(trial: Trial) -> str:
    """A trial for people."""
    by = ", ".join(trial.tests) + (f" ({trial.trouble})" if trial.trouble else "")
    return f"{trial.mutant.name:<44}  {trial.outcome:<8}  {by}  {trial.seconds:.1f} s"


def document(trial: Trial) -> dict[str, Any]:
    """A trial for programs."""
    mutant = trial.mutant
    return {
        "name": mutant.name,
        "promise": mutant.promise,
        "file": mutant.file,
        "outcome": trial.outcome.value,
        "tests": list(trial.tests),
        "seconds": round(trial.seconds, 1),
        "trouble": trial.trouble,
    }


def exit_code(trials: Sequence[Trial]) -> int:
    """0 if every defect is red, 2 if one proves nothing, else 1."""
    if any(each.outcome is Outcome.NO_PROOF for each in trials):
        return _WRONG_TABLE
    return 0 if all(each.outcome is Outcome.RED for each in trials) else 1


def table(trials: Sequence[Trial], where: dict[str, Any]) -> str:
    """The section of benchmarks/reliability.md."""
    red = sum(each.outcome is Outcome.RED for each in trials)
    longest = max(each.seconds for each in trials)
    said = (
        f"{red} of {len(trials)} planted defects turn their tests red, the slowest within {longest:.0f} s."
        f" {described(where)}"
    )
    lines = [
        fill(said, 100),
        "",
        "| defect in | promise that it breaks | outcome | by |",
        "| --- | --- | --- | --- |",
    ]
    for each in trials:
        by = ", ".join(f"`{test.rpartition('::')[2]}` in `{test.partition('::')[0]}`" for test in each.tests)
        lines.append(f"| `{each.mutant.file}` | {each.mutant.promise} | {each.outcome} | {by} |")
    return "\n".join(lines)


@contextmanager
def _servers() -> Iterator[dict[str, str]]:
    """The addresses of all servers, by variable. Those that the environment does not name are started, and stopped."""
    missing = [name for name, variable in ADDRESSES.items() if variable not in os.environ]
    if not missing:
        yield {}
        return
    stack = Stack(PROJECT_ROOT, f"mutants-{os.getpid()}", servers=missing)
    try:
        state = stack.up()
        yield {ADDRESSES[name]: state.address(name) for name in missing}
    finally:
        stack.reset()
        rmtree(stack.folder, ignore_errors=True)


def _chosen(names: Sequence[str]) -> list[Mutant]:
    """Raises UsageError for an unknown name, and for a table that does not fit the code."""
    found = mutants()
    if unknown := set(names) - {each.name for each in found}:
        raise UsageError(f"--only: there is no planted defect {', '.join(sorted(unknown))}")
    chosen = [each for each in found if not names or each.name in names]
    if wrong := [problem for each in chosen for problem in problems(each)]:
        raise UsageError("\n".join(wrong))
    return chosen


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="try only this defect")
    parser.add_argument("--jobs", type=int, default=2, help="try this number at a time (default: 2)")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="print text or JSON")
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/reliability.md")
    options = parser.parse_args(arguments)
    if options.write and options.only:
        parser.error("--write needs all defects: leave --only out")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    where, started = conditions(), time.monotonic()

    def show(trial: Trial) -> None:
        if options.format == "text":
            print(line(trial), flush=True)
        else:
            say(line(trial))

    try:
        chosen = _chosen(options.only)
        with _servers() as addresses, ExitStack() as copies:
            scratch = [
                copies.enter_context(scratch_copy(PROJECT_ROOT, addresses))
                for _ in range(max(1, options.jobs))
            ]
            say(f"first the tests of {len(chosen)} planted defects without them")
            trials = try_all(scratch, chosen, show)
    except (UsageError, CannotTry) as error:
        say(f"mutants: {error}")
        return _WRONG_TABLE
    if options.format == "json":
        print(json.dumps([document(each) for each in trials], indent=2))
    red = sum(each.outcome is Outcome.RED for each in trials)
    say(f"{red} of {len(trials)} red in {time.monotonic() - started:.0f} s")
    if options.write and exit_code(trials) == 0:
        write(table(trials, where), BEGIN, END, PAGE)
    return exit_code(trials)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
