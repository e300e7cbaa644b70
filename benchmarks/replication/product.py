"""What a contestant is and what a timed round measures; and (b), the product: its two drains."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.replication.counting import CallCounter
from benchmarks.replication.data import Item, write
from regworkers_core.drains.runner import DrainSpec, drain_limits, run_drain
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_core.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds from the stream to the queue, and from the queue to replica, event and cleared flag."""

    enqueue: float
    save: float

    @property
    def total(self) -> float:
        return self.enqueue + self.save


class Contestant(Protocol):
    name: str
    counter: CallCounter

    def load(self, items: Sequence[Item]) -> None:
        """Write the entries of one round; not timed."""
        ...

    def run(self) -> Timed:
        """Replicate what was loaded."""
        ...


class Product:
    name = "product"

    def __init__(self, runtime: Runtime, counter: CallCounter) -> None:
        self._runtime, self.counter = runtime, counter
        self._expected = 0

    def load(self, items: Sequence[Item]) -> None:
        write(self._runtime, items)
        self._expected = len(items)

    def run(self) -> Timed:
        return Timed(self._drain(ENQUEUE, "SendMessageBatch"), self._drain(SAVE, "DeleteMessageBatch"))

    def _drain(self, spec: DrainSpec[Any], last: str) -> float:
        """Seconds from its start until the last call of this operation: the idle wait after it is not
        work.
        """
        stop = StopSignal()

        def watch(report: DrainReport) -> None:
            if report.counts["received"] >= self._expected:
                stop.set()

        limits = drain_limits(self._runtime.settings, spec)
        started = time.monotonic()
        report = run_drain(self._runtime, spec, limits, stop=stop, run_id="0" * 32, on_progress=watch)
        done = report.counts["sent"] if spec is ENQUEUE else report.counts["applied"]
        if done != self._expected or not report.adds_up:
            raise RuntimeError(f"the drain did not replicate all: {report.as_dict()}")
        return self.counter.last_call[last] - started
