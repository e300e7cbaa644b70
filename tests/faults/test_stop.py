"""SIGTERM of a drain in the terminal while there is work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from regworkers_core.domain.messages import MessageType, Op, ReplicationItem, encode
from regworkers_core.engine.queue import Outgoing
from regworkers_core.replication.enqueue.shard_rows import partition, split_rows
from regworkers_core.runtime import Runtime
from tests.faults.crash import recover
from tests.faults.story import Story
from tests.support.drains import run
from tests.support.runtimes import ADDRESSES
from tests.support.waiting import wait_until

ENTRIES = 150


def terminal(runtime: Runtime, name: str) -> subprocess.Popen[str]:
    """`regworkers drain <name>` in a process of its own, slow enough to be met at work."""
    prefix = "REGWORKERS_"
    environment = {
        **{variable: value for variable, value in os.environ.items() if not variable.startswith(prefix)},
        f"{prefix}RESOURCE_PREFIX": runtime.names.prefix,
        f"{prefix}INSTANCE": "none",
        f"{prefix}AWS__ENDPOINT_URL": os.environ[ADDRESSES["aws"]],
        f"{prefix}AWS__ACCESS_KEY_ID": "test",
        f"{prefix}AWS__SECRET_ACCESS_KEY": "test",
        f"{prefix}MONGO__URI": os.environ[ADDRESSES["mongo"]],
        f"{prefix}OBSERVABILITY__CLOUDWATCH_ENABLED": "false",
        f"{prefix}SAVE__BATCH_MESSAGES": "1",
        f"{prefix}SAVE__CONCURRENCY": "2",
        f"{prefix}ENQUEUE__BATCH_RECORDS": "1",
        f"{prefix}ENQUEUE__CONCURRENCY": "2",
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


def test_a_save_drain_acknowledges_what_is_in_flight_and_leaves_the_rest(
    runtime: Runtime, story: Story
) -> None:
    queue = runtime.queue(runtime.names.replication_queue)
    # One message an entry, so that the drain is long at it.
    items = [ReplicationItem(key, Op.UPSERT).as_json() for key in story.live]
    assert queue.send([Outgoing(encode(MessageType.REPLICATE, "c", [item])) for item in items]) == []
    with terminal(runtime, "save") as process:
        wait_until(lambda: runtime.replica.count() > 5, what="the drain at work")
        process.send_signal(signal.SIGTERM)
        answer, complaints = process.communicate(timeout=30)
    assert process.returncode == 0, complaints
    report = orjson.loads(answer)
    assert report["ended"] == "stopped" and report["addsUp"] is True
    done = report["deliveries"]["acknowledged"]
    assert 5 < done < ENTRIES and report["items"]["applied"] == done
    depth = queue.depth()
    assert (depth.total, depth.in_flight) == (ENTRIES - done, 0)
    assert run(runtime, "save").counts["applied"] == ENTRIES - done
    verdict = story.judge()
    assert verdict.clean and not verdict.repeats, verdict


def test_an_enqueue_drain_checkpoints_and_releases_its_leases(runtime: Runtime, story: Story) -> None:
    queue = runtime.queue(runtime.names.replication_queue)
    with terminal(runtime, "enqueue") as process:
        wait_until(lambda: queue.depth().total > 5, what="the drain at work")
        process.send_signal(signal.SIGTERM)
        answer, complaints = process.communicate(timeout=30)
    assert process.returncode == 0, complaints
    report = orjson.loads(answer)
    assert report["ended"] == "stopped" and report["addsUp"] is True
    sent = report["items"]["sent"]
    assert 5 < sent < ENTRIES and queue.depth().total == sent
    rows, consumers = split_rows(runtime.leases.rows(partition(runtime.names.demand_table)))
    assert [row.owner for row in rows.values()] == [""] and consumers == []
    # The next one goes on exactly where this one stopped.
    assert run(runtime, "enqueue").counts["sent"] == ENTRIES - sent
    recover(runtime)
    verdict = story.judge()
    assert verdict.clean and not verdict.repeats, verdict
