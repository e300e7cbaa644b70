"""Tries planted defects in a copy of the work tree, so that a kill leaves no defect behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from queue import Queue
from shutil import copy2

from tests.mutants.table import Mutant

# Of the tests of one defect; without a defect, of each test.
LIMIT_SECONDS = 60.0
_PACKAGES = ("fairdraw", "regworkers_core", "regworkers_dagster", "regworkers_local", "tests")
_NO_FAILURE, _FAILURES = 0, 1


class Outcome(StrEnum):
    """LATE: the tests did not end within the limit. NO_PROOF: its tests fail, are skipped or do not end without the
    defect, or could not be run with it.
    """

    RED = "red"
    SURVIVED = "survived"
    LATE = "late"
    NO_PROOF = "no proof"


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a defect. `tests` are those that decide: those that failed when it is RED, those that did not
    fail otherwise.
    """

    mutant: Mutant
    outcome: Outcome
    tests: tuple[str, ...]
    seconds: float = 0.0
    trouble: str = ""


class CannotTry(Exception):
    """The packages are imported from elsewhere than the copy, or pytest does not run there without a defect."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Results by test: whether it passed, whether it failed. `trouble`: why the run as a whole says nothing."""

    passed: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    seconds: float = 0.0
    late: bool = False
    trouble: str = ""


class Scratch:
    """A copy of the work tree in which tests run. `variables` are the addresses of the servers."""

    def __init__(
        self, root: Path, variables: Mapping[str, str], limit_seconds: float = LIMIT_SECONDS
    ) -> None:
        self.root, self._limit_seconds = root, limit_seconds
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        # Other plugins than those of the tests cost most of the time of a short run.
        fast = {"PYTHONPATH": str(root), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        self._variables = {**kept, **variables, **fast}
        # Python takes its cached code by size and second of the source: each change of a file gets a second of its own.
        self._second = int(time.time())

    def prove_imports(self, packages: Sequence[str] = _PACKAGES) -> None:
        """Raises CannotTry unless these packages are imported from the copy."""
        code = (
            "import importlib, sys; [print(importlib.import_module(name).__file__) for name in sys.argv[1:]]"
        )
        command = [sys.executable, "-c", code, *packages]
        answer = subprocess.run(
            command, cwd=self.root, env=self._variables, capture_output=True, text=True, check=True
        )
        for name, file in zip(packages, answer.stdout.split("\n"), strict=False):
            if not Path(file).is_relative_to(self.root):
                raise CannotTry(f"{name} is imported from {file}, not from the copy in {self.root}")

    def sound(self, tests: Sequence[str]) -> frozenset[str]:
        """Those of these tests that pass without a defect. Raises CannotTry."""
        if not tests:
            return frozenset()
        run = self._run(tests, self._limit_seconds * len(tests))
        if run.late or run.trouble:
            raise CannotTry(f"the tests do not run without a defect: {run.trouble or 'they do not end'}")
        return run.passed

    def attempt(self, mutant: Mutant, sound: frozenset[str]) -> Trial:
        """Plant the defect, run its tests, and remove it. Raises ValueError if its old text does not occur once."""
        if unsound := tuple(test for test in mutant.tests if test not in sound):
            return Trial(mutant, Outcome.NO_PROOF, unsound, trouble="does not pass without the defect")
        with self._planted(mutant):
            run = self._run(mutant.tests, self._limit_seconds)
        if run.trouble:
            return Trial(mutant, Outcome.NO_PROOF, mutant.tests, run.seconds, run.trouble)
        if run.late:
            return Trial(mutant, Outcome.LATE, mutant.tests, run.seconds)
        green = tuple(test for test in mutant.tests if test not in run.failed)
        return Trial(mutant, Outcome.SURVIVED if green else Outcome.RED, green or mutant.tests, run.seconds)

    @contextmanager
    def _planted(self, mutant: Mutant) -> Iterator[None]:
        path = self.root / mutant.file
        text = path.read_text(encoding="utf-8")
        self._write(path, mutant.applied(text))
        try:
            yield
        finally:
            self._write(path, text)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        self._second += 1
        os.utime(path, (self._second, self._second))

    def _run(self, tests: Sequence[str], limit_seconds: float) -> _Run:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(self.root)]
            command += ["-m", "slow or not slow", f"--junitxml={report}", *tests]
            started = time.monotonic()
            code, output = self._ended(command, limit_seconds)
            seconds = time.monotonic() - started
            if code is None:
                return _Run(seconds=seconds, late=True)
            # Any other code is a run that did not happen: a defect that cannot be imported proves nothing.
            if code not in (_NO_FAILURE, _FAILURES):
                return _Run(seconds=seconds, trouble=_last_lines(output) or f"pytest ended with code {code}")
            return _read(report, seconds)

    def _ended(self, command: Sequence[str], limit_seconds: float) -> tuple[int | None, str]:
        """Exit code and output; None when the time was up."""
        with subprocess.Popen(
            command,
            cwd=self.root,
            env=self._variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as pytest:
            try:
                output, _ = pytest.communicate(timeout=limit_seconds)
                return pytest.returncode, output
            except subprocess.TimeoutExpired:
                return None, ""
            finally:
                # Also what the tests have started.
                with suppress(ProcessLookupError):
                    os.killpg(pytest.pid, signal.SIGKILL)


# `make verifier` makes them, by npm.
_CURVES = "build/verifier/curves.js"


@contextmanager
def scratch_copy(tree: Path, variables: Mapping[str, str]) -> Iterator[Scratch]:
    """A copy of the files of `tree` that Git knows or would take up, and the curves of the page, without which no
    signature is checked in JavaScript: no environment, no state of instances.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    with tempfile.TemporaryDirectory(prefix="regworkers-mutants-") as folder:
        for name in filter(None, [*listed.split("\0"), _CURVES]):
            # A file that was deleted and not committed is still listed.
            if (tree / name).is_file():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                copy2(tree / name, Path(folder) / name)
        yield Scratch(Path(folder).resolve(), variables)


def try_all(
    copies: Sequence[Scratch], mutants: Sequence[Mutant], on_trial: Callable[[Trial], None]
) -> list[Trial]:
    """Run the tests of all mutants without a defect, then plant one after the other, in each copy one at a time."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    free: Queue[Scratch] = Queue()
    for scratch in copies:
        scratch.prove_imports()
        free.put(scratch)
    with ThreadPoolExecutor(len(copies)) as pool:
        parts = [tests[number :: len(copies)] for number in range(len(copies))]
        sound = frozenset[str]().union(*pool.map(Scratch.sound, copies, parts))

        def attempt(mutant: Mutant) -> Trial:
            scratch = free.get()
            try:
                return scratch.attempt(mutant, sound)
            finally:
                free.put(scratch)

        trials = []
        try:
            for trial in pool.map(attempt, mutants):
                on_trial(trial)
                trials.append(trial)
        finally:
            pool.shutdown(cancel_futures=True)
        return trials


def _read(report: Path, seconds: float) -> _Run:
    passed, failed, others = set[str](), set[str](), set[str]()
    for case in ElementTree.parse(report).iter("testcase"):
        path = case.get("classname", "").replace(".", "/")
        name = f"{path}.py::{case.get('name', '').partition('[')[0]}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.add(name)
        elif case.find("skipped") is not None:
            others.add(name)
        else:
            passed.add(name)
    return _Run(frozenset(passed - failed - others), frozenset(failed), seconds)


def _last_lines(output: str) -> str:
    return " / ".join(output.strip().splitlines()[-3:])
