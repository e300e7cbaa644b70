"""MongoDB and AWS fail under a draw or a drain: nothing is lost, drawn or given twice, no dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_local.stack import Stack
from tests.faults.test_unavailable_dependencies import SHORT_TIMEOUTS
from tests.selection.assign.crash import MARKETS, ROWS, SECTIONS, judge
from tests.selection.draw import world as draws
from tests.selection.draw.replay import replay_of
from tests.support.drains import run
from tests.support.draws import all_completed, market_status, published, record_of
from tests.support.runtimes import ADDRESSES, new_runtime, test_settings
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("outage"), "outage-selection")
    yield made
    made.reset()


def with_short_timeouts(runtime: Runtime, addresses: dict[str, str], patience: float = 1.0) -> Runtime:
    """On the same namespace, a runtime with short time-outs, `patience` times as long."""

    def times(section: dict[str, float]) -> dict[str, float]:
        return {name: seconds * patience for name, seconds in section.items()}

    aws: dict[str, Any] = {"endpoint_url": addresses["aws"], **times(SHORT_TIMEOUTS["aws"])}
    sections: dict[str, Any] = {**SHORT_TIMEOUTS, **SECTIONS}
    sections["aws"] = {**aws, "access_key_id": "test", "secret_access_key": "test"}
    sections["mongo"] = {"uri": addresses["mongo"], **times(SHORT_TIMEOUTS["mongo"])}
    return Runtime(test_settings(runtime.names.prefix, addresses, **sections))


class Outage:
    """A published draw on a stack of its own."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        stack.up()
        self._addresses = {name: stack.state.address(name) for name in ADDRESSES}
        self.runtime = new_runtime(self._addresses, **SECTIONS)
        published(self.runtime, ROWS, MARKETS, codes=15)

    def drain_until_the_outage(self, step: str, strike: Callable[[], None]) -> DrainReport:
        """A drain with short time-outs; the dependency fails when it passes `step` for the second time."""
        passed: list[str] = []

        def on_step(name: str) -> None:
            if name == step:
                passed.append(name)
                if len(passed) == 2:
                    strike()

        runtime = with_short_timeouts(self.runtime, self._addresses)
        try:
            return run(runtime, SELECTIONS, on_step=on_step)
        finally:
            runtime.mongo.close()

    def ends_well(self) -> None:
        def over() -> bool:
            run(self.runtime, SELECTIONS)
            return market_status(self.runtime) == all_completed(*MARKETS)

        wait_until(over, seconds=40, what="every market complete")
        run(self.runtime, NOTIFICATIONS)
        verdict = judge(self.runtime)
        assert verdict.clean and not verdict.repeats, verdict
        self.runtime.mongo.close()


def test_a_draw_during_outages_of_mongodb_s3_and_sqs_is_resumed_to_the_same_result(
    own_servers: None, stack: Stack
) -> None:
    stack.up()
    addresses = {each: stack.state.address(each) for each in ADDRESSES}
    runtime = new_runtime(addresses)
    draws.close_campaign(runtime)
    decided = []
    for step, strike in (
        ("draw.after_rank", lambda: stack.kill("mongo")),
        ("draw.after_allocate", lambda: stack.pause("aws")),
    ):
        # A whole draw runs before the strike: a slow answer must not pass for an outage.
        victim = with_short_timeouts(runtime, addresses, patience=4.0)

        def fail(passed: str, step: str = step, strike: Callable[[], None] = strike) -> None:
            if passed == step:
                strike()

        with pytest.raises(TransientFailure):
            draws.drawn(victim, run_id=f"victim-{step}", on_step=fail)
        victim.mongo.close()
        stack.up()
        record = record_of(runtime, draws.CAMPAIGN)
        decided.append((record.latest.manifest, record.latest.fields["seedFile"]))
    draws.drawn(runtime, run_id="resumed")
    record = record_of(runtime, draws.CAMPAIGN)
    assert record.latest.status == "PUBLISHED"
    assert {*decided, (record.latest.manifest, record.latest.fields["seedFile"])} == {decided[0]}
    assert replay_of(runtime).passed
    runtime.mongo.close()


def test_mongodb_killed_between_codes_and_selections(own_servers: None, stack: Stack) -> None:
    outage = Outage(stack)
    report = outage.drain_until_the_outage("selections.after_claim", lambda: stack.kill("mongo"))
    assert (report.ended, report.dependency) == ("dependency_down", "mongo")
    assert report.deliveries["returned"] and not report.counts["dead_lettered"]
    stack.up()
    outage.ends_well()


def test_sqs_stopped_between_the_outbox_and_the_events(own_servers: None, stack: Stack) -> None:
    outage = Outage(stack)
    report = outage.drain_until_the_outage("selections.after_write", lambda: stack.pause("aws"))
    assert report.ended == "dependency_down" and not report.counts["dead_lettered"]
    stack.resume("aws")
    outage.ends_well()
