"""What a run of a duty calls on AWS, in whatever thread, its role allows: the guards of the suite fail these tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from regworkers_core.infrastructure.policies.platform import ROLES
from regworkers_core.runtime import Runtime
from regworkers_dagster import resources
from regworkers_dagster.definitions import defs
from regworkers_dagster.operations.health import alerts_tick
from regworkers_local.services import TOKEN
from tests.dagster.support import job, use
from tests.infrastructure.deploy.policies import Call
from tests.support import least_privilege
from tests.support.least_privilege import DUTIES, Made
from tests.support.services import NAMES, served_to

CHANGES = {"apply": True}


@pytest.fixture(scope="module")
def shared(shared: Runtime) -> Iterator[Runtime]:
    """With the four services, whose tokens are in the secret store."""
    with served_to(shared) as served:
        for name in NAMES:
            shared.secrets.create(f"service-token/{name}", TOKEN, description="test")
        yield served.runtime


@pytest.fixture(autouse=True)
def _new_process(shared: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, shared)
    for name in NAMES:
        address = getattr(shared.settings.services, name).base_url
        settings = {"base_url": address, "token_secret": f"service-token/{name}"}
        monkeypatch.setenv(f"REGWORKERS_SERVICES__{name.upper()}", json.dumps(settings))
    # A runtime of before has read the tokens.
    monkeypatch.setattr(resources, "_RUNTIMES", resources._Runtimes())


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("doctor", None),
        ("runbook_time_outs", None),
        ("runbook_campaign_configuration", None),
        ("runbook_kafka", None),
        ("runbook_total_failure", None),
        ("runbook_total_failure", CHANGES),
    ],
)
def test_a_run_that_asks_all_there_is_keeps_within_its_role(
    instance: dg.DagsterInstance, name: str, config: Any
) -> None:
    job(name).execute_in_process(instance=instance, run_config=config, raise_on_error=False)


def test_alerts_may_ask_the_services(instance: dg.DagsterInstance) -> None:
    with least_privilege.acting_as("sensors"):
        alerts_tick(dg.build_sensor_context(instance=instance, sensor_name="alerts"))


def test_a_job_that_needs_kafka_may_read_its_certificate() -> None:
    users = {
        each.name for each in defs.resolve_all_job_defs() if "kafka" in each.required_resource_keys
    } & DUTIES.keys()
    assert {"publish_events", "archive_events", "runbook_kafka", "runbook_total_failure"} <= users
    assert {name for name in users if "kafka-certificate" not in ROLES[DUTIES[name]]} == set()


@pytest.mark.parametrize("name", ["doctor", "runbook_kafka", "runbook_total_failure"])
def test_a_job_that_reads_how_long_topics_keep_events_may_do_so_at_msk(name: str) -> None:
    workers = [each for each in least_privilege.WORKERS if each.name in ROLES[DUTIES[name]]]
    statements = [statement for each in workers for statement in each.statements]
    actions = {action for statement in statements for action in statement.actions}
    assert "kafka-cluster:DescribeTopicDynamicConfiguration" in actions
    assert "kafka-cluster:ReadData" in actions


def test_the_guard_knows_the_role_in_a_thread_that_a_job_starts_and_not_after_its_end() -> None:
    found: list[str] = []
    goes_on = threading.Event()

    def note() -> None:
        found.append(least_privilege.role_of_the_job())
        goes_on.wait(10)
        found.append(least_privilege.role_of_the_job())

    with least_privilege.acting_as("analytics"):
        thread = threading.Thread(target=note)
        thread.start()
        while not found:
            thread.join(0.01)
    goes_on.set()
    thread.join()
    assert found == ["analytics", ""]
    queue = "arn:aws:sqs:REGION:ACCOUNT:any-selection-queue"
    assert not least_privilege.GUARD.allowed(Made("", Call("sqs:SendMessage", queue), "analytics"))
