"""kill -9 of a processor or sender at every named step: one code, one selection, one outbox row per winner."""

from __future__ import annotations

import pytest

from regworkers_core.runtime import Runtime
from tests.selection.assign.crash import PASSES, SECTIONS, crash_and_recover

pytestmark = [pytest.mark.slow, pytest.mark.namespace("test", **SECTIONS)]


@pytest.mark.parametrize("step", PASSES)
def test_a_worker_killed_at_any_step_loses_nothing_and_gives_nothing_twice(
    runtime: Runtime, step: str
) -> None:
    verdict = crash_and_recover(runtime, step, min(2, PASSES[step]))
    assert verdict.clean, verdict
    # Only a message whose send was not noted may come again, with its key.
    assert step.startswith("notifications.") or not verdict.repeats, verdict
