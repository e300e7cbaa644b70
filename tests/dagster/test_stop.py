"""A drain run that is told to stop: nothing is lost, and it ends soon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from regworkers_core.replication.enqueue import shards
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from tests.support.drains import run
from tests.support.entries import document, key, put
from tests.support.environment import environment_of
from tests.support.waiting import wait_until

# Longer than the test may take: only the signal can end the drain.
_RESIDENT = {"idle_seconds": 60.0, "max_seconds": 120.0}


@contextmanager
def _job(runtime: Runtime, name: str, op: str, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`dagster job execute` in a process of its own."""
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (home / "run.json").write_bytes(orjson.dumps({"ops": {op: {"config": _RESIDENT}}}))
    dagster = str(Path(sys.executable).with_name("dagster"))
    with (home / "output").open("wb") as output:
        process = subprocess.Popen(
            [dagster, "job", "execute", "-m", "regworkers_dagster.definitions", "-j", name, "-c", "run.json"],
            env={
                **os.environ,
                **environment_of(runtime),
                "DAGSTER_HOME": str(home),
                "PYTHONPATH": str(PROJECT_ROOT),
            },
            cwd=home,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_enqueue_run_finishes_what_is_in_flight_checkpoints_and_releases_its_lease(
    runtime: Runtime, tmp_path: Path, number: signal.Signals
) -> None:
    queue = runtime.queue(runtime.names.replication_queue)
    with _job(runtime, "enqueue_entries", "enqueue", tmp_path) as process:
        put(runtime, key("e1"))
        wait_until(lambda: queue.depth().visible == 1, what="the first key on the queue")
        put(runtime, key("e2"))
        process.send_signal(number)
        assert process.wait(timeout=20) == 0, (tmp_path / "output").read_text()

    leases, consumers = shards.split_rows(runtime.leases.rows(shards.partition(runtime.names.demand_table)))
    assert not consumers, "it left"
    assert all(not row.owner for row in leases.values())
    assert all(shards.checkpoint_of(row.state) for row in leases.values())
    assert "ended (stopped)" in (tmp_path / "output").read_text()


def test_a_save_run_finishes_what_is_in_flight_and_acknowledges_it(runtime: Runtime, tmp_path: Path) -> None:
    put(runtime, key("e1"))
    run(runtime, "enqueue")
    with _job(runtime, "save_entries", "save", tmp_path) as process:
        wait_until(lambda: document(runtime, key("e1")), what="the first entry in the replica")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0, (tmp_path / "output").read_text()

    assert runtime.queue(runtime.names.replication_queue).depth().total == 0
    assert "ended (stopped)" in (tmp_path / "output").read_text()
