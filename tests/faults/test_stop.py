"""SIGTERM of a drain in the terminal while there is work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from regworkers_core.domain.messages import MessageType, Op, ReplicationItem, encode
from regworkers_core.engine.queue import Outgoing
from regworkers_core.replication.enqueue.shard_rows import partition, split_rows
from regworkers_core.runtime import Runtime
from tests.faults.crash import recover
from tests.faults.story import Story
from tests.support.drains import run
from tests.support.environment import environment_of
from tests.support.waiting import wait_until

ENTRIES = 150


def terminal(runtime: Runtime, name: str) -> subprocess.Popen[str]:
    """`regworkers drain <name>` in a process of its own, slow enough to be met at work."""
    environment = {
        **os.environ,
        **environment_of(runtime),
        "REGWORKERS_SAVE__BATCH_MESSAGES": "1",
        "REGWORKERS_SAVE__CONCURRENCY": "2",
        "REGWORKERS_ENQUEUE__BATCH_RECORDS": "1",
        "REGWORKERS_ENQUEUE__CONCURRENCY": "2",
    }
    command = [str(Path(sys.executable).parent / "regworkers"), "drain", name, "--format", "json"]
    return subprocess.Popen(
        [*command, "--idle-seconds", "60", "--max-seconds", "60"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def story(runtime: Runtime) -> Story:
    made = Story(runtime)
    for number in range(ENTRIES):
        made.put(f"e{number}")
    return made


def stopped(runtime: Runtime, drain: str, at_work: Callable[[], bool]) -> dict[str, Any]:
    """What a drain reports that gets a signal once it is at work."""
    with terminal(runtime, drain) as process:
        wait_until(at_work, what="the drain at work")
        process.send_signal(signal.SIGTERM)
        answer, complaints = process.communicate(timeout=30)
    assert process.returncode == 0, complaints
    report: dict[str, Any] = orjson.loads(answer)
    assert report["ended"] == "stopped" and report["addsUp"] is True
    return report


def test_a_save_drain_acknowledges_what_is_in_flight_and_leaves_the_rest(
    runtime: Runtime, story: Story
) -> None:
    queue = runtime.queue(runtime.names.replication_queue)
    # One message an entry, so that the drain is long at it.
    items = [ReplicationItem(key, Op.UPSERT).as_json() for key in story.live]
    assert queue.send([Outgoing(encode(MessageType.REPLICATE, "c", [item])) for item in items]) == []
    report = stopped(runtime, "save", lambda: runtime.replica.estimate() > 5)
    done = report["deliveries"]["acknowledged"]
    assert 5 < done < ENTRIES and report["items"]["applied"] == done
    depth = queue.depth()
    assert (depth.total, depth.in_flight) == (ENTRIES - done, 0)
    assert run(runtime, "save").counts["applied"] == ENTRIES - done
    verdict = story.judge()
    assert verdict.clean and not verdict.repeats, verdict


def test_an_enqueue_drain_checkpoints_and_releases_its_leases(runtime: Runtime, story: Story) -> None:
    queue = runtime.queue(runtime.names.replication_queue)
    report = stopped(runtime, "enqueue", lambda: queue.depth().total > 5)
    sent = report["items"]["sent"]
    assert 5 < sent < ENTRIES and queue.depth().total == sent
    rows, consumers = split_rows(runtime.leases.rows(partition(runtime.names.demand_table)))
    assert [row.owner for row in rows.values()] == [""] and consumers == []
    # The next one goes on exactly where this one stopped.
    assert run(runtime, "enqueue").counts["sent"] == ENTRIES - sent
    recover(runtime)
    verdict = story.judge()
    assert verdict.clean and not verdict.repeats, verdict
