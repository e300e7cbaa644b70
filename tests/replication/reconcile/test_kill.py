"""An acceptance and its undo, each killed in a process of its own."""

from __future__ import annotations

import pytest

from regworkers_core.runtime import Runtime
from tests.replication.reconcile.crash import STEPS, crash_and_repeat

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("step", STEPS)
def test_a_repeat_after_a_kill_loses_no_version_and_keeps_none_twice(runtime: Runtime, step: str) -> None:
    verdict = crash_and_repeat(runtime, step)
    assert verdict.clean, verdict
