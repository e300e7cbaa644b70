"""The enqueue half on real DynamoDB Streams and SQS."""

from __future__ import annotations

import time
from typing import Any

from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.replication.enqueue.stream_probe import has_unread, stream_lag
from regworkers_core.replication.enqueue.stream_source import StreamSource
from regworkers_core.runtime import Runtime
from regworkers_core.settings import EnqueueSettings, StreamSettings
from tests.replication.enqueue.lease_contract import check_lease_table
from tests.support.drains import run, taken
from tests.support.entries import item, key, put, remove, set_flag
from tests.support.waiting import wait_until


def queued(runtime: Runtime) -> list[dict[str, Any]]:
    return taken(runtime, runtime.names.replication_queue)


def consumer(runtime: Runtime, owner: str, lease_seconds: float = 1.0) -> StreamSource:
    limits, pace = EnqueueSettings(lease_seconds=lease_seconds), StreamSettings(reads_per_second=50)
    return StreamSource(runtime.streams, runtime.leases, limits, pace, owner=owner)


def test_the_lease_table_keeps_the_contract(runtime: Runtime) -> None:
    check_lease_table(runtime.leases)


def test_changes_that_count_are_queued_once_and_the_checkpoint_moves_past_all(runtime: Runtime) -> None:
    for number in range(120):
        put(runtime, key(f"e{number}"))
    put(runtime, key("e0"), version=2)
    put(runtime, key("quiet"), needsReplication=False)
    remove(runtime, key("e1"))
    invite = {**item(key("x")), "SK": "INVITE#email#x", "entityType": "INVITE"}
    runtime.dynamodb.put_item(TableName=runtime.names.demand_table, Item=attributes(invite))
    assert has_unread(runtime.streams, runtime.leases)

    counts = run(runtime, "enqueue").counts
    assert (counts["received"], counts["sent"], counts["coalesced"], counts["filtered"]) == (124, 120, 2, 2)
    found = {entry["sk"]: entry for entry in queued(runtime)}
    assert len(found) == 120
    assert (found["ENTRY#e0"]["version"], found["ENTRY#e1"]["op"]) == (2, "remove")

    assert not has_unread(runtime.streams, runtime.leases)
    assert stream_lag(runtime.streams, runtime.leases, now=time.time()) == 0.0
    assert run(runtime, "enqueue").counts["received"] == 0


def test_clearing_the_flag_causes_no_second_message(runtime: Runtime) -> None:
    put(runtime, key("e1"))
    run(runtime, "enqueue")
    set_flag(runtime, key("e1"), to=False)
    counts = run(runtime, "enqueue").counts
    assert (counts["received"], counts["filtered"], counts["sent"]) == (1, 1, 0)
    assert len(queued(runtime)) == 1


def test_what_a_dead_consumer_had_in_hand_is_queued_by_its_successor(runtime: Runtime) -> None:
    dead = consumer(runtime, "dead")
    wait_until(lambda: dead.receive() == [] and dead.may_idle(), what="holding the shard")
    for number in range(5):
        put(runtime, key(f"e{number}"))
    in_hand = wait_until(dead.receive, what="the records")
    counts = run(runtime, "enqueue").counts
    assert counts["sent"] == 5
    # It comes back from a long pause: its acknowledgements change nothing any more.
    dead.acknowledge(in_hand)
    dead.heartbeat()
    dead.close()
    assert dead.counts()["leases_lost"] == 1
    assert not has_unread(runtime.streams, runtime.leases)
