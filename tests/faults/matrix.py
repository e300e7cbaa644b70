"""Plants each fault of the blindness matrix and compares what the evaluator and the doctor say: `make matrix`.

    python -m tests.faults.matrix [--only DEPENDENCY[:FAILURE] ...]

A cell is right if its incident, and no other, is open at the promised time and a minute later, if the doctor names the
command that helps, and if the incident closes after the fault. One line a cell; exit code 1 if one is wrong. Time is
the evaluator's, which comes once a minute; the servers are those that the suite's variables name, or embedded.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock

import orjson
import structlog
from rich.console import Console

from regworkers_core.adapters.mongo.incidents import EvaluationState
from regworkers_core.cli.doctor import screen
from regworkers_core.domain.snapshot import SELECTION_JOBS, Snapshot
from regworkers_core.operations.alerts.evaluate import SENSOR, evaluate
from regworkers_core.operations.alerts.outage import Outage
from regworkers_core.operations.alerts.table import TABLE
from regworkers_core.operations.health.dependency_status import with_short_timeouts
from regworkers_core.operations.health.doctor import examine_snapshot
from regworkers_core.operations.health.scheduler import read_scheduler
from regworkers_core.operations.health.snapshot import read_system
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.servers import HOST
from regworkers_local.services.app import TOKEN
from regworkers_local.stack import Stack
from tests.faults.matrix_table import LOOK_SECONDS, MATRIX, Incident, Silent, planted
from tests.support.fault_proxy import Fault, FaultProxy, Rule, fault_proxy, proxied
from tests.support.runtimes import ADDRESSES, address, new_runtime, redis_url, remove_namespace, test_settings
from tests.support.services import served_to, with_services
from tests.support.shared import purge

_AWS = ("dynamodb", "streams", "sqs", "s3")
# Of one answer, and of all answers of an evaluation.
_ANSWER_SECONDS, _READ_SECONDS = 2.0, 6.0
# Well under one answer.
_SLOW_SECONDS = 0.05
# A driver finds out by itself that its server is back.
_RECOVERY_LOOKS = 3


@dataclass(slots=True)
class Seen:
    """What one look found: open incidents (key to severity), and the doctor's screen."""

    open: dict[str, str]
    doctor: str


@dataclass(slots=True)
class World:
    """A namespace, and a runtime whose servers are behind proxies. `offset` is how far its clock is ahead."""

    plain: Runtime
    runtime: Runtime
    proxies: dict[str, FaultProxy]
    offset: float = 0.0
    outage: Outage | None = None

    def now(self) -> float:
        return time.time() + self.offset

    def reset(self) -> None:
        """All is well, and no evaluation remembers anything else."""
        self.heal()
        purge(self.plain, self.plain.names.replication_queue)
        for name in ("alerts", "alert_looks", "queue_marks"):
            self.plain.database[name].delete_many({})
        self.outage = None

    def plant(self, dependency: str, kind: str) -> None:
        if dependency == "cloudwatch":
            # The age of an empty queue is not asked for.
            url = self.plain.sqs.get_queue_url(QueueName=self.plain.names.replication_queue)["QueueUrl"]
            self.plain.sqs.send_message(QueueUrl=url, MessageBody="waits")
        proxy, service = self._where(dependency)
        proxy.rules = [Rule(Fault(kind), service, seconds=_SLOW_SECONDS)]
        proxy.cut_connections()

    def heal(self) -> None:
        for proxy in self.proxies.values():
            proxy.rules = ()
            proxy.cut_connections()

    def _where(self, dependency: str) -> tuple[FaultProxy, str]:
        if dependency in _AWS:
            return self.proxies["aws"], dependency
        if dependency.startswith("service-"):
            return self.proxies["services"], dependency.removeprefix("service-")
        if dependency == "dagster-graphql":
            return self.proxies["dagster"], "*"
        if dependency == "secretsmanager":
            return self.proxies["aws"], dependency
        if dependency == "cloudwatch":
            return self.proxies["aws"], "monitoring"
        return self.proxies[dependency], "*"

    def look(self) -> Seen:
        """One evaluation, a minute after the last one."""
        self.offset += LOOK_SECONDS
        snapshot = self._read()
        self.outage = evaluate(self.runtime, snapshot, by=SENSOR, outage=self.outage).outage
        found = {
            each.alert.key: each.alert.severity.value
            for each in self.plain.incidents.of(*(condition.name for condition in TABLE))
            if each.open
        }
        if self.outage is not None and self.outage.notified:
            found["mongo-away:mongo"] = self.runtime.settings.alerts.severity.mongo_away.value
        console = Console(width=1000, record=True, file=io.StringIO())
        console.print(screen(examine_snapshot(self.runtime, snapshot)))
        return Seen(found, console.export_text())

    def _read(self) -> Snapshot:
        return read_system(
            self.runtime,
            lambda: read_scheduler(self.runtime.dagster, self.now()),
            within_seconds=_READ_SECONDS,
        )


def play(world: World, dependency: str, kind: str) -> list[str]:
    """What is wrong with one cell, in words; empty: it is as declared."""
    cell = MATRIX[dependency][kind]
    world.reset()
    if wrong := list(_unhealthy(world, "before the fault")):
        return wrong
    world.plant(dependency, kind)
    if isinstance(cell, Silent):
        for _ in range(5):
            if (seen := world.look()).open:
                wrong.append(f"should be silent: {seen.open}")
                break
    else:
        wrong += _incident(world, cell)
    world.heal()
    return [*wrong, *_unhealthy(world, "after the fault")]


def _unhealthy(world: World, when: str) -> Iterator[str]:
    """What is still wrong after a few looks."""
    for _ in range(_RECOVERY_LOOKS):
        seen = world.look()
        if not seen.open and "everything is healthy" in seen.doctor:
            return
        time.sleep(0.5)
    yield f"not healthy {when}: {seen.open}\n{seen.doctor}"


def _incident(world: World, cell: Incident) -> Iterator[str]:
    last = max(cell.within_seconds, cell.critical_seconds or 0) + LOOK_SECONDS
    for seconds in range(LOOK_SECONDS, last + 1, LOOK_SECONDS):
        seen, wanted = world.look(), {cell.key: cell.severity_after(seconds)}
        if others := seen.open.keys() - wanted.keys():
            yield f"after {seconds} s another incident: {', '.join(sorted(others))}"
        if seconds >= cell.within_seconds:
            if seen.open != wanted:
                yield f"after {seconds} s open: {seen.open}, should be {wanted}"
            if cell.command not in seen.doctor:
                yield f"after {seconds} s the doctor does not name `{cell.command}`:\n{seen.doctor}"


@contextmanager
def a_world() -> Iterator[World]:
    """On the servers that the suite's variables name."""
    # Who observes waits for a busy machine.
    patient = dict.fromkeys(
        ("connect_timeout_seconds", "socket_timeout_seconds", "server_selection_timeout_seconds"), 30.0
    )
    plain = new_runtime(mongo=patient)
    prefix, addresses = plain.names.prefix, {name: address(name) for name in ADDRESSES}
    addresses["redis"] = redis_url(prefix, addresses["redis"])
    with ExitStack() as around:
        services = around.enter_context(served_to(plain))
        behind = {name: around.enter_context(fault_proxy(name, at)) for name, at in addresses.items()}
        behind["services"] = around.enter_context(fault_proxy("http", services.url))
        given = {name: proxied(at, behind[name]) for name, at in addresses.items()}
        sections: dict[str, Any] = {
            "retry": {"attempts": 1, "breaker_reset_seconds": 0.01},
            "alerts": {"look_seconds": LOOK_SECONDS},
            "observability": {"cloudwatch_enabled": True, "cloudwatch_logs": "none"},
        }
        settings = test_settings(prefix, given, **sections)
        # Advice for the embedded stack is no advice for production.
        settings = settings.model_copy(update={"environment": "qa"})
        secret = f"{prefix}service-token/matrix"
        plain.aws.client("secretsmanager").create_secret(Name=secret, SecretString=TOKEN)
        settings = with_services(Runtime(settings), proxied(services.url, behind["services"])).settings
        kept = settings.services.entry.model_copy(
            update={"token": None, "token_secret": "service-token/matrix"}
        )
        settings = settings.model_copy(
            update={"services": settings.services.model_copy(update={"entry": kept})}
        )
        world = World(plain, Runtime(settings), behind)
        scheduler = around.enter_context(_dagster(world.now))
        behind["dagster"] = around.enter_context(fault_proxy("http", scheduler))
        at = settings.dagster.model_copy(update={"url": proxied(scheduler, behind["dagster"])})
        settings = settings.model_copy(update={"dagster": at})
        world.runtime = Runtime(with_short_timeouts(settings, _ANSWER_SECONDS))
        world.runtime.clock = world.now
        read = EvaluationState.now
        patched = mock.patch.object(EvaluationState, "now", lambda state: read(state) + world.offset)
        around.enter_context(patched)
        yield world
        world.runtime.mongo.close()
    remove_namespace(plain)


@contextmanager
def _dagster(now: Callable[[], float]) -> Iterator[str]:
    """The address of a Dagster whose daemons are well, and which has run nothing."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            beat = {"daemonType": "SENSOR", "required": True, "lastHeartbeatTime": now()}
            data: dict[str, Any] = {
                "instance": {"daemonHealth": {"allDaemonStatuses": [beat]}},
                "repositoriesOrError": {"__typename": "RepositoryConnection", "nodes": []},
                "queued": {"count": 0},
                **{
                    name: {"results": []} for name in ("failed", *(f"failed_{job}" for job in SELECTION_JOBS))
                },
            }
            body = orjson.dumps({"data": data})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _servers() -> Iterator[None]:
    missing = [name for name, variable in ADDRESSES.items() if variable not in os.environ]
    if not missing:
        os.environ.setdefault("REGWORKERS_TEST_GIVEN_SERVERS", "1")
        yield
        return
    stack = Stack(PROJECT_ROOT, f"matrix-{os.getpid()}", servers=missing)
    state = stack.up()
    os.environ.update({ADDRESSES[name]: state.address(name) for name in missing})
    try:
        yield
    finally:
        stack.reset()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], help="dependencies, or dependency:failure")
    only = parser.parse_args().only
    chosen = [each for each in planted() if not only or {each[0], ":".join(each)} & {*only}]
    if not chosen:
        parser.error(f"no cell is planted for {', '.join(only)}")
    say, failed = partial(print, flush=True), 0
    os.environ["REGWORKERS_INSTANCE"] = "none"
    # What the product logs of each fault hides the verdicts.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with _servers(), a_world() as world:
        for dependency, kind in chosen:
            began = time.monotonic()
            wrong = play(world, dependency, kind)
            failed += bool(wrong)
            verdict = "wrong" if wrong else "right"
            say(f"{dependency:16} {kind:10} {verdict}  {time.monotonic() - began:5.1f} s")
            for each in wrong:
                say(f"    {each}")
    say(f"{len(chosen) - failed} of {len(chosen)} cells as declared")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
