"""The three contestants in turn on the same servers, round by round, so that noise affects all of them."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from benchmarks.replication.counting import Bill
from benchmarks.replication.data import Entries, namespace
from benchmarks.replication.floor import Floor
from benchmarks.replication.handlers import Handlers
from benchmarks.replication.product import Contestant, Product, Timed
from regworkers_local.state import StackState

ROUND = 10_000
# One by one is slow, and a rate does not need more.
HANDLERS_ROUND = 2_000


@dataclass(slots=True)
class Measured:
    """Entries and times of each round of one contestant, and the calls of all rounds."""

    entries: int
    rounds: list[Timed] = field(default_factory=list)
    bill: Bill = field(default_factory=Bill)
    # CPU seconds by process: `client`, and each server by its name.
    cpu: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Entries a second, median of the rounds."""
        return self.entries / statistics.median(timed.total for timed in self.rounds)

    def phase(self, name: str) -> float:
        """Entries a second of one phase."""
        return self.entries / statistics.median(
            timed.enqueue if name == "enqueue" else timed.save for timed in self.rounds
        )

    def cpu_per_thousand(self, name: str) -> float:
        """CPU milliseconds of one process for each 1,000 entries."""
        return 1000 * self.cpu[name] / (self.total / 1000)

    @property
    def cpu_of_all(self) -> float:
        """CPU seconds of all processes for an entry."""
        return self.cpu.total() / self.total

    @property
    def total(self) -> int:
        return self.entries * len(self.rounds)

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median of the rounds."""
        totals = [timed.total for timed in self.rounds]
        return (max(totals) - min(totals)) / statistics.median(totals)


def measure(state: StackState, entries: int, say: Callable[[str], None]) -> dict[str, Measured]:
    """One round that warms up and does not count, then `entries` in rounds, with the order rotated each
    round.
    """
    size = min(ROUND, entries)
    processes = {name: psutil.Process(ref.pid) for name, ref in state.processes.items()}
    processes["client"] = psutil.Process()
    contestants: list[Contestant] = [
        Floor(*namespace(state, "floor")),
        Product(*namespace(state, "product")),
        Handlers(*namespace(state, "handlers")),
    ]
    sizes = {"floor": size, "product": size, "handlers": min(size, HANDLERS_ROUND)}
    data = {each.name: Entries() for each in contestants}
    found = {each.name: Measured(sizes[each.name]) for each in contestants}
    for number in range(entries // size + 1):
        for each in contestants[number % 3 :] + contestants[: number % 3]:
            each.load(data[each.name].round(sizes[each.name], time.time()))
            before, cpu_before = each.counter.snapshot(), _cpu(processes)
            timed = each.run()
            cpu = _cpu(processes)
            say(
                f"round {number} {each.name}: enqueue {sizes[each.name] / timed.enqueue:.0f}/s,"
                f" save {sizes[each.name] / timed.save:.0f}/s, both {sizes[each.name] / timed.total:.0f}/s"
            )
            if number:
                found[each.name].rounds.append(timed)
                found[each.name].bill += each.counter.snapshot() - before
                cpu.subtract(cpu_before)
                found[each.name].cpu.update(cpu)
    return found


def _cpu(processes: dict[str, psutil.Process]) -> Counter[str]:
    return Counter({name: sum(process.cpu_times()[:2]) for name, process in processes.items()})
