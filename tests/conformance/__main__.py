"""The suites of adapters and flows against other implementations of the servers: `python -m tests.conformance`.

Runs them for each server, with all other servers embedded, and prints a table. `--write` puts it into
docs/conformance.md. Exit code 1 if a test failed that servers.yml does not expect to fail, or passed that it does.
`--java --demo` runs the demo on all of the servers that need Java at once, by the settings of an operator.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings import PROJECT_ROOT
from tests.conformance.expected import SERVER, servers
from tests.conformance.servers import MAVEN_PROJECTS, START, VERSION, fetch
from tests.support import simulated
from tests.support.runtimes import ADDRESSES, AWS_ENDPOINTS, NO_BUCKET_POLICY, REDIS_MODE

RESULTS = PROJECT_ROOT / "build" / "conformance"
# The settings in which an operator enters what the suites get by these variables.
SETTINGS = {ADDRESSES["kafka"]: "REGWORKERS_KAFKA__BOOTSTRAP", AWS_ENDPOINTS: "REGWORKERS_AWS__ENDPOINTS"}
PAGE = PROJECT_ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- begin: make conformance -->", "<!-- end: make conformance -->"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of one server's suites came to; `passed` and the others count tests."""

    server: str
    passed: int = 0
    expected_failures: int = 0
    skipped: int = 0
    wrong: int = 0
    seconds: float = 0.0
    trouble: str = ""

    @property
    def good(self) -> bool:
        return not self.wrong and not self.trouble and self.passed > 0


def run(name: str, workers: str, arguments: Sequence[str] = ()) -> Outcome:
    """The suites of one server. Prints pytest's output."""
    folder = _emptied(name)
    report = folder / "report.xml"
    started = time.monotonic()
    with START[name](folder) as addresses:
        code = _ran(_command(name, workers, report, arguments), _variables(name, addresses))
    seconds = time.monotonic() - started
    # 1 is a failed test; any other code, no tests included, is a run that did not happen.
    if code not in (0, 1):
        return Outcome(name, seconds=seconds, trouble=f"pytest ended with exit code {code}")
    return _counted(name, report, seconds)


def demonstrate(names: Sequence[str], arguments: Sequence[str]) -> int:
    """The exit code of the demo on all of these servers."""
    command = [sys.executable, "-m", "tools.demo", "demo", *arguments]
    with ExitStack() as ended:
        started = [ended.enter_context(START[name](_emptied(name))) for name in names]
        addresses = {
            SETTINGS[key]: value for each in started for key, value in each.items() if key in SETTINGS
        }
        # The servers end with the demo, so that its instance would be of no use.
        return _ran(command, {**os.environ, **addresses, "KEEP": "0"})


def _emptied(name: str) -> Path:
    folder = RESULTS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _ran(command: Sequence[str], variables: Mapping[str, str]) -> int:
    """The exit code. When this process is stopped, the command is interrupted first, and stops its own servers."""
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=variables, start_new_session=True) as child:
        try:
            return child.wait()
        except BaseException:
            child.send_signal(signal.SIGINT)
            child.wait(timeout=60)
            raise


def _command(name: str, workers: str, report: Path, arguments: Sequence[str]) -> list[str]:
    entry = servers()[name]
    return [
        *(sys.executable, "-m", "pytest", "-n", f"{entry.get('workers', workers)}", "--dist", "worksteal"),
        *("-m", entry.get("marked", "not slow"), "-p", "tests.conformance.expected", f"--junitxml={report}"),
        *entry["suites"],
        *arguments,
    ]


def _variables(name: str, addresses: Mapping[str, str]) -> dict[str, str]:
    given = {*ADDRESSES.values(), AWS_ENDPOINTS, NO_BUCKET_POLICY, REDIS_MODE, simulated.VARIABLE}
    kept = {key: value for key, value in os.environ.items() if key not in given}
    return {**kept, **addresses, SERVER: name}


def _counted(name: str, report: Path, seconds: float) -> Outcome:
    cases = list(ElementTree.parse(report).iter("testcase"))
    wrong = sum(1 for case in cases if case.find("failure") is not None or case.find("error") is not None)
    skips = [skip for case in cases if (skip := case.find("skipped")) is not None]
    expected = sum(1 for skip in skips if skip.get("type") == "pytest.xfail")
    return Outcome(
        name,
        passed=len({*cases}) - wrong - len(skips),
        expected_failures=expected,
        skipped=len(skips) - expected,
        wrong=wrong,
        seconds=seconds,
    )


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(
        "server", "version", "passed", "expected failures", "skipped", "wrong", "time", title="conformance"
    )
    for each in outcomes:
        counts = (each.passed, each.expected_failures, each.skipped)
        wrong = each.trouble or f"{each.wrong}"
        row = (*(f"{count:,}" for count in counts), wrong, f"{each.seconds:.0f} s")
        table.add_row(
            servers()[each.server]["name"], VERSION[each.server](), *row, style=None if each.good else "red"
        )
    return table


def write_page(outcomes: Sequence[Outcome]) -> None:
    """Replace the rows of these servers in docs/conformance.md."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    rows, _, after = rest.partition(END)
    measured = {each.server: _row(each) for each in outcomes}
    kept = {line.split("|")[1].strip(): line for line in rows.splitlines() if line.startswith("| ")}
    head = (
        "| server | version | like | passed | expected failures | skipped | time |\n"
        "|---|---|---|---:|---:|---:|---:|"
    )
    lines = [
        measured.get(name) or kept.get(entry["name"]) or f"| {entry['name']} | | {entry['like']} | | | | |"
        for name, entry in servers().items()
    ]
    PAGE.write_text(f"{before}{BEGIN}\n{head}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


def _row(each: Outcome) -> str:
    entry: dict[str, Any] = servers()[each.server]
    counts = f"{each.passed:,} | {each.expected_failures:,} | {each.skipped:,} | {each.seconds:.0f} s"
    return f"| {entry['name']} | {VERSION[each.server]()} | {entry['like']} | {counts} |"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    choices = list(servers())
    parser.add_argument("servers", nargs="*", metavar="SERVER", help=f"run only these: {', '.join(choices)}")
    parser.add_argument(
        "--java", action="store_true", help="run those that need Java 17 and Maven (default: the others)"
    )
    parser.add_argument("--workers", default="4", help="run this number of tests at once (default: 4)")
    parser.add_argument("--write", action="store_true", help="write the table into docs/conformance.md")
    parser.add_argument(
        "--demo",
        nargs=argparse.REMAINDER,
        help="run the demo on them instead, with the rest as its arguments",
    )
    parser.add_argument("--pytest", nargs=argparse.REMAINDER, default=[], help="pass the rest to pytest")
    chosen = parser.parse_args(arguments)
    for name in chosen.servers:
        if name not in choices:
            parser.error(f"there is no server {name!r}: choose from {', '.join(choices)}")
    names = chosen.servers or [name for name in choices if (name in MAVEN_PROJECTS) == chosen.java]
    # A stopped run ends its servers, too. A shell's background job, and so its pytest, would ignore the interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    outcomes = []
    try:
        for name in MAVEN_PROJECTS.keys() & names:
            fetch(name)
        if chosen.demo is not None:
            return demonstrate(names, chosen.demo)
        for name in names:
            print(f"\n{servers()[name]['name']}, like {servers()[name]['like']}", flush=True)
            outcomes.append(run(name, chosen.workers, chosen.pytest))
    except UsageError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    Console().print(_table(outcomes))
    if chosen.write and all(each.good for each in outcomes):
        write_page(outcomes)
    return 0 if all(each.good for each in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
