"""What uses a dependency that an evaluation itself does not call, while the matrix plants a fault in it.

Each use begins with the fault, goes on before every look, and says at the end what went wrong besides the incidents:
a line or an alert that was lost, or an operator who was not informed.
"""

from __future__ import annotations

import os
import resource
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import duckdb
import orjson
import uvicorn

from regworkers_core.adapters.aws import cloudwatch
from regworkers_core.adapters.aws.cloudwatch import LogGroupLines
from regworkers_core.adapters.dagster_api import DagsterApi
from regworkers_core.adapters.judged_entries import ReplicationProgress
from regworkers_core.adapters.vault import Vault
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.domain.snapshot import Unread
from regworkers_core.engine.queue import Outgoing
from regworkers_core.observability.tracing import configure_tracing, flush, span
from regworkers_core.operations.dependency_status import read_in_parallel
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.held import InputDiffers
from regworkers_core.selection.draw_run import DrawOptions, DrawRun
from regworkers_local.servers import HOST
from tests.selection.draw.world import CAMPAIGN, close_campaign, everybody
from tests.support.fault_proxy import Fault, fault_proxy
from tests.support.shared import purge
from tests.support.vault import PASSWORD, USER

if TYPE_CHECKING:
    from tests.faults.matrix import World


# A daemon of Dagster beats every 30 s; one that cannot is not awaited for so long here.
_BEAT_SECONDS = 2.0


class Use:
    """Of a dependency that evaluations call themselves. A world has one for each dependency."""

    def __init__(self, world: World) -> None:
        self.world = world

    def begin(self, kind: str) -> None:
        """The fault is planted."""

    def look(self) -> None:
        """A minute of it has passed."""

    def ticks(self) -> bool:
        """Whether Dagster's sensor evaluates. Otherwise the evaluation from outside does it alone."""
        return True

    def end(self) -> Iterator[str]:
        """The fault is over; what was wrong, in words."""
        yield from ()


class Starting(Use):
    """A process that starts meanwhile, and reads a token in Secrets Manager."""

    def begin(self, kind: str) -> None:
        self._slow, self._named = kind == Fault.SLOW, list[str]()

    def look(self) -> None:
        try:
            self._named.append(str(Runtime(self.world.runtime.settings).failure_of("service-entry") or ""))
        except UsageError as refusal:
            self._named.append(str(refusal))

    def end(self) -> Iterator[str]:
        if not all(self._slow or "secret" in each.lower() for each in self._named):
            yield f"who starts does not name what is missing: {self._named}"


class Queued(Use):
    """The platform's mailer leaves its queue alone, however it failed."""

    def begin(self, kind: str) -> None:
        names = self.world.plain.names
        self.world.plain.queue(names.notification_queue).send([Outgoing(b"{}", {}) for _ in range(3)])

    def end(self) -> Iterator[str]:
        self.world.purge()
        yield from ()


class Notified(Use):
    """An incident opens, for every channel."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world)
        self._name = name

    def begin(self, kind: str) -> None:
        names = self.world.plain.names
        self.world.plain.queue(names.dead_letter_queue(names.selection_queue)).send([Outgoing(b"{}", {})])
        self._slow = kind == Fault.SLOW
        self.world.receiver.clear()

    def end(self) -> Iterator[str]:
        both = ["pagerduty", "slack"]
        if (meanwhile := self._notified()) != [each for each in both if self._slow or each != self._name]:
            yield f"meanwhile the incident reached {meanwhile}"
        self.world.look()
        if (afterwards := self._notified()) != both:
            yield f"afterwards the incident had reached {afterwards}"
        self.world.purge()

    def _notified(self) -> list[str]:
        """Each channel as often as it got something."""
        receiver = self.world.receiver
        return ["pagerduty"] * len(receiver.events) + ["slack"] * len(receiver.texts)


class Logged(Use):
    """Lines for the log group of CloudWatch."""

    def begin(self, kind: str) -> None:
        runtime, self._written, self._stream = self.world.runtime, 0, f"matrix/{kind}"
        self._lines = LogGroupLines(lambda: runtime.aws.client("logs"), runtime.names.log_group, self._stream)

    def look(self) -> None:
        self._written += 1
        self._lines(f"look {self._written}")

    def end(self) -> Iterator[str]:
        self._lines.close(seconds=10)
        plain = self.world.plain
        found = plain.aws.client("logs").get_log_events(
            logGroupName=plain.names.log_group, logStreamName=self._stream
        )
        if (arrived := len(found["events"])) != self._written or self._lines.dropped:
            yield f"of {self._written} lines {arrived} arrived, {self._lines.dropped} were dropped"


class Traced(Use):
    """Spans for a collector. The SDK keeps one provider for the life of a process."""

    def begin(self, kind: str) -> None:
        collector = f"http://{HOST}:{self.world.proxies['otlp-collector'].port}"
        # A collector that does not answer is given up soon.
        asked = {"ENDPOINT": collector, "TIMEOUT": "1"}
        names = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in asked.items()}
        with mock.patch.dict(os.environ, names):
            configure_tracing("regworkers", "qa")

    def look(self) -> None:
        with span("look"):
            pass
        flush(2.0)

    def end(self) -> Iterator[str]:
        proxy = self.world.proxies["otlp-collector"]
        sent = "v1", "POST /v1/traces", ""
        before = proxy.seen[sent]
        self.look()
        if proxy.seen[sent] == before:
            yield "no span is sent once the collector is back"


class Issuing(Use):
    """An operator at `regworkers certs generate`."""

    def begin(self, kind: str) -> None:
        self._slow, self._wrong = kind == Fault.SLOW, list[str]()

    def look(self) -> None:
        try:
            self._login()
        except (Failure, UsageError) as failure:
            if self._slow:
                self._wrong.append(f"a slow login fails: {failure}")
        else:
            if not self._slow:
                self._wrong.append("an operator is not informed that Vault fails")

    def end(self) -> Iterator[str]:
        yield from self._wrong
        self._login()

    def _login(self) -> None:
        runtime = self.world.runtime
        vault = Vault(runtime.settings.vault, runtime.dependency("vault"))
        vault.login_user(USER, PASSWORD)
        vault.close()


class Drawing(Use):
    """A run of the job `draw`, up to the step that asks the beacon; after the fault the next one."""

    def begin(self, kind: str) -> None:
        close_campaign(self.world.plain)
        self._run()

    def end(self) -> Iterator[str]:
        self._run()
        if self.world.failed_draw:
            yield "the next run fails, too"
        plain = self.world.plain
        for name in ("campaigns", "entries", "codes", "draws"):
            plain.database[name].delete_many({})
        for prefix in ("draws/", "pipeline/"):
            for key in plain.objects.list(prefix):
                plain.objects.delete(key)

    def _between(self) -> None:
        """After the first step, whose file the second one reads."""

    def _run(self) -> None:
        """Dagster has it as failed if it raises."""
        run = DrawRun(
            self.world.runtime,
            CAMPAIGN,
            DrawOptions(
                run_id="matrix",
                settled=lambda _campaign: ReplicationProgress(),
                judge=partial(everybody, self.world.runtime),
                patience_seconds=0.1,
            ),
        )
        self.world.failed_draw = None
        try:
            run.judge()
            self._between()
            run.freeze()
            run.commit()
            # Nothing here publishes the events.
            purge(self.world.plain, self.world.plain.names.analytics_queue)
        except (TransientFailure, InputDiffers, OSError, duckdb.IOException):
            self.world.failed_draw = CAMPAIGN


class OnDisk(Drawing):
    """The same on a disk that fails in this process."""

    def begin(self, kind: str) -> None:
        self._garbles, self._files = kind == Fault.GARBAGE, dict[str, bytes]()
        with _DISKS.get(kind, nullcontext)():
            super().begin(kind)

    def _between(self) -> None:
        """What is read is not what was written."""
        plain = self.world.plain
        if self._garbles:
            self._files = {key: plain.objects.get_bytes(key) for key in plain.objects.list("pipeline/")}
            self._write(dict.fromkeys(self._files, b"garbage"))
        self._garbles = False

    def _write(self, files: Mapping[str, bytes]) -> None:
        s3, bucket = self.world.plain.aws.client("s3"), self.world.plain.names.bucket
        for key, content in files.items():
            s3.put_object(Bucket=bucket, Key=key, Body=content)

    def end(self) -> Iterator[str]:
        self._write(self._files)
        yield from super().end()


@contextmanager
def _full() -> Iterator[None]:
    """No file of this process may grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _temporary(folder: str) -> AbstractContextManager[object]:
    return mock.patch.object(tempfile, "tempdir", folder)


_DISKS: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    Fault.REFUSED: partial(_temporary, "/no-such-folder"),
    # Not even root may write there.
    Fault.DENIED: partial(_temporary, "/sys"),
    Fault.ERROR: _full,
}


class Stored(Use):
    """A Dagster on PostgreSQL: its webserver, and what its daemon stores before it ticks a sensor."""

    def __init__(self, world: World) -> None:
        # Imported here: it takes seconds, and only this row needs it.
        import dagster as dg
        from dagster._core.workspace.context import WorkspaceProcessContext
        from dagster._core.workspace.load_target import PythonFileTarget
        from dagster_webserver.app import create_app_from_workspace_process_context

        from tests.support.postgres import postgres

        super().__init__(world)
        around = world.around
        folder = Path(around.enter_context(tempfile.TemporaryDirectory()))
        database = around.enter_context(postgres())
        proxy = around.enter_context(fault_proxy("postgres", database.socket))
        world.proxies["dagster-database"] = proxy
        url = f"postgresql://postgres@{HOST}:{proxy.port}/postgres"
        home = {"storage": {"postgres": {"postgres_url": url}}, "telemetry": {"enabled": False}}
        (folder / "dagster.yaml").write_bytes(orjson.dumps(home))
        self._instance = around.enter_context(dg.DagsterInstance.from_config(str(folder)))
        # Without a code location Dagster counts as unread.
        code = folder / "location.py"
        code.write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
        target = PythonFileTarget(
            str(code), attribute=None, working_directory=str(folder), location_name="code"
        )
        context = around.enter_context(WorkspaceProcessContext(self._instance, target))
        app = create_app_from_workspace_process_context(context)
        self._url = around.enter_context(_webserver(app))

    def begin(self, kind: str) -> None:
        runtime = self.world.runtime
        timeout = runtime.settings.dagster.timeout_seconds
        runtime.__dict__["dagster"] = DagsterApi(
            self._url, runtime.dependency("dagster"), timeout_seconds=timeout
        )

    def ticks(self) -> bool:
        """The daemon says that it lives, or cannot."""
        from dagster._daemon.types import DaemonHeartbeat

        def beat() -> None:
            for kind in self._instance.get_required_daemon_types():
                self._instance.add_daemon_heartbeat(DaemonHeartbeat(self.world.now(), kind, "matrix", []))

        return not isinstance(read_in_parallel({"beat": beat}, _BEAT_SECONDS)["beat"], Unread)

    def end(self) -> Iterator[str]:
        if not self.ticks():
            yield "the daemon does not go on"
        if (seen := self.world.look()).open.keys() & {"blind:dagster"}:
            yield f"Dagster cannot be read: {seen.open}"
        del self.world.runtime.__dict__["dagster"]


@contextmanager
def _webserver(app: Any) -> Iterator[str]:
    """Dagster's own, at the address."""
    running = uvicorn.Server(
        uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    )
    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, name="webserver")
        thread.start()
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join()


USES: Mapping[str, Callable[[World], Use]] = {
    "secretsmanager": Starting,
    "cloudwatch-logs": Logged,
    "dagster-database": Stored,
    "drand": Drawing,
    "vault": Issuing,
    "mailer": Queued,
    "slack": partial(Notified, name="slack"),
    "pagerduty": partial(Notified, name="pagerduty"),
    "otlp-collector": Traced,
    "disk": OnDisk,
}


@contextmanager
def quick_lines() -> Iterator[None]:
    """The thread of the log group waits for the evaluator's minute, which is short."""
    with (
        mock.patch.object(cloudwatch, "SEND_SECONDS", 0.01),
        mock.patch.object(cloudwatch, "_PAUSE_SECONDS", 0.01),
        mock.patch.object(cloudwatch, "_LONGEST_PAUSE_SECONDS", 0.05),
    ):
        yield
