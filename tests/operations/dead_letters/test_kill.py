"""A redrive that is killed half way loses nothing, and the next one goes on."""

from __future__ import annotations

import signal

import orjson
import pytest

from regworkers_core.engine.queue import Outgoing
from regworkers_core.operations.dead_letters.redrive import RedriveOptions, redrive
from regworkers_core.runtime import Runtime
from tests.operations.dead_letters.world import (
    FAST,
    assessor,
    body,
    depths,
    everything,
    replication,
    send_dead,
)
from tests.support.children import run_child
from tests.support.entries import key, put
from tests.support.waiting import wait_until

pytestmark = pytest.mark.namespace("module", dead_letters=FAST)

NUMBER = 35


@pytest.fixture
def stocked(runtime: Runtime) -> Runtime:
    for number in range(NUMBER):
        put(runtime, key(f"e{number}"))
    queue = replication(runtime)
    send_dead(runtime, queue, [Outgoing(body(f"e{number}")) for number in range(NUMBER)])
    return runtime


def entries_of(runtime: Runtime, queue_name: str) -> list[str]:
    messages = everything(runtime, queue_name)
    return [item["sk"] for message in messages for item in orjson.loads(message.body)["items"]]


def killed(runtime: Runtime, step: str) -> None:
    """At its second send of ten."""
    victim = run_child("tests.operations.dead_letters.victim", runtime.names.prefix, step, "2")
    assert victim.returncode == -signal.SIGKILL, victim.stderr


@pytest.mark.slow
def test_killed_between_send_and_delete_it_doubles_some_and_the_next_one_goes_on(stocked: Runtime) -> None:
    queue = replication(stocked)
    killed(stocked, "redrive.after_send")
    assert depths(stocked) == (20, NUMBER - 10), "the second ten are on both queues"
    # What the dead process held is hidden for as long as its browser would have stayed open.
    wait_until(lambda: stocked.queue(queue.name).depth().in_flight == 0)
    options = RedriveOptions(dry_run=False, at_once=True)
    report = redrive(stocked, queue, assessor(stocked), options)
    assert report.finished and report.sent.total() == NUMBER - 10
    assert depths(stocked) == (NUMBER + 10, 0)
    assert set(entries_of(stocked, queue.source)) == {key(f"e{number}").sk for number in range(NUMBER)}
    outcomes = [action.outcome for action in stocked.operator_actions.history(what="dlq")]
    assert sorted(outcomes) == ["done", "killed"]


def test_killed_after_the_delete_it_has_neither_lost_nor_doubled_any(stocked: Runtime) -> None:
    killed(stocked, "redrive.after_delete")
    assert depths(stocked) == (20, NUMBER - 20)
    (action,) = stocked.operator_actions.history(what="dlq")
    assert (action.outcome, action.ended_at) == ("running", None)
