"""An entry of which every process dies ends as a dead letter, and acknowledging before the write would lose entries."""

from __future__ import annotations

import pytest

from regworkers_core.engine.marks import UNANSWERED
from regworkers_core.runtime import Runtime
from tests.faults.crash import SECTIONS, Fault, crash_and_recover
from tests.faults.killer import NEIGHBOURS, die_until_it_is_given_up
from tests.faults.victim import DEADLY
from tests.support.entries import key

pytestmark = [pytest.mark.slow, pytest.mark.namespace("test", **SECTIONS)]


def test_an_entry_that_kills_its_workers_leaves_its_neighbours_saved_and_ends_as_a_dead_letter(
    runtime: Runtime,
) -> None:
    deaths, saved_after, verdict = die_until_it_is_given_up(runtime)
    assert verdict.clean, verdict
    # The first time alone as a whole, the second time item by item.
    assert (saved_after, deaths) == (UNANSWERED + 2, UNANSWERED + 2)
    assert runtime.replica.count() == NEIGHBOURS
    (dead_letter,) = runtime.dead_letters.of_entry(key(DEADLY))
    assert dead_letter["reason"] == "KILLED" and dead_letter["status"] == "open"
    names = runtime.names
    assert runtime.queue(names.dead_letter_queue(names.replication_queue)).depth().total == 1
    assert runtime.leases.rows(f"MARK#{names.replication_queue}") == []


def test_a_drain_that_acknowledges_before_the_write_loses_entries(runtime: Runtime) -> None:
    fault = Fault("save.after_write", variant="acknowledges first")
    verdict = crash_and_recover(runtime, fault)
    assert verdict.lost and not verdict.doubled
