"""kill -9 of a publish drain, and of the broker under it."""

from __future__ import annotations

from pathlib import Path

import pytest

from regworkers_core.runtime import Runtime
from regworkers_local.stack import Stack
from tests.analytics.crash import PASSES, SECTIONS, broker_dies_and_returns, crash_and_recover
from tests.support.runtimes import ADDRESSES, new_runtime

pytestmark = [pytest.mark.slow, pytest.mark.namespace("test", **SECTIONS)]


@pytest.mark.parametrize("step", PASSES)
def test_a_drain_killed_between_acknowledgement_and_delete_repeats_ids_and_loses_nothing(
    runtime: Runtime, step: str
) -> None:
    verdict = crash_and_recover(runtime, step, 2)
    assert verdict.clean, verdict
    assert verdict.repeats, "what was acknowledged and not deleted comes again"


def test_a_broker_killed_under_a_drain_costs_a_pause_and_no_event(own_servers: None, tmp_path: Path) -> None:
    with Stack(tmp_path, "broker", servers=ADDRESSES) as stack:
        state = stack.up()
        mine = new_runtime({name: state.address(name) for name in ADDRESSES}, **SECTIONS)
        report, verdict = broker_dies_and_returns(mine, stack)
        mine.mongo.close()
    assert (report.ended, report.dependency) == ("dependency_down", "kafka")
    assert report.deliveries["returned"] and not report.counts["dead_lettered"]
    assert verdict.clean, verdict
