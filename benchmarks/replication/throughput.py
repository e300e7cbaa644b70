"""The three contestants in turn on the same servers, round by round, so that noise affects all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil

from benchmarks.figures import Rounds, cpu_of, ratio, spread
from benchmarks.replication import counting
from benchmarks.replication.counting import Bill
from benchmarks.replication.data import Entries, namespace
from benchmarks.replication.floor import Floor
from benchmarks.replication.handlers import Handlers
from benchmarks.replication.product import Contestant, Product, Timed
from regworkers_local.state import StackState

ROUNDS = 5
# One by one is slow, and a rate does not need more.
HANDLERS_PART = 5


@dataclass(slots=True)
class Measured(Rounds):
    """With the phases of each round, and the calls of all."""

    timed: list[Timed] = field(default_factory=list)
    bill: Bill = field(default_factory=Bill)

    def figures(self) -> dict[str, Any]:
        """Rates are entries a second."""
        processes = ("client", "aws", "mongo")
        return {
            "entries": self.items * len(self.seconds),
            "rate": self.rate,
            "enqueueRate": spread(self.items / each.enqueue for each in self.timed),
            "saveRate": spread(self.items / each.save for each in self.timed),
            "cpuMicros": {process: self.cpu_micros(process) for process in processes},
            "callsPerMillion": round(self.calls_per_million),
        }

    @property
    def calls_per_million(self) -> float:
        return counting.calls_per_million(self.bill, self.items * len(self.seconds))


def measure(state: StackState, entries: int, say: Callable[[str], None]) -> dict[str, Any]:
    """One round that warms up and does not count, then `entries` in rounds, with the order rotated each round."""
    found = _rounds(state, max(entries // ROUNDS, HANDLERS_PART), say)
    floor, product, handlers = (found[name] for name in ("floor", "product", "handlers"))
    dollars = {
        "product": counting.product(product.bill, product.items * ROUNDS, product.rate["median"]),
        "handlers": counting.handlers(handlers.bill, handlers.items * ROUNDS),
    }
    return {
        "contestants": {name: each.figures() for name, each in found.items()},
        "ofFloor": ratio(floor.seconds, product.seconds),
        "timesHandlers": ratio(handlers.seconds_of_one, product.seconds_of_one),
        # Steadier than the rates where something else uses the machine.
        "cpuOfFloor": ratio(product.cpu_of_one, floor.cpu_of_one),
        "handlersCpuTimes": ratio(handlers.cpu_of_one, product.cpu_of_one),
        "callsOfHandlers": round(product.calls_per_million / handlers.calls_per_million, 3),
        "dollarsPerMillion": {
            name: {kind: round(value, 3) for kind, value in kinds.items()}
            | {"sum": round(sum(kinds.values()), 2)}
            for name, kinds in dollars.items()
        },
    }


def _rounds(state: StackState, size: int, say: Callable[[str], None]) -> dict[str, Measured]:
    processes = {name: [psutil.Process(ref.pid)] for name, ref in state.processes.items()}
    processes["client"] = [psutil.Process()]
    contestants: list[Contestant] = [
        Floor(*namespace(state, "floor")),
        Product(*namespace(state, "product")),
        Handlers(*namespace(state, "handlers")),
    ]
    sizes = {"floor": size, "product": size, "handlers": size // HANDLERS_PART}
    data = {each.name: Entries() for each in contestants}
    found = {each.name: Measured(sizes[each.name]) for each in contestants}
    for number in range(ROUNDS + 1):
        for each in contestants[number % 3 :] + contestants[: number % 3]:
            mine = found[each.name]
            each.load(data[each.name].round(mine.items, time.time()))
            before, cpu_before = each.counter.snapshot(), cpu_of(processes)
            timed = each.run()
            cpu = cpu_of(processes)
            say(
                f"round {number} {each.name}: enqueue {mine.items / timed.enqueue:.0f}/s,"
                f" save {mine.items / timed.save:.0f}/s, both {mine.items / timed.total:.0f}/s"
            )
            if number:
                cpu.subtract(cpu_before)
                mine.seconds.append(timed.total)
                mine.timed.append(timed)
                mine.cpu.append(cpu)
                mine.bill += each.counter.snapshot() - before
    return found
