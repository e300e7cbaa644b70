"""Reads the snapshot: every section at once, each for itself, the whole within seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.snapshot import (
    CertificateState,
    FuseState,
    LeaseState,
    ParityState,
    SchedulerState,
    Snapshot,
    StreamState,
    Unread,
)
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import is_heartbeat
from regworkers_core.drains.runner import DrainSpec, fuse_in_force
from regworkers_core.engine.fuse import FUSES
from regworkers_core.operations.certificates.checking import check_certificate
from regworkers_core.operations.certificates.inspection import Problem
from regworkers_core.operations.health.at_once import at_once
from regworkers_core.operations.health.campaigns import read_campaigns
from regworkers_core.operations.health.drain_activity import read_drains
from regworkers_core.operations.health.queues import asked_for_queue, queue_readers, queue_states
from regworkers_core.operations.health.status import DEPENDENCIES, SERVICES
from regworkers_core.runtime import Runtime

READ_SECONDS = 4.0
# Far more than there are shards and draws at one time.
_MOST_LEASES = 500
_OF_AGE = (Problem.ENDS_SOON, Problem.EXPIRED)
# With these no new connection is made.
_OUT_OF_ORDER = (Problem.DAMAGED, Problem.NOT_YET_VALID, Problem.KEY_MISMATCH)
_PROBE = "answers:"
# Whom a section asks in the first place.
_ASKS = {
    "stream": "streams",
    "leases": "dynamodb",
    "drains": "mongo",
    "fuses": "dynamodb",
    "campaigns": "mongo",
    "scheduler": "dagster",
    "parity": "mongo",
}
_LEAST_SECONDS = 1.0

ReadStream = Callable[[Runtime], StreamState]
# Of Dagster, which the core does not know; raises a Failure or a UsageError when it cannot be read.
ReadScheduler = Callable[[], SchedulerState]


def read_snapshot(
    runtime: Runtime,
    *,
    stream: ReadStream,
    drains: Iterable[DrainSpec[Any]],
    scheduler: ReadScheduler,
    within_seconds: float = READ_SECONDS,
) -> Snapshot:
    """What is away or late is Unread. `runtime` should be an impatient one.

    Raises UsageError only when there is nobody to ask: no stack, no addresses.
    """
    began = time.monotonic()
    _wire(runtime, within_seconds)
    specs = tuple(drains)
    services = [f"service-{name}" for name in SERVICES if getattr(runtime.settings.services, name).base_url]
    readers: dict[str, Callable[[], Any]] = {
        _PROBE + name: lambda name=name: _trouble(runtime, name)  # type: ignore[misc]
        for name in (*DEPENDENCIES, *services)
    }
    readers |= queue_readers(runtime)
    readers |= {
        "stream": lambda: stream(runtime),
        "leases": lambda: _leases(runtime),
        "drains": lambda: read_drains(runtime, specs),
        "fuses": lambda: _fuses(runtime, specs),
        "campaigns": lambda: read_campaigns(runtime),
        "certificates": lambda: (_certificate(runtime),),
        "scheduler": scheduler,
        "parity": lambda: _parity(runtime),
    }
    # What a slow login has left; whoever still waits for it is late.
    found = at_once(readers, max(_LEAST_SECONDS, within_seconds - (time.monotonic() - began)), _asks)
    queues, unread_queues = queue_states(found)
    return Snapshot(
        at=iso(runtime.clock()),
        environment=runtime.settings.environment,
        dependencies={
            name.removeprefix(_PROBE): state.why if isinstance(state, Unread) else state
            for name, state in found.items()
            if name.startswith(_PROBE)
        },
        queues=queues,
        unread_queues=unread_queues,
        fuses=found["fuses"],
        stream=found["stream"],
        leases=found["leases"],
        drains=found["drains"],
        campaigns=found["campaigns"],
        certificates=found["certificates"],
        scheduler=found["scheduler"],
        parity=found["parity"],
    )


def _asks(reader: str) -> str:
    if reader.startswith(_PROBE):
        return reader.removeprefix(_PROBE)
    return _ASKS.get(reader, "") or asked_for_queue(reader)


def _wire(runtime: Runtime, within_seconds: float) -> None:
    """Before several threads need them. It may take its time: AWS is asked for credentials, DNS for MongoDB's servers.

    Raises UsageError when neither has an address.
    """

    def refused(make: Callable[[], object]) -> UsageError | None:
        try:
            make()
        except UsageError as error:
            return error
        return None

    def aws() -> object:
        return runtime.demand_table, runtime.leases, runtime.streams, runtime.sqs, runtime.objects

    def mongo() -> object:
        return runtime.replica, runtime.drain_log, runtime.campaigns, runtime.draws

    def redis() -> object:
        # Its library alone takes longer to import on a busy machine than a probe is waited for.
        return runtime.redis_client

    makers = {"aws": aws, "mongo": mongo, "redis": redis}
    found = at_once({name: lambda make=make: refused(make) for name, make in makers.items()}, within_seconds)  # type: ignore[misc]
    refusals = [each for name in ("aws", "mongo") if isinstance(each := found[name], UsageError)]
    if len(refusals) == 2:
        raise refusals[0]


def _trouble(runtime: Runtime, name: str) -> str | None:
    failure = runtime.failure_of(name)
    return None if failure is None else failure.error


def _leases(runtime: Runtime) -> tuple[LeaseState, ...]:
    rows = sorted(runtime.leases.all(_MOST_LEASES), key=lambda row: row.key)
    return tuple(
        LeaseState(row.key.pk, row.key.sk, row.owner, row.token, row.position.lstrip("0"))
        for row in rows
        if not is_heartbeat(row.key.pk) and not row.key.pk.startswith(FUSES)
    )


def _fuses(runtime: Runtime, specs: Iterable[DrainSpec[Any]]) -> tuple[FuseState, ...]:
    """Those that keep the code that runs here from draining."""
    blown = [fuse for spec in specs if (fuse := fuse_in_force(runtime, spec.name)) is not None]
    return tuple(
        FuseState(fuse.drain, fuse.fingerprint, fuse.reason, fuse.tripped_at, fuse.run_id) for fuse in blown
    )


def _certificate(runtime: Runtime) -> CertificateState:
    environment = runtime.settings.environment
    try:
        report = check_certificate(runtime, environment)
    except UsageError as error:
        # One that is named and not there is what people have to hear of.
        return CertificateState(environment, None, trouble=str(error))
    found = report.inspection
    if found is None:
        return CertificateState(environment, None)
    troubles = [each.text for each in found.findings if each.problem not in _OF_AGE]
    unusable = found.has(*_OUT_OF_ORDER)
    return CertificateState(
        environment, found.days_left, found.subject or "", " and ".join(troubles), unusable
    )


def _parity(runtime: Runtime) -> ParityState | None:
    last = runtime.reconcile_results.last()
    return None if last is None else ParityState(last.at, last.differences)
