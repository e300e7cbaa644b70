"""Which examples hypothesis draws: the same in every run of the suite, others in a soak."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from regworkers_core.settings import PROJECT_ROOT

_MODULE = """
from hypothesis import given, settings, strategies as st

@settings(max_examples=20, database=None)
@given(st.integers())
def test_draws(number):
    print(number, end=" ")
"""


def drawn(folder: Path, *options: str) -> str:
    """What two runs would print each."""
    module = folder / "test_drawn.py"
    module.write_text(_MODULE)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "--no-servers"]
    command += ["-c", str(PROJECT_ROOT / "pyproject.toml"), "-p", "tests.conftest", *options, str(module)]
    ended = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return next(line for line in ended.stdout.splitlines() if line.count(" ") >= 20).rstrip(".")


@pytest.mark.parametrize(("options", "same"), [((), True), (("--hypothesis-profile=soak",), False)])
def test_examples_repeat_in_every_run_but_a_soak(
    options: tuple[str, ...], same: bool, tmp_path: Path
) -> None:
    assert (drawn(tmp_path, *options) == drawn(tmp_path, *options)) is same
