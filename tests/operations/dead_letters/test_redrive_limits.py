"""What a redrive leaves where it is, and one that is killed half way: nothing is lost, and the next one goes on."""

from __future__ import annotations

import signal
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.queue import Outgoing
from regworkers_core.operations.dead_letters import browse
from regworkers_core.operations.dead_letters import redrive as redriving
from regworkers_core.operations.dead_letters.browse import QueueBrowser
from regworkers_core.operations.dead_letters.redrive import Callbacks, RedriveOptions, redrive
from regworkers_core.operations.dead_letters.report import Causes
from regworkers_core.operations.dead_letters.rounds import Outcome
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
from tests.support.entries import key, put, remove
from tests.support.waiting import wait_until

pytestmark = pytest.mark.namespace("module", dead_letters=FAST)

AT_ONCE = RedriveOptions(dry_run=False, at_once=True)
INVALID = {"reason": "INVALID_ENTRY"}


def pages_of(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let the browser hand out this number of messages at a time."""

    class Pages(QueueBrowser):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **{**more, "batch_messages": size})

    monkeypatch.setattr(browse, "QueueBrowser", Pages)


def dead_letters(runtime: Runtime, *entries: str, **attributes: str) -> None:
    for entry in entries:
        put(runtime, key(entry))
    outgoing = [Outgoing(body(entry), {**INVALID, **attributes}) for entry in entries]
    send_dead(runtime, replication(runtime), outgoing)


def taken(runtime: Runtime) -> list[str]:
    """The entries of the messages on the queue, received for good."""
    source = runtime.queue(replication(runtime).source)
    messages = source.receive(10, 0, 30)
    source.delete(messages)
    return [orjson.loads(each.body)["items"][0]["sk"].removeprefix("ENTRY#") for each in messages]


def test_messages_that_come_back_while_the_rest_is_sent_are_sent_once(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages_of(monkeypatch, 1)
    dead_letters(runtime, "e1", "e2")
    times = Counter[str]()

    def drain_that_fails_them(step: str) -> None:
        if step != "redrive.after_delete":
            return
        for entry in taken(runtime):
            times[entry] += 1
            # Not for ever, should it be sent again and again.
            if times[entry] < 3:
                send_dead(runtime, replication(runtime), [Outgoing(body(entry), INVALID)])
            # So that the redrive looks at all messages for another one to send.
            (other,) = {"e1", "e2"} - {entry}
            remove(runtime, key(other))

    callbacks = Callbacks(on_step=drain_that_fails_them)
    report = redrive(runtime, replication(runtime), assessor(runtime), AT_ONCE, callbacks=callbacks)
    assert report.sent.total() == 1 and list(times.values()) == [1]
    assert depths(runtime) == (0, 2)


def test_a_cause_that_fails_again_while_it_is_sent_is_stopped(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead_letters(runtime, *(f"e{number}" for number in range(8)))
    pages_of(monkeypatch, 4)
    monkeypatch.setattr(redriving, "_CHECK_SECONDS", 0.0)
    queue = replication(runtime)

    def failures(step: str) -> None:
        for entry in taken(runtime) if step == "redrive.after_send" else ():
            about = {"queue": queue.source, "campaignId": key(entry).campaign_id, "entryId": entry}
            runtime.database["dead_letters"].insert_one(
                {**about, "status": "open", "lastFailedAt": iso(time.time() + 1)}
            )

    report = redrive(runtime, queue, assessor(runtime), AT_ONCE, callbacks=Callbacks(on_step=failures))
    assert [each.outcome for each in report.growth.values()] == [Outcome.FAILED_AGAIN]
    assert report.sent.total() == 4 and depths(runtime) == (0, 4)


def test_a_body_that_cannot_be_read_stays_where_it_is(runtime: Runtime) -> None:
    send_dead(runtime, replication(runtime), [Outgoing(b"no JSON", INVALID)])
    dead_letters(runtime, "e1")
    report = redrive(runtime, replication(runtime), assessor(runtime), AT_ONCE)
    assert report.sent.total() == 1 and depths(runtime) == (1, 1) and taken(runtime) == ["e1"]


def test_nothing_is_sent_while_sqs_moves_the_queue_itself(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead_letters(runtime, "e1")
    moves = SimpleNamespace(moved_by_sqs=lambda _queue: 7)
    monkeypatch.setattr(runtime, "message_moves", moves)
    with pytest.raises(UsageError, match="7 messages so far"):
        redrive(runtime, replication(runtime), assessor(runtime), AT_ONCE)
    assert depths(runtime) == (0, 1)


def test_causes_beyond_those_that_are_distinguished_stay_and_leave_the_redrive_unfinished(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Causes.__init__, "__defaults__", (1,))
    dead_letters(runtime, "e1")
    dead_letters(runtime, "e2", reason="INVALID_KEY")
    report = redrive(runtime, replication(runtime), assessor(runtime), AT_ONCE)
    assert report.sent.total() == 1 and depths(runtime) == (1, 1) and not report.finished


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
