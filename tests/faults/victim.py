"""A drain that kills itself: `python -m tests.faults.victim <prefix> <step> <occurrence> <variant>`.

The servers come from the same environment as the test's. Prints its report if it survives.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from regworkers_core import runtime as runtimes
from regworkers_core.adapters.aws.demand_table import Cleared, DemandTable
from regworkers_core.domain.entry import Entry
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.drains import runner
from regworkers_core.engine.handling import Handled
from regworkers_core.engine.queue import QueueSource, Received
from regworkers_core.engine.stop import StopSignal
from regworkers_core.flows import DRAINS
from regworkers_core.replication.keys import KeyRequest
from regworkers_core.replication.saver import Saver
from regworkers_core.runtime import Runtime
from tests.faults.crash import SECTIONS, Fault
from tests.support.runtimes import test_settings

DEADLY = "deadly"


class AcknowledgesFirst(QueueSource):
    """The broken variant of a source: a message is deleted before its entries are written."""

    def receive(self) -> list[Received]:
        batch = super().receive()
        self._queue.delete(batch)
        return batch


class Throttled(DemandTable):
    """A demand table that clears every other flag that it is asked for, and has no time for the others."""

    def clear_flags(self, entries: Sequence[Entry], replicated_at: str) -> Cleared:
        changed, failed = super().clear_flags(entries[::2], replicated_at)
        busy = TransientFailure("dynamodb", "ThrottlingError", throttled=True)
        return Cleared(changed, [*failed, *((entry, busy) for entry in entries[1::2])])


def die_of_an_entry() -> None:
    """One entry ends the process, as one would that takes all memory."""
    save = Saver.save

    def deadly(saver: Saver, wanted: Mapping[EntryKey, KeyRequest]) -> Handled:
        if any(key.entry_id == DEADLY for key in wanted):
            os.kill(os.getpid(), signal.SIGKILL)
        return save(saver, wanted)

    Saver.save = deadly  # type: ignore[method-assign]


# What is broken on purpose.
VARIANTS: dict[str, Callable[[], None]] = {
    "good": lambda: None,
    "dies of an entry": die_of_an_entry,
    "acknowledges first": lambda: setattr(runner, "QueueSource", AcknowledgesFirst),
    "throttled": lambda: setattr(runtimes, "DemandTable", Throttled),
}


def main(prefix: str, step: str, occurrence: str, variant: str) -> None:
    fault = Fault(step, int(occurrence), variant)
    VARIANTS[variant]()
    lock, passed = threading.Lock(), 0

    def on_step(name: str) -> None:
        nonlocal passed
        if name != fault.step:
            return
        with lock:
            passed += 1
            if passed == fault.occurrence:
                os.kill(os.getpid(), signal.SIGKILL)

    runtime = Runtime(test_settings(prefix, **SECTIONS))
    (spec,) = [spec for spec in DRAINS if spec.name == fault.drain]
    limits = runner.drain_limits(runtime.settings, spec, idle_seconds=0.1, max_seconds=30)
    report = runner.run_drain(runtime, spec, limits, stop=StopSignal(), run_id="victim", on_step=on_step)
    print(report.as_dict())


if __name__ == "__main__":
    main(*sys.argv[1:])
