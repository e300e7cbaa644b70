"""kill -9 between a decision and its publication: the resumed draw is the one that was begun."""

from __future__ import annotations

import pytest

from regworkers_core.runtime import Runtime
from tests.selection.draw.crash import STEPS, crash_and_resume

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("step", STEPS)
def test_a_draw_killed_at_a_step_is_resumed_to_the_same_result(runtime: Runtime, step: str) -> None:
    assert crash_and_resume(runtime, step) == []
