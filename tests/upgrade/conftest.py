"""Runs the code of the base release in a work tree of it, beside today's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest

from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from tests.support.kafka import Published, published
from tests.support.runtimes import remove_namespace, test_settings
from tests.support.terminal import Answer, regworkers
from tests.upgrade import release
from tests.upgrade.base import COMMIT

DRAINS = ("enqueue", "save", "selections", "notifications", "publish")


@dataclass(frozen=True)
class Base:
    """A work tree of the base release."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """In which Python imports the packages of that release, and not the installed ones."""
        return {
            **os.environ,
            "PYTHONPATH": str(self.root),
            "PYTHONSAFEPATH": "1",
            "REGWORKERS_INSTANCE": "none",
        }

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """What `tests/upgrade/release.py` does on the code of that release."""
        return subprocess.Popen(
            [sys.executable, release.__file__, *words],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
        )

    def run(self, *words: str) -> Any:
        """Its answer: the last line of stdout, as JSON."""
        with self.start(*words) as process:
            stdout, _ = process.communicate()
        assert process.returncode == 0
        return orjson.loads(stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def base() -> Iterator[Base]:
    if subprocess.run(_git("cat-file", "-e", f"{COMMIT}^{{commit}}"), capture_output=True).returncode:
        pytest.skip(f"commit {COMMIT[:7]} is not in this clone: `git fetch --unshallow` brings it")
    with TemporaryDirectory(prefix="regworkers-base-") as folder:
        root = Path(folder) / "base"
        added = _git("worktree", "add", "--detach", str(root), COMMIT)
        subprocess.run(added, check=True, capture_output=True)
        try:
            yield Base(root)
        finally:
            subprocess.run(_git("worktree", "remove", "--force", str(root)), check=True, capture_output=True)


@dataclass
class Upgraded:
    runtime: Runtime
    # What the base release says that has to be found.
    expected: dict[str, Any]
    provisioned: Answer
    # What the base release has published.
    before: list[Published]


@pytest.fixture(scope="module")
def upgraded(base: Base) -> Iterator[Upgraded]:
    """What the base release left in mid-work, provisioned, before any drain of today has worked on it."""
    runtime = Runtime(test_settings(f"t{os.urandom(4).hex()}-"))
    try:
        expected = base.run("write", runtime.names.prefix)
        before = published(runtime)
        provisioned = regworkers(runtime, "provision", "--apply", "--yes", "--format", "json")
        yield Upgraded(Runtime(runtime.settings), expected, provisioned, before)
    finally:
        remove_namespace(runtime)


def _git(*words: str) -> list[str]:
    return ["git", "-C", str(PROJECT_ROOT), *words]
