"""An entry of which every process dies: the others of its message are saved, and it is a dead letter."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.engine.marks import UNANSWERED
from regworkers_core.replication.send import send_keys
from regworkers_core.runtime import Runtime
from tests.faults.crash import SECTIONS
from tests.faults.victim import DEADLY
from tests.support.children import run_child
from tests.support.entries import key, put
from tests.support.runtimes import new_runtime, remove_namespace
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

NEIGHBOURS = 19


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    made = new_runtime(None, **SECTIONS)
    yield made
    remove_namespace(made)


def test_an_entry_that_kills_its_workers_leaves_its_neighbours_saved_and_ends_as_a_dead_letter(
    runtime: Runtime,
) -> None:
    names = [*(f"e{number}" for number in range(NEIGHBOURS)), DEADLY]
    for name in names:
        put(runtime, key(name))
    queue = runtime.queue(runtime.names.replication_queue)
    send_keys(queue, [ReplicationItem(key(name), Op.UPSERT) for name in names])
    deaths, saved_after = 0, None

    def over() -> bool:
        nonlocal deaths, saved_after
        # The message of the dead one is hidden for its visibility time.
        wait_until(lambda: queue.depth().visible or not queue.depth().total, what="a message to be visible")
        answer = run_child(
            "tests.faults.victim", runtime.names.prefix, "none", "1", "dies of an entry", seconds=60
        )
        assert answer.returncode in (0, -signal.SIGKILL), answer.stderr
        deaths += answer.returncode != 0
        if saved_after is None and runtime.replica.count() == NEIGHBOURS:
            saved_after = deaths
        return queue.depth().total == 0

    wait_until(over, seconds=90, what="an empty queue")
    # The first time alone as a whole, the second time item by item.
    assert (saved_after, deaths) == (UNANSWERED + 2, UNANSWERED + 2)
    assert runtime.replica.count() == NEIGHBOURS
    (letter,) = runtime.dead_letters.of_entry(key(DEADLY))
    assert letter["reason"] == "KILLED" and letter["status"] == "open"
    assert runtime.queue(runtime.names.dead_letter_queue(queue.name)).depth().total == 1
    assert runtime.leases.rows(f"MARK#{queue.name}") == []
