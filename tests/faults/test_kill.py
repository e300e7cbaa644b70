"""What a kill would cost without the order of write and acknowledgement. Good drains: test_campaign.py."""

from __future__ import annotations

import pytest

from regworkers_core.runtime import Runtime
from tests.faults.crash import SECTIONS, Fault, crash_and_recover

pytestmark = [pytest.mark.slow, pytest.mark.namespace("test", **SECTIONS)]


def test_a_drain_that_acknowledges_before_the_write_loses_entries(runtime: Runtime) -> None:
    fault = Fault("save.after_write", variant="acknowledges first")
    verdict = crash_and_recover(runtime, fault)
    assert verdict.lost and not verdict.doubled
