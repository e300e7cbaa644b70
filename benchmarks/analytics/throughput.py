"""Events a second and CPU for each, all contestants in turn."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from benchmarks.analytics.both import BothBare
from benchmarks.analytics.contestants import BareProducer, BareQueue, Contestant, Drain, OldShape
from benchmarks.analytics.data import PER_MESSAGE, namespace
from regworkers_local.state import StackState

ROUNDS = 3
# Record by record is slow, and a rate does not need more.
OLD_MESSAGES = 5
PROCESSES = ("client", "aws", "kafka")


@dataclass(slots=True)
class Measured:
    """Seconds of each round of one contestant, and CPU seconds of all rounds by process."""

    events: int
    seconds: list[float] = field(default_factory=list)
    cpu: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Events a second, median of the rounds."""
        return self.events / statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median of the rounds."""
        return (max(self.seconds) - min(self.seconds)) / statistics.median(self.seconds)

    def cpu_micros(self, process: str) -> float:
        """CPU microseconds of a process for an event."""
        return 1e6 * self.cpu[process] / (self.events * len(self.seconds))


def measure(state: StackState, messages: int, say: Callable[[str], None]) -> dict[str, Measured]:
    """One round that warms up and does not count, then the others, with the order rotated each round."""
    both = BothBare(state.instance, namespace(state, "both"))
    try:
        return _measure(state, both, messages, say)
    finally:
        both.close()


def _measure(
    state: StackState, both: BothBare, messages: int, say: Callable[[str], None]
) -> dict[str, Measured]:
    processes = {name: [psutil.Process(state.processes[name].pid)] for name in PROCESSES if name != "client"}
    processes["client"] = [psutil.Process(), psutil.Process(both.child.pid)]
    contestants: list[Contestant] = [
        BareQueue(namespace(state, "sqs")),
        BareProducer(namespace(state, "kafka")),
        both,
        Drain(namespace(state, "drain")),
        OldShape(namespace(state, "old")),
    ]
    sizes = {
        each.name: min(messages, OLD_MESSAGES) if each.name == "old" else messages for each in contestants
    }
    found = {each.name: Measured(sizes[each.name] * PER_MESSAGE) for each in contestants}
    for number in range(ROUNDS + 1):
        turn = number % len(contestants)
        for each in contestants[turn:] + contestants[:turn]:
            each.load(number * messages, sizes[each.name])
            before = _cpu(processes)
            seconds = each.run()
            spent = _cpu(processes)
            say(f"round {number} {each.name}: {found[each.name].events / seconds:,.0f} events/s")
            if number:
                found[each.name].seconds.append(seconds)
                spent.subtract(before)
                found[each.name].cpu.update(spent)
    return found


def _cpu(processes: dict[str, list[psutil.Process]]) -> Counter[str]:
    return Counter(
        {name: sum(sum(each.cpu_times()[:2]) for each in several) for name, several in processes.items()}
    )
