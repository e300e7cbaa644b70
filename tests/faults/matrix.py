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
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import orjson
import structlog
from rich.console import Console

from regworkers_core.adapters.mongo.incidents import EvaluationState
from regworkers_core.cli.doctor import screen
from regworkers_core.domain.selection import QUICKNET
from regworkers_core.domain.snapshot import Snapshot
from regworkers_core.operations.alerts.conditions import TABLE
from regworkers_core.operations.alerts.evaluate import OUTSIDE, SENSOR, Outage, evaluate
from regworkers_core.operations.dependency_status import with_short_timeouts
from regworkers_core.operations.doctor import examine_snapshot
from regworkers_core.operations.health.scheduler import LOOKED_AT, PARTITION_TAG, read_scheduler
from regworkers_core.operations.health.snapshot import read_system
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_core.settings.flows import BeaconSettings
from regworkers_local.servers import HOST
from regworkers_local.services import TOKEN
from regworkers_local.stack import Stack
from tests.faults.matrix_table import LOOK_SECONDS, MATRIX, Incident, Silent, planted
from tests.faults.matrix_uses import USES, Use, quick_lines
from tests.operations.alerts.receiver import Receiver, receiving
from tests.selection.draw.beacons import signature_of, taken_for_signatures
from tests.selection.draw.world import CAMPAIGN
from tests.support.certificates import Authority
from tests.support.environment import leave_instances
from tests.support.fault_proxy import Fault, FaultProxy, Rule, fault_proxy, proxied
from tests.support.runtimes import ADDRESSES, address, new_runtime, redis_url, remove_namespace, test_settings
from tests.support.services import served_to, with_services
from tests.support.shared import purge
from tests.support.tls_proxy import server_context
from tests.support.vault import vault_of

# Services by the names of the proxy.
_OF_AWS = {
    **{name: name for name in ("dynamodb", "streams", "sqs", "s3", "secretsmanager")},
    "cloudwatch": "monitoring",
    "cloudwatch-logs": "logs",
}
# Of one answer, and of all answers of an evaluation.
_ANSWER_SECONDS, _READ_SECONDS = 2.0, 6.0
# Well under one answer.
_SLOW_SECONDS = 0.05
# A driver finds out by itself that its server is back.
_RECOVERY_LOOKS = 3
_SILENT_LOOKS = 5


@dataclass(slots=True)
class Seen:
    """What one look found: open incidents (key to severity), and the doctor's screen."""

    open: dict[str, str]
    doctor: str


@dataclass
class World:
    """A namespace, and a runtime whose servers are behind proxies. `offset` is how far its clock is ahead;
    `failed_draw` is the campaign whose last draw failed, as Dagster has it.
    """

    plain: Runtime
    runtime: Runtime
    proxies: dict[str, FaultProxy]
    receiver: Receiver
    around: ExitStack
    offset: float = 0.0
    outage: Outage | None = None
    failed_draw: str | None = None
    uses: dict[str, Use] = field(default_factory=dict)
    use: Use | None = None

    def now(self) -> float:
        return time.time() + self.offset

    def reset(self) -> None:
        """All is well, and no evaluation remembers anything else."""
        self.heal()
        self.purge()
        for name in ("alerts", "alert_looks", "queue_marks"):
            self.plain.database[name].delete_many({})
        self.outage = None

    def purge(self) -> None:
        names = self.plain.names
        purge(self.plain, names.notification_queue)
        purge(self.plain, names.dead_letter_queue(names.selection_queue))

    def plant(self, dependency: str, kind: str) -> None:
        if dependency not in self.uses:
            self.uses[dependency] = USES.get(dependency, Use)(self)
        self.use = self.uses[dependency]
        if place := self._where(dependency, kind):
            proxy, service = place
            proxy.seen.clear()
            proxy.rules = [Rule(Fault(kind), service, seconds=_SLOW_SECONDS)]
            proxy.cut_connections()
        self.use.begin(kind)

    def heal(self) -> Iterable[str]:
        """What was wrong besides the incidents."""
        for proxy in self.proxies.values():
            proxy.rules = ()
            proxy.cut_connections()
        ended, self.use = self.use, None
        return [] if ended is None else ended.end()

    def has_struck(self, dependency: str, kind: str) -> bool:
        """Whether a request met the fault. Requests that find no listener are not counted."""
        place = self._where(dependency, kind)
        if place is None or any(rule.refuses_all for rule in place[0].rules):
            return True
        return any(fault == kind for _, _, fault in place[0].seen)

    def _where(self, dependency: str, kind: str) -> tuple[FaultProxy, str] | None:
        """The proxy and the service; None for what needs no proxy."""
        service = _OF_AWS.get(dependency)
        if service is not None:
            # A role has one set of credentials.
            return self.proxies["aws"], "*" if kind == Fault.CREDENTIALS else service
        if dependency.startswith("service-"):
            return self.proxies["services"], dependency.removeprefix("service-")
        proxy = self.proxies.get(dependency)
        return None if proxy is None else (proxy, "*")

    def look(self) -> Seen:
        """One evaluation, a minute after the last one."""
        self.offset += LOOK_SECONDS
        if self.use is not None:
            self.use.look()
        snapshot = self._read()
        by = SENSOR if self.use is None or self.use.ticks() else OUTSIDE
        self.outage = evaluate(self.runtime, snapshot, by=by, outage=self.outage).outage
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
    if isinstance(cell, Incident):
        wrong += _incident(world, cell)
    elif isinstance(cell, Silent):
        wrong += _silence(world, cell)
    if not world.has_struck(dependency, kind):
        wrong.append("no request met the fault")
    wrong += world.heal()
    return [*wrong, *_unhealthy(world, "after the fault")]


def _unhealthy(world: World, when: str) -> Iterator[str]:
    """What is still wrong after a few looks."""
    for _ in range(_RECOVERY_LOOKS):
        seen = world.look()
        if not seen.open and "everything is healthy" in seen.doctor:
            return
        time.sleep(0.5)
    yield f"not healthy {when}: {seen.open}\n{seen.doctor}"


def _silence(world: World, cell: Silent) -> Iterator[str]:
    for _ in range(_SILENT_LOOKS):
        seen = world.look()
        if seen.open.keys() != {*filter(None, (cell.beside,))}:
            yield f"should be silent: {seen.open}"
            return


def _incident(world: World, cell: Incident) -> Iterator[str]:
    key, command = (text.replace("<campaignId>", CAMPAIGN) for text in (cell.key, cell.command))
    wanted = {key: cell.severity}
    for seconds in range(LOOK_SECONDS, cell.within_seconds + LOOK_SECONDS + 1, LOOK_SECONDS):
        seen = world.look()
        if others := seen.open.keys() - wanted.keys():
            yield f"after {seconds} s another incident: {', '.join(sorted(others))}"
        if seconds >= cell.within_seconds:
            if seen.open != wanted:
                yield f"after {seconds} s open: {seen.open}, should be {wanted}"
            if command not in seen.doctor:
                yield f"after {seconds} s the doctor does not name `{command}`:\n{seen.doctor}"


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
        authority = Authority()
        tls = server_context(authority, Path(around.enter_context(TemporaryDirectory())))
        behind = {
            name: around.enter_context(fault_proxy(name, at, tls=tls if name == "kafka" else None))
            for name, at in addresses.items()
        }
        given = {name: proxied(at, behind[name]) for name, at in addresses.items()}

        def http(name: str, url: str) -> str:
            behind[name] = around.enter_context(fault_proxy("http", url))
            return proxied(url, behind[name])

        receiver = around.enter_context(receiving())
        mine = authority.client()
        sections: dict[str, Any] = {
            "retry": {"attempts": 1, "breaker_reset_seconds": 0.01},
            "alerts": {
                **receiver.settings,
                "pagerduty_url": http("pagerduty", receiver.settings["pagerduty_url"]),
                "slack_webhook": http("slack", receiver.settings["slack_webhook"]),
                "look_seconds": LOOK_SECONDS,
                "timeout_seconds": 1,
                "queue_depth": {"notification": 2},
            },
            "kafka": {"tls": {"certificate": mine.bundle, "ca": authority.pem}},
            "observability": {"cloudwatch_enabled": True},
            "vault": {
                "address": http("vault", around.enter_context(vault_of(authority)).url),
                "timeout_seconds": 1,
            },
        }
        settings = test_settings(prefix, given, **sections)
        # Advice for the embedded stack is no advice for production.
        settings = settings.model_copy(update={"environment": "qa"})
        secret = f"{prefix}service-token/matrix"
        plain.aws.client("secretsmanager").create_secret(Name=secret, SecretString=TOKEN)
        settings = with_services(Runtime(settings), http("services", services.url)).settings
        kept = settings.services.entry.model_copy(
            update={"token": None, "token_secret": "service-token/matrix"}
        )
        world = World(plain, Runtime(settings), behind, receiver, around)
        http("otlp-collector", around.enter_context(_serving(lambda _path, _body: b"")))
        beacon = http("drand", around.enter_context(_serving(lambda path, _body: _round(path, world.now()))))
        dagster = http(
            "dagster-graphql", around.enter_context(_serving(lambda _path, body: _dagster(world, body)))
        )
        changes = {
            "services": settings.services.model_copy(update={"entry": kept}),
            "dagster": settings.dagster.model_copy(update={"url": dagster}),
            "selection": settings.selection.model_copy(
                update={"beacon": BeaconSettings(urls=(beacon,), timeout_seconds=1.0)}
            ),
        }
        world.runtime = Runtime(with_short_timeouts(settings.model_copy(update=changes), _ANSWER_SECONDS))
        world.runtime.clock = world.now
        read = EvaluationState.now
        for patched in (
            mock.patch.object(EvaluationState, "now", lambda state: read(state) + world.offset),
            taken_for_signatures(),
            quick_lines(),
            # No agent collects lines here, as one does outside of local-dev.
            mock.patch("regworkers_core.operations.health.snapshot.read_lines", return_value=None),
        ):
            around.enter_context(patched)
        yield world
        world.runtime.mongo.close()
    remove_namespace(plain)


def _round(path: str, now: float) -> bytes:
    """The beacon's latest round at that time."""
    assert path.endswith("/latest"), path
    number = int(now - QUICKNET.genesis) // QUICKNET.period + 1
    return orjson.dumps({"round": number, "signature": signature_of(number)})


def _dagster(world: World, body: bytes) -> bytes:
    """What a Dagster answers whose daemons are well, and which has run nothing but draws."""
    results = []
    if world.failed_draw:
        tag = {"key": PARTITION_TAG, "value": world.failed_draw}
        run = {"runId": "1", "jobName": "draw", "status": "FAILURE", "endTime": world.now(), "tags": [tag]}
        results = [{**run, "assetSelection": None}]
    beat = {"daemonType": "SENSOR", "required": True, "lastHeartbeatTime": world.now()}
    data: dict[str, Any] = {
        "instance": {"daemonHealth": {"allDaemonStatuses": [beat]}},
        "repositoriesOrError": {
            "__typename": "RepositoryConnection",
            "nodes": [{"sensors": [], "schedules": []}],
        },
        "queued": {"count": 0},
        **{name: {"results": []} for name in ("failed", *(f"failed_{job}" for job in LOOKED_AT))},
        "assetNodes": [],
        "failed_draw": {"results": results},
    }
    if b"work0" in body:
        data = {name: {"results": []} for name in ("launched0", "materialized0")} | {
            "work0": {"results": results}
        }
    return orjson.dumps({"data": data})


@contextmanager
def _serving(answer: Callable[[str, bytes], bytes]) -> Iterator[str]:
    """The address of a server that answers each request by its path and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = answer(self.path, self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

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
    leave_instances()
    # What the product logs of each fault hides the verdicts.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
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
