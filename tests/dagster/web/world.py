"""Dagster with a job, a partitioned asset, a sensor and a schedule, and clients as they come from a browser."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from pymongo.errors import AutoReconnect
from starlette.testclient import TestClient

from regworkers_core.adapters.mongo.activity import OperatorActions
from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.runtime import Runtime
from regworkers_core.settings.operations import WebSettings
from regworkers_dagster.web.serve import Stores, application
from tests.adapters.fakes import dependency
from tests.simulation.gate import OpenGate
from tests.simulation.servers.mongo import Mongo

LOCATION = """
import dagster as dg


@dg.op(config_schema={"seats": dg.Field(int, default_value=1)})
def nothing(): ...


@dg.job
def draw():
    nothing()


@dg.op(config_schema={"confirm": dg.Field(str, default_value="")})
def publish(): ...


@dg.job
def confirm_draw():
    publish()


defaults = {"reason": "two\\nconfirm: lines", "confirm": "", "another": "", "capacities": {"a": 1}}
fields = {name: dg.Field(type(value), default_value=value) for name, value in defaults.items()}


@dg.job(config=dg.ConfigMapping(lambda _: {}, fields), tags={"dagster-k8s/config": "{}", "shown": "yes"})
def top_up():
    publish()


corrections = {"campaign_id": str, "name": str, "apply": dg.Field(bool, default_value=False)}


@dg.job(config=dg.ConfigMapping(lambda _: {}, corrections))
def amend_campaign():
    nothing()


@dg.asset(partitions_def=dg.DynamicPartitionsDefinition(name="campaigns"))
def winners(): ...


@dg.asset
def entries(): ...


announce = dg.define_asset_job("announce", [winners])
save_entries = dg.define_asset_job("save_entries", [entries])


@dg.sensor(job=draw, default_status=dg.DefaultSensorStatus.RUNNING)
def watch(): ...


@dg.schedule(job=draw, cron_schedule="0 3 * * *")
def nightly(): ...


jobs = [draw, confirm_draw, top_up, amend_campaign, announce, save_entries]
defs = dg.Definitions(assets=[winners, entries], jobs=jobs, sensors=[watch], schedules=[nightly])
"""
# Runs wait in the queue, which no daemon empties here.
HOME = "run_coordinator: {module: dagster._core.run_coordinator, class: QueuedRunCoordinator}\n"
REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "location.py"}
SELECTOR = {**REPOSITORY, "jobName": "draw"}
# What the upload form says of a file.
FILE = {"content-type": "application/octet-stream"}
# As the UI sends it, and as it fits into an address.
LAUNCH = """mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""
LAUNCH_INLINE = """mutation { launchPipelineExecution(executionParams: {selector: {repositoryName: "__repository__",
  repositoryLocationName: "location.py", jobName: "draw"}}) { __typename } }"""


@contextmanager
def dagster_context(code: str = LOCATION, home: str = HOME) -> Iterator[WorkspaceProcessContext]:
    """A workspace with the location above, or another, on an instance of its own with the dagster.yaml `home`."""
    with tempfile.TemporaryDirectory() as folder:
        location = Path(folder) / "location.py"
        location.write_text(code)
        (Path(folder) / "dagster.yaml").write_text(home)
        with (
            dg.DagsterInstance.from_config(folder) as instance,
            WorkspaceProcessContext(
                instance,
                # In this process: a code server takes seconds to start.
                InProcessWorkspaceLoadTarget(
                    InProcessCodeLocationOrigin(
                        LoadableTargetOrigin(
                            executable_path=sys.executable,
                            python_file=str(location),
                            working_directory=folder,
                        ),
                        location_name="location.py",
                    )
                ),
            ) as context,
        ):
            yield context


class Unavailable(OpenGate):
    """While it is `down`, MongoDB does not answer."""

    down = False

    def before(self, server: str, operation: str, request: Any) -> None:
        if self.down:
            raise AutoReconnect("no answer")


class Actions(OperatorActions):
    """The audit log on a MongoDB of its own."""

    def __init__(self) -> None:
        self.gate = Unavailable()
        collection = Mongo().client(self.gate)["audit"]["operator_actions"]
        super().__init__(collection, dependency("mongo", classify_mongo), clock=time.time)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """In the order in which they began, without ids and times."""
        names = ("what", "target", "arguments", "who", "outcome", "result")
        return [{name: row[name] for name in names} for row in self._collection.find()]


class Site:
    """The application on `context`, and those who ask it."""

    def __init__(
        self,
        context: WorkspaceProcessContext,
        *,
        runtime: Runtime | None = None,
        prefix: str = "",
        operations: Mapping[str, Any] | None = None,
        **web: Any,
    ) -> None:
        self.context, self.instance, self.actions = context, context.instance, Actions()
        given = runtime or cast(Runtime, SimpleNamespace(operator_actions=self.actions))
        self.app = application(
            context,
            WebSettings(**web),
            read_only=context.create_request_context().read_only,
            prefix=prefix,
            stores=Stores(lambda: given, lambda: given),
            operations=operations or {},
        )
        self.prefix = prefix

    def client(
        self, base: str = "http://localhost:3000", *, address: str = "127.0.0.1", **headers: str
    ) -> TestClient:
        """A client at `address`; header names with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return TestClient(self.app, base_url=base, client=(address, 50_000), headers=named)

    def ask(self, query: str, variables: Mapping[str, Any] | None = None, **headers: str) -> dict[str, Any]:
        """The answer to a program, or to the UI's own page if `headers` say so."""
        answer = self.client(**headers).post(
            f"{self.prefix}/graphql", json={"query": query, "variables": dict(variables or {})}
        )
        document: dict[str, Any] = answer.json()
        return document

    def launch(self, *, tags: Mapping[str, str] | None = None, **headers: str) -> dg.DagsterRun:
        """A run of the job, as the launchpad asks for it."""
        sent = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        params = {"selector": SELECTOR, "executionMetadata": {"tags": sent}}
        found = self.ask(LAUNCH, {"params": params}, **headers)
        return self.run_of(found["data"]["launchRun"])

    def run_of(self, launched: Mapping[str, Any]) -> dg.DagsterRun:
        """The run of an answer that says that one was launched."""
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run = self.instance.get_run_by_id(launched["run"]["runId"])
        assert run is not None
        return run
