"""A drain run that is terminated loses nothing and ends soon; one that is killed is detected."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import orjson
import pytest
import yaml

from regworkers_core.drains.heartbeat import beats
from regworkers_core.replication.enqueue import shard_rows
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_dagster import replication
from tests.dagster.support import Daemon, use
from tests.support.drains import run
from tests.support.entries import document, key, put
from tests.support.environment import environment_of
from tests.support.postgres import postgres
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

# Longer than the test may take: only the signal can end the drain.
_RESIDENT = {"idle_seconds": 300.0, "max_seconds": 600.0}
# A process of Dagster starts in some seconds, on a machine that is busy in many.
_SECONDS = 90.0


@contextmanager
def _job(
    runtime: Runtime, name: str, op: str, home: Path, **storage: object
) -> Iterator[subprocess.Popen[bytes]]:
    """`dagster job execute` in a process of its own."""
    (home / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}, **storage}))
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
        wait_until(lambda: queue.depth().visible == 1, seconds=_SECONDS, what="the first key")
        put(runtime, key("e2"))
        process.send_signal(number)
        assert process.wait(timeout=_SECONDS) == 0, (tmp_path / "output").read_text()

    leases, consumers = shard_rows.split_rows(
        runtime.leases.rows(shard_rows.partition(runtime.names.demand_table))
    )
    assert not consumers, "it left"
    assert all(not row.owner for row in leases.values())
    assert all(shard_rows.checkpoint_of(row.state) for row in leases.values())
    assert "ended (stopped)" in (tmp_path / "output").read_text()


def test_a_save_run_finishes_what_is_in_flight_and_acknowledges_it(runtime: Runtime, tmp_path: Path) -> None:
    put(runtime, key("e1"))
    run(runtime, "enqueue")
    with _job(runtime, "save_entries", "save", tmp_path) as process:
        wait_until(lambda: document(runtime, key("e1")), seconds=_SECONDS, what="the first entry")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=_SECONDS) == 0, (tmp_path / "output").read_text()

    assert runtime.queue(runtime.names.replication_queue).depth().total == 0
    assert "ended (stopped)" in (tmp_path / "output").read_text()


def test_a_run_goes_on_over_a_restart_of_dagsters_postgresql(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed = yaml.safe_load((PROJECT_ROOT / "deploy" / "dagster.yaml").read_text(encoding="utf-8"))

    def saved(name: str) -> None:
        put(runtime, key(name))
        run(runtime, "enqueue")
        wait_until(lambda: document(runtime, key(name)), seconds=_SECONDS, what=f"the entry {name}")

    with postgres() as database:
        monkeypatch.setenv("DAGSTER_PG_URL", database.url)
        with _job(runtime, "save_entries", "save", tmp_path, storage=deployed["storage"]) as process:
            saved("before")
            database.stop()
            saved("meanwhile")
            process.send_signal(signal.SIGTERM)
            output = tmp_path / "output"
            refused = "Retrying failed database connection"
            wait_until(lambda: refused in output.read_text(), seconds=_SECONDS, what="an event of its end")
            database.start()
            assert process.wait(timeout=_SECONDS) == 0, output.read_text()
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            (made,) = instance.get_runs()
            of_type = dg.DagsterEventType.ASSET_MATERIALIZATION
            (written,) = instance.get_records_for_run(made.run_id, of_type=of_type).records
    assert made.status is dg.DagsterRunStatus.SUCCESS
    materialization = written.event_log_entry.asset_materialization
    assert materialization is not None and materialization.metadata["received"].value == 2


def test_a_killed_run_that_no_launcher_watches_is_reported_and_its_stream_looked_at_again(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _job(runtime, "enqueue_entries", "enqueue", tmp_path) as process:
        (beat,) = wait_until(
            lambda: beats(runtime.leases, "enqueue"), seconds=_SECONDS, what="a sign of life"
        )
        process.kill()
    use(monkeypatch, runtime)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = instance.get_run_by_id(beat.run_id)
        assert run is not None and run.status is dg.DagsterRunStatus.STARTED, "nothing else marks it"
        daemon = Daemon(monkeypatch, instance, runtime.clock())
        answers = [daemon.tick(replication.enqueue_tick) for _ in range(30)]
        run = instance.get_run_by_id(beat.run_id)
        assert run is not None and run.status is dg.DagsterRunStatus.FAILURE
    assert "1 drain active" in str(answers[0].skip_message)
    assert "nothing is unread" in str(answers[-1].skip_message)
    assert all(isinstance(answer, dg.SkipReason) for answer in answers), "no drain for nothing"


def test_a_killed_drain_of_the_terminal_is_not_waited_for(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = subprocess.Popen(
        [Path(sys.executable).with_name("regworkers"), "drain", "save", "--idle-seconds", "300"],
        env={**os.environ, **environment_of(runtime)},
        cwd=PROJECT_ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: beats(runtime.leases, "save"), seconds=_SECONDS, what="a sign of life")
    finally:
        process.kill()
        process.wait()
    use(monkeypatch, runtime)
    put(runtime, key("e1"))
    run(runtime, "enqueue")
    with dg.DagsterInstance.ephemeral() as instance:
        daemon = Daemon(monkeypatch, instance, runtime.clock())
        answers = [daemon.tick(replication.save_tick) for _ in range(30)]
    assert "1 drain active" in str(answers[0].skip_message)
    assert isinstance(answers[10], dg.SensorResult), "another one is started"
    assert beats(runtime.leases, "save") == []
