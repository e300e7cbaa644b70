"""kill -9 of a drain at every named step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regworkers_core.runtime import Runtime
from tests.faults.crash import PASSES, SECTIONS, Fault, crash_and_recover
from tests.support.runtimes import new_runtime, remove_namespace

pytestmark = pytest.mark.slow


@pytest.fixture
def small_batches() -> Iterator[Runtime]:
    made = new_runtime(None, **SECTIONS)
    yield made
    remove_namespace(made)


@pytest.mark.parametrize("step", PASSES)
def test_a_drain_killed_at_any_step_loses_nothing_and_doubles_nothing(
    small_batches: Runtime, step: str
) -> None:
    verdict = crash_and_recover(small_batches, Fault.at(step, min(2, PASSES[step])))
    assert verdict.clean, verdict


def test_a_drain_that_acknowledges_before_the_write_loses_entries(small_batches: Runtime) -> None:
    fault = Fault("save.after_write", variant="acknowledges first")
    verdict = crash_and_recover(small_batches, fault)
    assert verdict.lost and not verdict.doubled
