"""The backstop, and what would go wrong without a safeguard: each check here also sees a broken variant fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest

from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.domain.keys import EntryKey
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.engine.marks import UNANSWERED
from regworkers_core.engine.queue import Outgoing
from regworkers_core.replication.drains import saver
from regworkers_core.replication.keys import KeyRequest
from regworkers_core.runtime import Runtime
from tests.adapters.test_replica import CommitsAndThenTimesOut
from tests.faults.crash import SECTIONS, Fault, crash_and_recover, recover
from tests.faults.killer import NEIGHBOURS, die_until_it_is_given_up
from tests.faults.story import Story
from tests.faults.victim import DEADLY
from tests.support.drains import replicate_all, run
from tests.support.entries import document, key, put

DAY_SECONDS = 24 * 3600


# The queue's own redrive policy


def attributes_of(runtime: Runtime, queue: str) -> dict[str, Any]:
    url = runtime.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    return dict(runtime.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"])


@pytest.mark.parametrize(
    ("name", "receives", "days"),
    [
        ("replication-queue", 100, 4),
        ("selection-queue", 100, 4),
        ("notification-queue", 100, 4),
        ("analytics-queue", 1000, 14),
    ],
)
def test_every_queue_has_its_dead_letter_queue_for_workers_that_die(
    runtime: Runtime, name: str, receives: int, days: int
) -> None:
    queue = runtime.names.prefix + name
    dead = runtime.names.dead_letter_queue(queue)
    stored = attributes_of(runtime, queue)
    policy = orjson.loads(stored["RedrivePolicy"])
    assert int(policy["maxReceiveCount"]) == receives
    assert policy["deadLetterTargetArn"] == attributes_of(runtime, dead)["QueueArn"]
    assert int(stored["MessageRetentionPeriod"]) == days * DAY_SECONDS
    assert int(attributes_of(runtime, dead)["MessageRetentionPeriod"]) == 14 * DAY_SECONDS


def test_a_message_that_kills_every_worker_is_a_dead_letter_after_a_hundred_receives(
    runtime: Runtime,
) -> None:
    queue = runtime.queue(runtime.names.replication_queue)
    dead = runtime.queue(runtime.names.dead_letter_queue(queue.name))
    queue.send([Outgoing(b"{}")])
    for receive in range(1, 101):
        (message,) = queue.receive(1, 0, 0)
        assert message.receive_count == receive
    assert dead.depth().total == 0
    assert queue.receive(1, 0, 0) == []
    assert dead.depth().total == 1


# The version guard


class SlowReads:
    """A table that someone changes right after it was read."""

    def __init__(self, runtime: Runtime, meanwhile: Callable[[], None]) -> None:
        self._table, self._meanwhile = runtime.demand_table, meanwhile

    def get(self, keys: Sequence[EntryKey]) -> dict[EntryKey, dict[str, Any]]:
        found = self._table.get(keys)
        self._meanwhile()
        return found

    def clear_flags(self, entries: Any, replicated_at: str) -> Any:
        return self._table.clear_flags(entries, replicated_at)


def a_slow_saver_is_overtaken(runtime: Runtime) -> str:
    """What the replica holds when the save of version 1 is overtaken by that of version 2."""
    first = put(runtime, key("e1"), firstName="first")
    run(runtime, "enqueue")

    def overtake() -> None:
        put(runtime, key("e1"), version=2, firstName="second", createdAt=first["createdAt"])
        replicate_all(runtime)

    slow = saver(runtime, "slow")
    slow.table = SlowReads(runtime, overtake)
    slow.save({key("e1"): KeyRequest("m", "c")})
    return str((document(runtime, key("e1")) or {})["firstName"])


def test_a_saver_that_was_overtaken_does_not_overwrite_the_newer_state(runtime: Runtime) -> None:
    assert a_slow_saver_is_overtaken(runtime) == "second"


# MongoDB commits and then times out


@pytest.mark.parametrize("attempts", [1, 3], ids=["the message comes again", "the call is repeated"])
def test_what_was_committed_before_a_time_out_still_gets_its_event_and_its_clearing(
    runtime: Runtime, attempts: int
) -> None:
    story = Story(runtime)
    for number in range(5):
        story.put(f"e{number}")
    run(runtime, "enqueue")
    collection = CommitsAndThenTimesOut(runtime.database["entries"])
    dependency = Dependency("mongo", classify_mongo, policy=RetryPolicy(attempts, 5.0, 0.01, 0.01))
    runtime.__dict__["replica"] = Replica(collection, dependency)  # type: ignore[arg-type]
    first = run(runtime, "save")
    if attempts == 1:
        assert first.counts["returned"] == 5
    else:
        # The look after the repeated call finds what this very attempt wrote.
        assert first.counts["applied"] == first.counts["cleared"] == first.counts["events"] == 5
    recover(runtime)
    assert collection.left == 0
    verdict = story.judge()
    assert verdict.clean and not verdict.repeats, verdict


# An entry of which every process dies, and an acknowledgement before the write


@pytest.mark.slow
@pytest.mark.namespace("test", **SECTIONS)
def test_an_entry_that_kills_its_workers_leaves_its_neighbours_saved_and_ends_as_a_dead_letter(
    runtime: Runtime,
) -> None:
    deaths, saved_after, verdict = die_until_it_is_given_up(runtime)
    assert verdict.clean, verdict
    # The first time alone as a whole, the second time item by item.
    assert (saved_after, deaths) == (UNANSWERED + 2, UNANSWERED + 2)
    assert runtime.replica.estimate() == NEIGHBOURS
    (dead_letter,) = runtime.dead_letters.of_entry(key(DEADLY))
    assert dead_letter["reason"] == "KILLED" and dead_letter["status"] == "open"
    names = runtime.names
    assert runtime.queue(names.dead_letter_queue(names.replication_queue)).depth().total == 1
    assert runtime.leases.rows(f"MARK#{names.replication_queue}") == []


@pytest.mark.slow
@pytest.mark.namespace("test", **SECTIONS)
def test_a_drain_that_acknowledges_before_the_write_loses_entries(runtime: Runtime) -> None:
    fault = Fault("save.after_write", variant="acknowledges first")
    verdict = crash_and_recover(runtime, fault)
    assert verdict.lost and not verdict.doubled
