"""What a redrive leaves where it is: what came back, what cannot be read, and what had no canary."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.queue import Outgoing
from regworkers_core.operations.dead_letters import browse
from regworkers_core.operations.dead_letters import redrive as redriving
from regworkers_core.operations.dead_letters.browse import QueueBrowser
from regworkers_core.operations.dead_letters.model import Choice
from regworkers_core.operations.dead_letters.redrive import Callbacks, RedriveOptions, redrive
from regworkers_core.operations.dead_letters.report import CanaryOutcome, Causes
from regworkers_core.runtime import Runtime
from tests.operations.dead_letters.world import assessor, body, depths, replication, send_dead
from tests.support.entries import key, put, remove

# Our own mover, without canaries.
REST = RedriveOptions(dry_run=False, canary_messages=0, by_sqs=False)
INVALID = {"reason": "INVALID_ENTRY"}


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of the browser is one message."""

    class OneByOne(QueueBrowser):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **{**more, "batch_messages": 1})

    monkeypatch.setattr(browse, "QueueBrowser", OneByOne)


def dead_letters(runtime: Runtime, *entries: str, **attributes: str) -> None:
    for entry in entries:
        put(runtime, key(entry))
        send_dead(runtime, replication(runtime), [Outgoing(body(entry), {**INVALID, **attributes})])


@pytest.mark.usefixtures("one_by_one")
def test_messages_that_come_back_while_the_rest_is_sent_are_sent_once(runtime: Runtime) -> None:
    dead_letters(runtime, "e1", "e2", "e3")
    queue, times = replication(runtime), Counter[str]()
    source = runtime.queue(queue.source)

    def drain_that_fails_them(step: str) -> None:
        if step != "redrive.after_delete":
            return
        for each in source.receive(10, 0, 30):
            source.delete([each])
            times[each.body] += 1
            # Not for ever, should they be sent again and again.
            if times[each.body] < 3:
                send_dead(runtime, queue, [Outgoing(each.body.encode(), INVALID)])

    callbacks = Callbacks(on_step=drain_that_fails_them)
    report = redrive(runtime, queue, assessor(runtime), REST, callbacks=callbacks)
    assert report.sent_messages == 3 and set(times.values()) == {1}
    assert depths(runtime) == (0, 3)


@pytest.mark.usefixtures("one_by_one")
def test_a_cause_that_comes_back_while_its_rest_is_sent_is_stopped(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead_letters(runtime, "e1", "e2", "e3")
    queue = replication(runtime)
    monkeypatch.setattr(redriving, "_CHECK_SECONDS", 0.0)

    def failure(step: str) -> None:
        if step == "redrive.after_send":
            (cause,) = {each.fingerprint for each in redriven}
            fields = {"queue": queue.source, "fingerprint": cause, "status": "open"}
            runtime.database["dead_letters"].insert_one({**fields, "lastFailedAt": iso(time.time() + 1)})

    counted = redrive(runtime, queue, assessor(runtime), RedriveOptions())
    redriven = list(counted.groups)
    report = redrive(runtime, queue, assessor(runtime), REST, callbacks=Callbacks(on_step=failure))
    assert list(report.canaries.values()) == [CanaryOutcome.FAILED_AGAIN] and not report.finished
    assert report.sent_messages == 1 and depths(runtime) == (1, 2)


def test_a_body_that_cannot_be_read_stays_where_it_is(runtime: Runtime) -> None:
    send_dead(runtime, replication(runtime), [Outgoing(b"no JSON", {"reason": "INVALID_BODY"})])
    options = RedriveOptions(dry_run=False, canary_messages=1, canary_seconds=0.2)
    report = redrive(runtime, replication(runtime), assessor(runtime), options)
    assert report.sent_messages == 0 and depths(runtime) == (0, 1)


@pytest.mark.parametrize("besides", ["not chosen", "settled", "unreadable"])
def test_sqs_is_not_asked_to_move_a_queue_of_which_only_a_part_goes(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, besides: str
) -> None:
    dead_letters(runtime, "e1")
    queue, choice = replication(runtime), Choice()
    if besides == "not chosen":
        dead_letters(runtime, "e2", reason="INVALID_KEY")
        choice = Choice(reason="INVALID_ENTRY")
    elif besides == "settled":
        dead_letters(runtime, "e2")
        remove(runtime, key("e2"))
    else:
        send_dead(runtime, queue, [Outgoing(b"no JSON", INVALID)])
    asked: list[object] = []
    monkeypatch.setattr(redriving, "move_whole_queue", lambda *_, **__: asked.append(1))
    options = RedriveOptions(choice, dry_run=False, canary_messages=0)
    report = redrive(runtime, queue, assessor(runtime), options)
    assert report.sent_messages == 1 and asked == [] and depths(runtime) == (1, 1)


def test_causes_beyond_those_that_are_distinguished_are_not_sent(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Causes.__init__, "__defaults__", (1,))
    dead_letters(runtime, "e1")
    dead_letters(runtime, "e2", "e3", reason="INVALID_KEY")
    report = redrive(runtime, replication(runtime), assessor(runtime), REST)
    (sent,) = report.sent.values()
    assert report.sent_messages == sent and sent + depths(runtime)[1] == 3
    assert depths(runtime)[1] > 0 and not report.finished
