"""What a kill would cost without the order of write and acknowledgement. Good drains: test_campaign.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regworkers_core.runtime import Runtime
from tests.faults.crash import SECTIONS, Fault, crash_and_recover
from tests.support.runtimes import new_runtime, remove_namespace

pytestmark = pytest.mark.slow


@pytest.fixture
def small_batches() -> Iterator[Runtime]:
    made = new_runtime(None, **SECTIONS)
    yield made
    remove_namespace(made)


def test_a_drain_that_acknowledges_before_the_write_loses_entries(small_batches: Runtime) -> None:
    fault = Fault("save.after_write", variant="acknowledges first")
    verdict = crash_and_recover(small_batches, fault)
    assert verdict.lost and not verdict.doubled
