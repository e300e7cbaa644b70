"""A sixth drain is one spec and its handler: all that lists, watches or explains drains finds it by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import orjson
import pytest

from regworkers_core.flows import DRAINS
from regworkers_core.settings import PROJECT_ROOT
from tests.support.runtimes import test_settings

# As if `analytics/publishing.py` declared it. What knows drains is imported afterwards.
_SIXTH = """
from types import SimpleNamespace
from typing import Any
import orjson
from regworkers_core.analytics import publishing
from regworkers_core.domain.messages import MAX_ITEMS, MessageType
from regworkers_core.drains.runner import DrainSpec, queue_parts

class Refunds:
    type = MessageType.NOTIFY
    def parse(self, raw, kind): return raw
    def handle(self, batch): raise NotImplementedError

def parts(runtime, run_id, _stop, on_step):
    return queue_parts(runtime, REFUNDS, Refunds(), run_id=run_id, on_step=on_step)

REFUNDS = DrainSpec(
    name="refunds", worker="payRefunds", summary="Pay what the refund queue asks for.", job="pay_refunds",
    duty="selection", needs=("sqs", "mongo"), outcomes=("received",), parts=parts, queue="notification-queue",
    keep="selection.visibilitySeconds", most_items=lambda _: MAX_ITEMS, most_drains=3, residents=True,
)
publishing.DRAINS = (*publishing.DRAINS, REFUNDS)
"""
_FOUND = """
from dataclasses import replace
from regworkers_core import flows
from regworkers_core.cli.workers import drain_app
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.infrastructure.alarms import alarms
from regworkers_core.infrastructure.board import board
from regworkers_core.operations.alerts.conditions import drains, work
from regworkers_core.operations.alerts.conditions.condition import Context
from regworkers_core.operations.alerts.conditions import TABLE
from regworkers_core.operations.health import snapshot
from regworkers_core.operations.runbooks import time_outs
from regworkers_dagster.definitions import defs
from regworkers_dagster.definitions import duty_of
from tests.operations.alerts.world import SETTINGS, WELL, queue
from tools.residents import manifests

deep = replace(WELL, queues=(queue("notification-queue", 30_000),))
context = Context(deep, SETTINGS, still_seconds={"drain:refunds": 301.0})
slow = DrainWindow("refunds", batches=1, batch_p95s=[55.0], batch_limit_seconds=60.0)
log = SimpleNamespace(between=lambda *_: [], last=lambda _: None)
runtime = SimpleNamespace(
    clock=lambda: 0.0, drain_log=log,
    settings=SETTINGS.model_copy(update={"drain": SETTINGS.drain.model_copy(update={"resident": "always"})}),
)
found = {
    "alarms": [each.name for each in alarms(SETTINGS) if "refunds" in each.name],
    "board": "refunds" in str(board(SETTINGS)),
    "standstill": [each.summary for each in drains.not_worked_off.assess(context).findings],
    "because": [each.because for each in work.queue_depth.assess(context).findings],
    "page": next(each.fires for each in TABLE if each.name == "drain-stalled"),
    "health": [(each.name, each.wanted) for each in snapshot.read_drains(runtime)],
    "advice": [each.advice for each in time_outs.assess({}, {"refunds": slow}, SETTINGS, 30.0).remarks],
    "manifests": [text.count("regworkers-refunds") for text in manifests(SETTINGS).values()],
    "commands": [each.name for each in drain_app.registered_commands],
    "job": defs.resolve_job_def("pay_refunds").description,
    "sensor": defs.resolve_sensor_def("pay_refunds_sensor").job.name,
    "asset": defs.resolve_assets_def("refunds").op.name,
    "duty": duty_of("pay_refunds"),
    "counted": flows.RUN_JOBS,
}
print(orjson.dumps(found).decode())
"""


@pytest.fixture(scope="module")
def found() -> Any:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    made = subprocess.run(
        [sys.executable, "-c", _SIXTH + _FOUND],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr.decode()
    return orjson.loads(made.stdout)


def test_a_sixth_drain_is_watched(found: Any) -> None:
    assert [name.rpartition("refunds-")[2] for name in found["alarms"]] == [
        "fails",
        "without-a-dependency",
        "dead-letters-not-sent",
        "throttled",
        "retries",
        "run-failed",
    ]
    assert found["board"]
    (standstill,) = found["standstill"]
    assert standstill.startswith("the drain refunds has acknowledged nothing for 5 min: 30,000 messages wait")
    (because,) = found["because"]
    assert {"dependency-down:sqs", "mongo-away:mongo", "drain-fuse:refunds"} <= set(because)
    assert "`publish` and `refunds` for `drainStalledSelectionSeconds`" in found["page"]
    assert ["refunds", True] in found["health"]
    assert "pay_refunds" in found["counted"]


def test_a_sixth_drain_is_explained_by_its_runbook(found: Any) -> None:
    assert found["advice"] == ["raise selection.visibilitySeconds, or make its batches smaller"]


def test_a_sixth_drain_runs_in_the_terminal_in_dagster_and_as_a_deployment(found: Any) -> None:
    assert "refunds" in found["commands"]
    assert found["job"] == "Drain: Pay what the refund queue asks for."
    assert (found["sensor"], found["asset"], found["duty"]) == ("pay_refunds", "refunds", "selection")
    assert all(number >= 2 for number in found["manifests"])


@pytest.mark.parametrize("spec", DRAINS, ids=lambda spec: spec.name)
def test_every_setting_that_a_spec_names_exists(spec: Any) -> None:
    settings = test_settings("test-")
    named = [
        each for each in (spec.keep, spec.stalled, spec.most_drains, spec.messages_each) if "." in str(each)
    ]
    assert all(settings.at(each) > 0 for each in named)
    assert spec.most_items(settings) > 0
    assert not spec.runbook or (PROJECT_ROOT / "docs" / "runbooks" / spec.runbook).is_file()
