"""A new stack with its own Dagster: a minute after the start every check has a result, and what is idle is fresh."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from regworkers_core.infrastructure.provision import provision
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.dagster_server import DagsterProcess
from regworkers_local.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_servers")]
# A minute on a quiet machine; the test prints the time.
WITHIN_SECONDS = 300.0
STATE = """{ assetNodes { assetKey { path } freshnessStatusInfo { freshnessStatus } assetChecksOrError {
  ... on AssetChecks { checks { name } } } } }"""


@pytest.fixture
def dagster(monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterProcess]:
    instance = f"test-checks-{os.getpid()}"
    monkeypatch.setenv("REGWORKERS_INSTANCE", instance)
    stack, made = Stack(PROJECT_ROOT, instance), DagsterProcess(PROJECT_ROOT, instance)
    try:
        stack.up()
        for _ in provision(Runtime.load()):
            pass
        with made:
            yield made
    finally:
        stack.reset()


def _asked(dagster: DagsterProcess, query: str) -> dict[str, Any]:
    request = urllib.request.Request(
        dagster.url + "/graphql", orjson.dumps({"query": query}), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = orjson.loads(answer.read())["data"]
    return found


def _assets(dagster: DagsterProcess) -> list[Any]:
    # Between two questions of a wait: an answer takes the UI a tenth of a second.
    threading.Event().wait(1.0)
    nodes: list[Any] = _asked(dagster, STATE)["assetNodes"]
    return nodes


def _checks(dagster: DagsterProcess) -> dict[str, str | None]:
    """The status of the last evaluation of each check; None: not evaluated."""
    checks = {
        check["name"]: node["assetKey"]["path"]
        for node in _assets(dagster)
        for check in node["assetChecksOrError"].get("checks", ())
    }
    each = (
        f"{name}: assetCheckExecutions(assetKey: {{path: {orjson.dumps(path).decode()}}}, "
        f'checkName: "{name}", limit: 1) {{ status }}'
        for name, path in checks.items()
    )
    answer = _asked(dagster, f"{{ {' '.join(each)} }}") if checks else {}
    return {name: next((one["status"] for one in found), None) for name, found in answer.items()}


def test_a_minute_after_a_start_every_check_has_passed_and_queues_entries_and_events_are_fresh(
    dagster: DagsterProcess,
) -> None:
    began = time.monotonic()

    def all_passed() -> bool:
        found = _checks(dagster)
        return len(found) >= 19 and set(found.values()) == {"SUCCEEDED"}

    wait_until(all_passed, seconds=WITHIN_SECONDS)
    print(f"every check has a result after {time.monotonic() - began:.0f} s")

    def fresh() -> bool:
        states = {
            node["assetKey"]["path"][-1]: (node["freshnessStatusInfo"] or {}).get("freshnessStatus")
            for node in _assets(dagster)
        }
        names = ("demand_table", "replication_queue", "replication_dlq", "entries", "analytics_queue")
        names += ("analytics_dlq", "kafka_events", "selection_queue", "notifications", "reconcile_results")
        return {states[name] for name in names} == {"HEALTHY"}

    # The daemon judges every half minute.
    wait_until(fresh, seconds=WITHIN_SECONDS)
