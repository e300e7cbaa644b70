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

from regworkers_core.settings import PROJECT_ROOT
from tests.upgrade.base import COMMIT


@dataclass(frozen=True)
class Base:
    """A work tree of the base release."""

    root: Path

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """`python -m tests.upgrade.release` of that release, which imports its packages and not the installed ones."""
        environment = {"PYTHONPATH": str(self.root), "PYTHONSAFEPATH": "1", "REGWORKERS_INSTANCE": "none"}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.upgrade.release", *words],
            cwd=self.root,
            env={**os.environ, **environment},
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


def _git(*words: str) -> list[str]:
    return ["git", "-C", str(PROJECT_ROOT), *words]
