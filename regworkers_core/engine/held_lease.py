"""Holding a lease for as long as a piece of work lasts, and waiting a bounded time for one that is held."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from regworkers_core.domain.reasons import Failure
from regworkers_core.engine.leases import Lease, LeaseHolder, LeaseTable
from regworkers_core.observability.logs import describe

log = structlog.get_logger(__name__)
# An observer needs to see the counter stand still for one lease time, and a little more.
PATIENCE_LEASES = 1.3
# Of a lease time, between two looks.
LOOK_SHARE = 1 / 20


class LeaseBusy(Failure):
    """Somebody living holds the lease of this name, and kept it for all the time that we waited."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is being worked on by another run")
        self.name = name


@contextmanager
def held_lease(
    table: LeaseTable,
    name: str,
    run_id: str,
    *,
    lease_seconds: float,
    patience_seconds: float | None = None,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Lease]:
    """Hold `name` inside, kept alive by a thread. A holder that died is waited out, which takes one lease time.

    Raises LeaseBusy after `patience_seconds` (default: so long that a dead holder is out), TransientFailure
    when the table cannot answer.
    """
    patience = lease_seconds * PATIENCE_LEASES if patience_seconds is None else patience_seconds
    # Unique to this start: two attempts of one run must not take each other for the holder.
    holder = LeaseHolder(table, f"{run_id}-{uuid.uuid4().hex[:8]}", lease_seconds=lease_seconds, clock=clock)
    give_up = clock() + patience
    while (lease := holder.acquire(name)) is None:
        if clock() >= give_up:
            raise LeaseBusy(name)
        sleep(lease_seconds * LOOK_SHARE)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(lease, done, lease_seconds / 3), daemon=True)
    beat.start()
    try:
        yield lease
    finally:
        done.set()
        beat.join()
        try:
            lease.release()
        except Exception as error:
            # It runs out by itself, and the work inside came to its own end, which must not be covered up.
            log.warning("lease not released", lease=name, error=describe(error))


def _beat(lease: Lease, done: threading.Event, every_seconds: float) -> None:
    while not done.wait(every_seconds):
        try:
            if not lease.renew():
                return
        except Exception as error:
            # Whatever it is, the next beat may get through; a lease that is lost says so by itself.
            log.warning("lease not renewed", error=describe(error))
