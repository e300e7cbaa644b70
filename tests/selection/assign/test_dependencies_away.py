"""MongoDB and SQS going away under a processor: nothing is lost, nothing is given twice, no dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from regworkers_core.engine.drain import DrainReport
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_local.stack import Stack
from tests.faults.test_dependencies_away import IMPATIENT
from tests.selection.assign.crash import MARKETS, ROWS, SECTIONS, judge
from tests.support.drains import run
from tests.support.draws import add_codes, all_completed, confirmed, market_status, publish
from tests.support.runtimes import ADDRESSES, new_runtime, test_settings
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("away"), "away-selection")
    yield made
    made.reset()


class Outage:
    """A published draw on a stack of its own."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        stack.up()
        self._addresses = {name: stack.state.address(name) for name in ADDRESSES}
        self.runtime = new_runtime(self._addresses, **SECTIONS)
        confirmed(self.runtime, ROWS, MARKETS)
        for name in MARKETS:
            add_codes(self.runtime, name, 15)
        publish(self.runtime)

    def drain_until_it_is_away(self, step: str, strike: Callable[[], None]) -> DrainReport:
        """An impatient drain; the dependency goes away when it passes `step` for the second time."""
        passed: list[str] = []

        def on_step(name: str) -> None:
            if name == step:
                passed.append(name)
                if len(passed) == 2:
                    strike()

        aws: dict[str, Any] = {"endpoint_url": self._addresses["aws"], **IMPATIENT["aws"]}
        sections: dict[str, Any] = {**IMPATIENT, **SECTIONS}
        sections["aws"] = {**aws, "access_key_id": "test", "secret_access_key": "test"}
        sections["mongo"] = {"uri": self._addresses["mongo"], **IMPATIENT["mongo"]}
        runtime = Runtime(test_settings(self.runtime.names.prefix, self._addresses, **sections))
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


def test_mongodb_killed_between_codes_and_selections(own_servers: None, stack: Stack) -> None:
    outage = Outage(stack)
    report = outage.drain_until_it_is_away("selections.after_claim", lambda: stack.kill("mongo"))
    assert (report.ended, report.dependency) == ("dependency_down", "mongo")
    assert report.deliveries["returned"] and not report.counts["dead_lettered"]
    stack.up()
    outage.ends_well()


def test_sqs_stopped_between_the_outbox_and_the_events(own_servers: None, stack: Stack) -> None:
    outage = Outage(stack)
    report = outage.drain_until_it_is_away("selections.after_write", lambda: stack.pause("aws"))
    assert report.ended == "dependency_down" and not report.counts["dead_lettered"]
    stack.resume("aws")
    outage.ends_well()
