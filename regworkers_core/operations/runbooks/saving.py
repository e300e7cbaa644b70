"""A save drain beside whatever else a runbook does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.drains.runner import drain_limits, run_drain
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.drains import SAVE
from regworkers_core.runtime import Runtime


@contextmanager
def saving(runtime: Runtime) -> Iterator[None]:
    """A save drain in a thread of its own, beside those that run elsewhere: whatever is queued meanwhile arrives even
    where no sensor is on. Raises at the end what failed it.
    """
    stop, failed = StopSignal(), list[BaseException]()
    limits = drain_limits(runtime.settings, SAVE, idle_seconds=float("inf"), max_seconds=float("inf"))

    def save() -> None:
        try:
            report = run_drain(runtime, SAVE, limits, stop=stop)
            if report.failure is not None:
                failed.append(UsageError(report.failure))
        except (Failure, UsageError) as error:
            failed.append(error)

    thread = threading.Thread(target=save, name="runbook-save")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]
