"""`regworkers doctor`, as it is typed."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import orjson
import pytest

from regworkers_core.adapters.mongo.activity import ReconcileSummary
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.health.rows import SECTIONS
from regworkers_core.runtime import Runtime
from tests.dagster.support import job, plain, use
from tests.support.children import run_child
from tests.support.drains import replicate_all
from tests.support.entries import key, put
from tests.support.environment import environment_of
from tests.support.runtimes import test_settings
from tests.support.shared import purge
from tests.support.terminal import regworkers

pytestmark = pytest.mark.namespace("module")

# The command promises five, whatever is down, but not on a machine that runs other tests beside it: here it is killed
# after the time that a driver waits for an unavailable server by itself.
FAR_TOO_LONG_SECONDS = 25.0
CLOSED = {
    "aws": "http://127.0.0.1:1",
    "mongo": "mongodb://127.0.0.1:1",
    "redis": "redis://127.0.0.1:1",
    "kafka": "127.0.0.1:1",
}


@pytest.fixture
def world(runtime: Runtime) -> Runtime:
    purge(runtime, runtime.names.dead_letter_queue(runtime.names.replication_queue))
    return runtime


@pytest.mark.parametrize("form", ["text", "json"])
def test_without_any_server_it_answers_in_time_and_says_that_the_stack_is_down(form: str) -> None:
    runtime = Runtime(test_settings("t-", CLOSED, dagster={"url": "http://127.0.0.1:1"}))
    done = run_child(
        "regworkers_core.cli.main:main",
        "doctor",
        "--format",
        form,
        program="regworkers",
        environment={**environment_of(runtime), "COLUMNS": "110"},
        seconds=FAR_TOO_LONG_SECONDS,
    )
    assert done.returncode == 1
    if form == "json":
        document = orjson.loads(done.stdout)
        states = {row["name"]: row["state"] for row in document["dependencies"]}
        for name in ("dynamodb", "streams", "sqs", "mongo", "redis", "kafka", "s3"):
            assert states[name] == "unread"
        return
    assert "the embedded stack is down\n     regworkers local up" in done.stdout
    assert len(done.stdout.splitlines()) <= 45
    assert "empty" not in done.stdout and "never compared" not in done.stdout


def test_without_a_stack_it_says_what_to_do(tmp_path: Path) -> None:
    answer = regworkers(None, "doctor", REGWORKERS_LOCAL_DIR=str(tmp_path), REGWORKERS_INSTANCE="b")
    assert (answer.code, answer.stdout) == (2, "")
    assert answer.stderr.strip() == "regworkers: the embedded stack b is not up: run `regworkers local up`"


def test_a_system_that_is_well_and_then_one_with_a_dead_letter(world: Runtime) -> None:
    put(world, key("e1"))
    replicate_all(world)
    world.reconcile_results.put(ReconcileSummary(iso(world.clock()), 1, {}, False, 1.0))
    well = regworkers(world, "doctor", "--format", "json")
    assert well.code == 0, well.stdout
    assert well.document["fine"] is True and well.document["findings"] == []
    assert all(well.document[section] for section in set(SECTIONS) - {"campaigns"})
    put(world, key("bad"), email=None)
    replicate_all(world)
    answer = regworkers(world, "doctor", COLUMNS="110")
    assert answer.code == 1 and "regworkers dlq groups replication-queue" in answer.stdout
    assert "example.com" not in answer.stdout + answer.stderr and "Zo" not in answer.stdout


def test_the_job_tells_the_same_as_a_table_and_by_its_outcome(
    world: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, world)
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        well = job("doctor").execute_in_process(instance=instance)
        put(world, key("bad"), email=None)
        replicate_all(world)
        ill = job("doctor").execute_in_process(instance=instance, raise_on_error=False)
    assert well.success and not ill.success
    (seen,) = well.asset_materializations_for_node("examine_system")
    assert plain(seen.metadata)["findings"] == 0
    (seen,) = ill.asset_materializations_for_node("examine_system")
    facts = plain(seen.metadata)
    assert facts["findings"] == facts["critical"] == 1 and facts["waiting_replication_queue_dlq"] == 1
    assert "regworkers dlq groups replication-queue" in facts["system"]
    (check,) = ill.get_asset_check_evaluations()
    assert not check.passed and check.description == "critical: 1 dead letters on replication-queue-dlq"
